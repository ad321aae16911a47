"""Cost of a training step by the TPU's own compiler, without a TPU (extra `tpu`).

python -m benchmarks.tpu                                   every slice, size and batch: hours
python -m benchmarks.tpu --slice=v5e-8 --size=base --pairs=128 --largest=30
python -m benchmarks.tpu --part=kernels                    the kernels' own schedules

Rows of 256 tokens, all of them real, two pairs of texts in each; bfloat16, dropout 0.1. `compiler`
is the sum of the cycles that the compiler expects; `kernels` what the Pallas kernels declare;
`links` all collectives one after another, by arithmetic. Nothing is executed.
"""

import argparse
import collections
import os
import pathlib
import re
import subprocess
import sys
import tempfile

WIDTH = 256
SLICES = ('v5e-8', 'v6e-8', 'v5p-16')  # of eight chips
BASE = dict(hidden_dim=768, num_layers=12, num_heads=12, mlp_dim=3072, vocab_size=250_002)
SIZES = {
    'base': BASE,
    'base, unroll=false': BASE | {'unroll': False},
    'base, remat=layer': BASE | {'remat': 'layer'},
    'large, remat=layer': dict(
        **dict(hidden_dim=1024, num_layers=24, num_heads=16, mlp_dim=4096, vocab_size=250_002),
        remat='layer',
    ),
}
BUNDLE = re.compile(r'\s*(?:0x[0-9a-f]+|\d+)\s+(?:[A-Z]{2})?\s*:\s*(>*)')
COLUMNS = ('slice', 'XLM-R', 'pairs a chip', 'GiB', 'compiler', 'kernels', 'sum ms', 'MFU', 'links')


def estimate_step(name: str, size: str, pairs: int):
    """(estimate, MFU of compiler and kernels together) of a step of so many pairs a chip."""
    from hbt import config
    from hbt.sampling import batches
    from hbt.training import planning, telemetry
    from hbt.utils import sharding, slices

    tpu = slices.find_slice(name)
    mesh = sharding.make_mesh(slices.make_devices(tpu))
    c = config.Config(batch_size=pairs * mesh.size)
    c.encoder = config.Encoder(**SIZES[size], dtype='bfloat16')
    batch = batches.empty_batch(c, mesh.size, pairs // 2, WIDTH)
    program = planning.compile_step(c, mesh, batch)
    peak = telemetry.peak_flops(mesh.devices.flat[0].device_kind)
    result = slices.estimate(program, tpu, peak)
    tokens = pairs * mesh.size * WIDTH / 2
    # A row holds two pairs: four texts of a quarter of it.
    flops = telemetry.model_flops(c, tokens, tokens * WIDTH / 4, 1) / mesh.size
    seconds = sum(result.compiler.values()) + sum(result.kernels.values())
    return result, flops / seconds / peak


def print_steps(names, sizes, batches, largest: int) -> None:
    print(f'| {" | ".join(COLUMNS)} |\n|{"---|" * len(COLUMNS)}')
    for name in names:
        for size in sizes:
            for pairs in batches:
                print(_format_step(name, size, pairs, largest), flush=True)


def _format_step(name: str, size: str, pairs: int, largest: int) -> str:
    import jax

    head = f'| {name} | {size} | {pairs} |'
    try:
        x, mfu = estimate_step(name, size, pairs)
    except jax.errors.JaxRuntimeError as error:
        return f'{head} {str(error).splitlines()[0][:80]} |'
    compiler, kernels = (sum(part.values()) for part in (x.compiler, x.kernels))
    cells = [f'{1e3 * value:.1f}' for value in (compiler, kernels, compiler + kernels)]
    lines = [
        f'{head} {x.memory / 2**30:.1f} | {" | ".join(cells)} | {mfu:.0%} | {1e3 * x.links:.1f} |'
    ]
    parts = collections.Counter(x.compiler | x.kernels).most_common(largest)
    lines += [f'{1e3 * value:8.2f} ms  {part}' for part, value in parts]
    return '\n'.join(lines)


def print_kernels() -> None:
    """Bundles of instructions of every kernel, as the compiler schedules them, a row of 256."""
    with tempfile.TemporaryDirectory() as folder:
        flags = f'--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true'
        environment = os.environ | {'LIBTPU_INIT_ARGS': flags}
        command = [sys.executable, '-m', 'benchmarks.tpu', '--part=dump']
        subprocess.run(command, env=environment, check=True)
        print('| kernel | bundles a row | and for a group of heads |\n|---|---|---|')
        for path in sorted(pathlib.Path(folder).glob('*[0-9]-final_bundles.txt')):
            text = path.read_text()
            depths = collections.Counter(len(x) for x in BUNDLE.findall(text))
            name = re.search(r'_((?:attention|residual)\w*_kernel)_', path.name)
            if name:
                print(f'| {name[1]} | {depths[1]:,} | {depths[2]:,} |')


def compile_kernels() -> None:
    """Compiles the kernels of a layer of XLM-R base, forward and backward, alone."""
    import jax
    import jax.numpy as jnp

    from hbt.models import tpu_kernels
    from hbt.utils import sharding, slices

    mesh = sharding.make_mesh(slices.make_devices(slices.find_slice('v5e-1')))

    def shape(*sizes, dtype=jnp.bfloat16):
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=sharding.replicated(mesh))

    def run(x, row, bias):
        tokens, norm = (row, row, row.astype(jnp.uint32)), {'scale': bias, 'bias': bias}

        def layer(x, bias):
            y = tpu_kernels.attend((x,) * 3, (bias,) * 3, tokens, BASE['num_heads'], 0.1)
            return tpu_kernels.residual_norm(x, y, norm, bias, tokens[-1], 0.1, 1e-5)

        y, pull = jax.vjp(layer, x, bias)
        return pull(y)

    d = BASE['hidden_dim']
    arrays = shape(64, WIDTH, d), shape(64, WIDTH, dtype=jnp.int32), shape(d, dtype=jnp.float32)
    jax.jit(run).lower(*arrays).compile()


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--part', choices=('steps', 'kernels', 'dump'), default='steps')
    parser.add_argument('--slice', action='append', help='of hbt.plan; may be repeated')
    parser.add_argument('--size', action='append', choices=SIZES)
    parser.add_argument('--pairs', action='append', type=int, help='a chip')
    parser.add_argument('--largest', type=int, default=0, help='how many items are listed')
    args = parser.parse_args()
    os.environ['JAX_PLATFORMS'] = 'cpu'
    if args.part == 'kernels':
        print_kernels()
    elif args.part == 'dump':
        compile_kernels()
    else:
        lists = args.slice or SLICES, args.size or list(SIZES), args.pairs or (128, 256)
        print_steps(*lists, args.largest)
