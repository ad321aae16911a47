"""Command line: trains one config, evaluating and checkpointing on the way.

The same command resumes a run that was stopped, and ends as if it had never been.
"""

import pathlib

from absl import flags
from ml_collections import config_flags

from hbt import config
from hbt.training import dry_run, loop, replay
from hbt.utils import cli, distributed


def main(_) -> None:
    c = config.check(flags.FLAGS.config)
    workdir = pathlib.Path(flags.FLAGS.workdir or f'runs/{c.name}')
    if c.distributed:
        distributed.run_as_one_of_many(lambda: work(c, workdir))
    else:
        work(c, workdir)


def work(c: config.Config, workdir: pathlib.Path) -> None:
    if flags.FLAGS.dry_run:
        dry_run.rehearse(c)
    elif flags.FLAGS.replay:
        replay.replay(c, workdir, flags.FLAGS.replay)
    else:
        loop.train_config(c, workdir)


if __name__ == '__main__':
    config_flags.DEFINE_config_file('config', None, 'file of the experiment')
    flags.DEFINE_string('workdir', None, 'directory of the run; none: runs/<name of the config>')
    flags.DEFINE_integer('replay', 0, 'prints this step of a run, computed again')
    flags.DEFINE_bool('dry_run', False, 'print what the run will take, and end')
    flags.mark_flags_as_required(['config'])
    cli.run(main, config.check_flags)
