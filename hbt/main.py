"""Trains one experiment, with evaluations and checkpoints; the same command resumes it."""

import contextlib
import pathlib
import shutil

from absl import flags
from ml_collections import config_flags

from hbt import config
from hbt.data import build, store
from hbt.sampling import sampler, validation
from hbt.training import loop, replay, run_dir
from hbt.utils import cli, distributed, files, log, sharding


def main(_) -> None:
    c = config.check(flags.FLAGS.config)
    if c.distributed:
        distributed.run_in_processes(lambda: run(c))
    else:
        run(c)


def run(c: config.Config) -> None:
    """Replays one step, or makes the stores where they are missing and trains."""
    loop.keep_compiled()
    workdir = pathlib.Path(flags.FLAGS.workdir or f'runs/{c.name}')
    if flags.FLAGS.replay:
        replay.replay_step(c, workdir, flags.FLAGS.replay)
        return
    sharding.check_divides('batch_size', c.batch_size, sharding.make_mesh())
    if distributed.is_main_process():
        make_store(c)
        make_validation(c, workdir)
    distributed.barrier('store')
    loop.train_config(c, workdir)
    for line in run_dir.list_next_commands(c, workdir):
        log.info(line)


def make_store(c: config.Config) -> None:
    """Makes the store of the config from `data.sources`, if there are any and it is missing."""
    root = config.store_path(c)
    if not files.is_free(root) or not c.data.sources:
        return
    log.info(f'{root}: no store yet, preparing it from {", ".join(c.data.sources)}')
    try:
        s = build.build_store(c.data, root, c.data.sources, processes=0)
    except ValueError as error:
        raise ValueError(
            f'data.sources: {error}; make the store from files of your own with: '
            f'python -m hbt.prepare --input=FILE --tokenizer={c.data.tokenizer} --out={root}'
        ) from None
    log.info(build.format_counts(s.manifest))
    log.info(build.describe_store(s))


def make_validation(c: config.Config, workdir: pathlib.Path) -> None:
    """Makes the store of `eval.validation`, as the training store is, if the run has none.

    Raises ValueError if that cannot be made, is another than the run began with, shares groups with
    the training store, or has too few; then it is not left there.
    """
    if not c.eval.validation:
        return
    training, path = store.open_store(config.store_path(c)), run_dir.validation_path(workdir)
    is_new, began = files.is_free(path), workdir / 'config.json'
    try:
        if (
            not is_new
            and began.exists()
            and config.load(began).eval.validation == c.eval.validation
        ):
            held_out = store.open_store(path)  # its source may be gone
        else:
            tokenizer = str(training.path / 'tokenizer.json')
            data = config.Data(tokenizer=tokenizer, **training.manifest['settings'])
            held_out = build.build_store(data, path, [c.eval.validation], processes=0)
    except ValueError as error:
        raise ValueError(f'eval.validation: {error}') from None
    try:
        if c.data.verify:  # what is read here; `loop` verifies all
            store.verify_store(held_out)
            store.verify_store(training, validation.COMPARED)
        validation.check_disjoint(held_out, training)
        validation.plan_batches(c, held_out, sampler.check_store(c, training))
    except ValueError:
        if is_new:
            shutil.rmtree(path)
            with contextlib.suppress(OSError):  # unless it is a run
                workdir.rmdir()
        raise


if __name__ == '__main__':
    config_flags.DEFINE_config_file('config', None, 'file of the experiment')
    flags.DEFINE_string('workdir', None, 'directory of the run; none: runs/<name of the config>')
    flags.DEFINE_integer('replay', 0, 'computes this step of the run again and prints it')
    flags.mark_flags_as_required(['config'])
    cli.run(main, config.check_flags)
