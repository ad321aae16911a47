"""Shows what a training run will draw and what its step takes, before training.

With --step, the batch of that step as text instead. Only --out writes files.
"""

from absl import flags
from ml_collections import config_flags

from hbt import config
from hbt.data import store
from hbt.sampling import proportions, sampler
from hbt.training import planning, run_dir
from hbt.utils import cli, sharding


def main(_) -> None:
    args = flags.FLAGS
    c = config.check(args.config)
    s = store.open_store(config.store_path(c))
    batches = sampler.Sampler(c, s)
    if args.step is not None:
        print('\n'.join(sampler.describe_batch(batches, args.step)))
        return
    pools = proportions.count_proportions(batches, c.steps, args.drawn)
    print(proportions.format_proportions(pools))
    if args.out:
        proportions.write_proportions(pools, args.out)
    mesh = sharding.make_mesh()
    c = run_dir.resolve_config(c, s, mesh)
    print(planning.describe_step(c, sampler.Sampler(c, s, mesh.size), mesh, args.compile))


if __name__ == '__main__':
    config_flags.DEFINE_config_file('config', None, 'file of the experiment')
    flags.DEFINE_integer('step', None, 'prints the batch of this step as text', lower_bound=0)
    flags.DEFINE_integer('drawn', 0, 'also counts the pairs that so many steps draw')
    flags.DEFINE_string('out', None, 'folder for proportions.tsv and proportions.png')
    flags.DEFINE_bool('compile', True, 'compiles the step: its memory, FLOPs and collectives')
    flags.mark_flags_as_required(['config'])
    cli.run(main, config.check_flags)
