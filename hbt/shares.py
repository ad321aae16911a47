"""What a run is to draw and what it has drawn: shares of languages, pairs and datasets.

Hides how the plan is summed up: nothing is counted while training, draws are counted again from
the settings alone. Called by `main`; as a program it shows the plan of a config before training.
"""

from absl import flags
from ml_collections import config_flags

from hbt import config
from hbt.data import store
from hbt.sampling import proportions, sampler
from hbt.utils import cli


def main(_) -> None:
    c = config.check(flags.FLAGS.config)
    s = sampler.Sampler(c, store.open_store(config.store_path(c)))
    found = proportions.count_proportions(s, c.steps, flags.FLAGS.drawn)
    print(proportions.format_proportions(found))
    if flags.FLAGS.out:
        proportions.write_proportions(found, flags.FLAGS.out)


if __name__ == '__main__':
    config_flags.DEFINE_config_file('config', None, 'file of the experiment')
    flags.DEFINE_integer('drawn', 0, 'steps of which the drawn rows are counted, too')
    flags.DEFINE_string('out', None, 'folder for shares.tsv and shares.png')
    flags.mark_flags_as_required(['config'])
    cli.run(main, config.check_flags)
