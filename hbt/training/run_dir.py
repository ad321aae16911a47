"""What a training run needs before its first step: a resolved config, and a locked directory."""

import contextlib
import dataclasses
import pathlib
import shutil

import jax

from hbt import config
from hbt.data import store, tokenizer_files
from hbt.models import model_dir
from hbt.training import checkpoint
from hbt.utils import distributed, files, hub, log, settings, sharding


def claim(c: config.Config, workdir: pathlib.Path, data: store.Store) -> contextlib.ExitStack:
    """Makes the run directory, with the data's tokenizer and counts; an older one must fit `c`.

    The directory is this run's until what is returned is closed.
    """
    path = workdir / 'config.json'
    if path.exists():
        changed = settings.changes(config.load(path), c)
        for name, (old, new) in changed.items():
            if not name.startswith(FREE):
                raise ValueError(
                    f'{workdir}: {name}: expected {old!r}, with which this run began, got {new!r}; '
                    'choose another --workdir, or delete this one'
                )
            log.info(f'{workdir}: {name} is now {new!r}, was {old!r}')
    held = contextlib.ExitStack()
    if distributed.is_main_process():
        workdir.mkdir(parents=True, exist_ok=True)
        held.enter_context(files.lock(workdir / 'lock'))
        shutil.copyfile(data.path / 'tokenizer.json', workdir / 'tokenizer.json')
        shutil.copyfile(data.path / 'manifest.json', workdir / 'data.json')
        config.save(c, path)
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


def resolve_config(c: config.Config, s: store.Store, mesh) -> config.Config:
    """The config with what follows from the store and the checkpoint filled in.

    Raises ValueError where config, store, checkpoint and devices do not fit each other.
    """
    sharding.check_divides('batch_size', c.batch_size, mesh)
    tokenizer, place = s.manifest['tokenizer'], 'encoder'
    size, pad_id = tokenizer['vocab_size'], tokenizer['pad_id']
    if c.encoder.init:
        place = f'encoder.init={c.encoder.init}'
        architecture = pretrained(c, s)
    else:
        table = c.encoder.vocab_size or size
        architecture = dataclasses.replace(c.encoder, vocab_size=table, pad_id=pad_id)
    architecture = model_dir.match_tokenizer(architecture, size, pad_id, place)
    longest, room = (
        max(c.data.query_length, c.data.passage_length),
        model_dir.max_text_length(architecture),
    )
    if longest > room:
        least = architecture.max_positions - room + longest
        raise ValueError(
            f'{place}: max_positions: expected at least {least} for {longest} tokens of text '
            f'(data.query_length, data.passage_length), got {architecture.max_positions}'
        )
    if not architecture.normalise:
        raise ValueError('encoder.normalise: expected true: the loss compares cosines, got false')
    return dataclasses.replace(c, encoder=architecture)


def pretrained(c: config.Config, s: store.Store) -> config.Encoder:
    """The architecture of the checkpoint, whose tokenizer, if it has one, must be the store's."""
    try:
        path = model_dir.fetch_model(c.encoder.init)
    except ValueError as error:
        raise ValueError(f'encoder.init: {error}') from None
    architecture = model_dir.read_architecture(path, c.encoder)
    if tokenizer_files.has_tokenizer(path):
        vocabulary = tokenizer_files.load_tokenizer(path)
        tokenizer_files.check_same_tokenizer(s.path, vocabulary, str(path))
    name = hub.pinned_name(c.encoder.init, path)
    return dataclasses.replace(architecture, init=name, normalise=True)


def load_model(
    workdir: str | None, model: str | None, step: str = 'latest'
) -> tuple[model_dir.Model, int]:
    """The model of a training run, or of a model directory, with its parameters on all devices.

    Args:
      workdir: directory of a run, or nothing.
      model: model directory or hub name, or nothing.
      step: of the run: latest, best, or the number of a kept step.

    Returns:
      The model and its step, 0 for a model directory.
    """
    if bool(workdir) == bool(model):
        raise ValueError(
            'expected --workdir=DIR of a run, or --model=NAME, got '
            + ('both' if model else 'neither')
        )
    replicated = sharding.replicated(sharding.make_mesh())
    if model:
        loaded = model_dir.load_model(model)
        return loaded._replace(params=jax.device_put(loaded.params, replicated)), 0
    folder = pathlib.Path(workdir)
    c = config.load(folder / 'config.json')
    tokenizer = tokenizer_files.load_tokenizer(folder / 'tokenizer.json')
    number, params = checkpoint.load_params(folder, step, replicated)
    return model_dir.Model(c, params, tokenizer), number
