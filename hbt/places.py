"""What a run needs before its first step: its store, and a directory that is its own.

Hides who makes the store and who waits for it, what may change while a run is continued, and the
lock. Called by `main`, `replay` and `dry_run`.
"""

import contextlib
import pathlib
import shutil

from hbt import config, files, log, options, prepare, sharding, store


def open_store(c: config.Config) -> store.Store:
    """The store of the config, made from its sources first if it is not there yet."""
    root = config.root(c)
    if not log.first():  # the first process makes the store, the others wait for it
        sharding.meet('store')
        return store.open(root)
    made = make_store(c, root)
    sharding.meet('store')
    return made


def make_store(c: config.Config, root: pathlib.Path) -> store.Store:
    if root.exists() or not c.data.sources:
        return store.open(root)
    log.say(f'{root}: no store yet, preparing it from {", ".join(c.data.sources)}')
    try:
        made = prepare.prepare(c.data, root, c.data.sources, processes=0)
    except ValueError as error:
        raise ValueError(
            f'data.sources: {error}; make the store from files of your own with: '
            f'python -m hbt.prepare --input=FILE --tokenizer={c.data.tokenizer} --out={root}'
        ) from None
    log.say(prepare.table(made.manifest))
    return made


def claim(c: config.Config, workdir: pathlib.Path, data: store.Store) -> contextlib.ExitStack:
    """Makes the run directory, with the data's tokenizer and counts; an older one must fit `c`.

    The directory is this run's until what is returned is closed.
    """
    path = workdir / 'config.json'
    if path.exists():
        changed = options.changes(options.load(path), c)
        for name, (old, new) in changed.items():
            if not name.startswith(FREE):
                raise ValueError(
                    f'{workdir}: {name}: expected {old!r}, with which this run began, got {new!r}; '
                    'choose another --workdir, or delete this one'
                )
            log.say(f'{workdir}: {name} is now {new!r}, was {old!r}')
    held = contextlib.ExitStack()
    if log.first():
        workdir.mkdir(parents=True, exist_ok=True)
        held.enter_context(files.lock(workdir / 'lock'))
        shutil.copyfile(data.path / 'tokenizer.json', workdir / 'tokenizer.json')
        shutil.copyfile(data.path / 'manifest.json', workdir / 'data.json')
        options.save(c, path)
    return held


# What may change while a run is continued: it has no say in what the next step computes.
# With `steps`, the rest of the schedule follows the new number.
FREE = (
    'steps',
    'log_every',
    'ckpt_every',
    'nonfinite',
    'mapping',
    'distributed',
    'eval.',
    'data.root',
    'data.s',
    'data.verify',
)
