"""Memory as the compiler plans it: of the losses by batch size, and of a step of XLM-R XL.

python -m benchmarks.memory --part=losses     8 devices, from 1,024 to 32,768 pairs
python -m benchmarks.memory --part=xl         v5e-16, by the compiler of TPUs (extra `tpu`)

Programs are compiled and not run; no weights or batches are created, and no TPU is needed. Prints
tables.
"""

import argparse
import functools
import os

DEVICES, SLICE = 8, 'v5e-16'
WIDTH = 768  # of an embedding
XL = dict(
    hidden_dim=2560, num_layers=36, num_heads=32, mlp_dim=10240, vocab_size=250_880, norm='pre'
)
MIB, GIB = 2**20, 2**30


def loss_bytes(mesh, kind: str, rows: int, chunk: int) -> int:
    """Temporary bytes a device of a loss and its gradient, over the rows of all devices."""
    import jax
    import jax.numpy as jnp

    from hbt import config
    from hbt.training import losses
    from hbt.utils import sharding

    c = config.Loss(kind=kind, chunk=chunk)

    def local(vectors, ids):
        def mean(vectors):
            queries, documents = vectors
            scale = sharding.mark_varying(jnp.float32(3))
            result = losses.infonce(queries, documents, ids, ids[:, None], scale, c, sharding.AXIS)
            return result.loss.mean()

        return jax.grad(mean)(vectors)

    split = sharding.sharded(mesh)
    spec = functools.partial(jax.ShapeDtypeStruct, sharding=split)
    vectors = spec((rows, WIDTH), jnp.float32), spec((rows, 1, WIDTH), jnp.float32)
    mapped = jax.shard_map(local, mesh=mesh, in_specs=split.spec, out_specs=split.spec)
    compiled = jax.jit(mapped).lower(vectors, spec((rows,), jnp.int32)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def by_loss(sizes=(1024, 2048, 4096, 8192, 16384, 32768), chunk: int = 1024) -> None:
    from hbt.utils import sharding

    kinds = ('gathered', 'chunked', 'ring')
    mesh = sharding.make_mesh()
    print(f'MiB a device, forward and backward, {DEVICES} devices, {WIDTH} dimensions,')
    print(f'loss.chunk={chunk}; the embeddings themselves are not counted\n')
    print('| pairs |', ' | '.join(kinds), '|')
    print('|---|---|---|---|')
    for rows in sizes:
        sizes_mib = [loss_bytes(mesh, kind, rows, chunk) / MIB for kind in kinds]
        print(f'| {rows:,} |', ' | '.join(f'{x:,.1f}' for x in sizes_mib), '|', flush=True)


def step_bytes(mesh, shard: bool, pairs: int, length: int = 128, **sizes):
    """What the compiler plans for a step of so many pairs a device, of `length` tokens each."""
    from hbt import config
    from hbt.sampling import batches, packing
    from hbt.training import planning

    c = config.Config(batch_size=pairs * mesh.size, shard_params=shard)
    c.encoder = config.Encoder(**XL | sizes, dtype='bfloat16', remat='layer')
    assert packing.slots_per_row(length) > 1, 'a row holds the query and the passage'
    batch = batches.empty_batch(c, mesh.size, pairs, length)
    compiled = planning.compile_step(c, mesh, batch)
    return compiled.memory_analysis(), planning.count_parameters(c)


def by_step() -> None:
    import jax

    from hbt.utils import sharding, slices

    mesh = sharding.make_mesh(slices.make_devices(slices.find_slice(SLICE)))
    print(f'GiB a chip of {SLICE}, XLM-R XL, bfloat16, encoder.remat=layer\n')
    print('| pairs a chip | shard_params | parameters | weights, moments | peak of a step |')
    print('|---|---|---|---|---|')
    for shard, pairs in ((False, 4), (True, 4), (True, 16)):
        try:
            memory, count = step_bytes(mesh, shard, pairs)
        except jax.errors.JaxRuntimeError as error:  # the compiler refuses what does not fit
            print(f'| {pairs} | {shard} | {str(error).splitlines()[0]} |', flush=True)
            continue
        state, peak = memory.argument_size_in_bytes, memory.peak_memory_in_bytes
        sizes = f'{state / GIB:.2f} | {peak / GIB:.2f}'
        print(f'| {pairs} | {shard} | {count:,} | {sizes} |', flush=True)


PARTS = {'losses': by_loss, 'xl': by_step}

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--part', choices=PARTS, default='losses')
    part = parser.parse_args().part
    os.environ['JAX_PLATFORMS'] = 'cpu'
    os.environ['XLA_FLAGS'] = f'--xla_force_host_platform_device_count={DEVICES}'
    PARTS[part]()
