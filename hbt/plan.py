"""Shows what a training run will draw and what its step takes, before training.

With --topology, on a TPU slice that need not be here: memory, time and collectives of the step, the
encoder and the search. With --step, the batch of that step as text instead. Only --out and
--fill_cache write files.
"""

import warnings

import jax
from absl import flags
from ml_collections import config_flags

from hbt import config
from hbt.data import store
from hbt.sampling import proportions, sampler
from hbt.training import loop, planning, run_dir
from hbt.utils import cli, log, sharding, slices


def main(_) -> None:
    args = flags.FLAGS
    tpu = slices.find_slice(args.topology) if args.topology else None
    c = config.check(args.config)
    s = store.open_store(config.store_path(c))
    if args.step is not None:
        print('\n'.join(sampler.describe_batch(sampler.Sampler(c, s), args.step)))
        return
    if tpu:
        jax.config.update('jax_platforms', 'cpu')  # of this program; else jax looks for a TPU
        # Without a TPU, what the cache keeps for one cannot be loaded; it is compiled again.
        warnings.filterwarnings('ignore', 'Error reading persistent compilation cache')
    if args.fill_cache:
        loop.keep_compiled(args.fill_cache)
    mesh = sharding.make_mesh(slices.make_devices(tpu) if tpu else None)
    with log.activity(f'counting the pairs of {args.drawn:,} steps'):
        pools = proportions.count_proportions(sampler.Sampler(c, s), c.steps, args.drawn)
    print(proportions.format_proportions(pools))
    if args.out:
        for path in proportions.write_proportions(pools, args.out):
            print(path)
    c = run_dir.resolve_config(c, s, mesh)
    batches = sampler.Sampler(c, s, mesh.size)
    for line in run_dir.list_surprises(batches, sharding.platform(mesh)):
        print(line)
    if tpu:
        for line in planning.plan_slice(c, batches, mesh, tpu, args.compile):
            print(line, flush=True)
        return
    print(planning.describe_step(c, batches, mesh, args.compile))


if __name__ == '__main__':
    config_flags.DEFINE_config_file('config', None, 'file of the experiment')
    flags.DEFINE_integer('step', None, 'prints the batch of this step as text', lower_bound=0)
    flags.DEFINE_integer('drawn', 0, 'also counts the pairs that so many steps draw')
    flags.DEFINE_string('out', None, 'folder for proportions.tsv and proportions.png')
    flags.DEFINE_bool('compile', True, 'compiles the step: its memory, FLOPs and collectives')
    flags.DEFINE_string('topology', None, 'a TPU slice to plan for, such as v5e-16; needs libtpu')
    flags.DEFINE_string(
        'fill_cache',
        None,
        'folder that keeps what is compiled: a run on this machine finds it there with '
        'JAX_COMPILATION_CACHE_DIR; with --topology, another plan does not, and whether a run on '
        'the slice does cannot be known without a TPU',
    )
    flags.mark_flags_as_required(['config'])
    cli.run(main, config.check_flags)
