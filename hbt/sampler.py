"""Which rows make a batch: monolingual, cross-lingual, mixed, hybrid, multitask.

Hides how shares of languages, pairs and datasets become rows. A batch is a pure function of
(settings, store, step): a run resumes exactly, on any number of hosts. Called by `main`; as a
program it prints a batch.
"""

from absl import flags
from ml_collections import config_flags

from hbt import config
from hbt.data import store
from hbt.sampling import sampler
from hbt.utils import cli


def main(_) -> None:
    c = config.check(flags.FLAGS.config)
    s = sampler.Sampler(c, store.open_store(config.store_path(c)))
    for line in sampler.describe_batch(s, flags.FLAGS.step):
        print(line)


if __name__ == '__main__':
    config_flags.DEFINE_config_file('config', None, 'file of the experiment')
    flags.DEFINE_integer('step', 0, 'whose batch is printed', lower_bound=0)
    flags.mark_flags_as_required(['config'])
    cli.run(main, config.check_flags)
