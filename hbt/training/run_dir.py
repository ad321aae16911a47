"""What a training run needs before its first step: a resolved config, and a locked directory."""

import contextlib
import dataclasses
import pathlib
import shlex
import shutil
from collections import abc

import jax

from hbt import config
from hbt.data import store, tokenizer_files
from hbt.models import encoder, model_dir
from hbt.sampling import repetition, sampler
from hbt.training import checkpoint, telemetry, train_state
from hbt.utils import distributed, files, hub, log, settings, sharding

# Settings that may change when a run is resumed: they have no say in what the next step computes.
# With `steps`, the rest of the schedule follows the new number.
FREE_SETTINGS = ('steps', 'log_', 'ckpt_every', 'nonfinite', 'mapping', 'distributed', 'eval.')
FREE_SETTINGS += ('data.root', 'data.s', 'data.verify')


@contextlib.contextmanager
def claim(c: config.Config, workdir: pathlib.Path, s: store.Store) -> abc.Iterator[None]:
    """Makes and locks the run directory, with the config, the tokenizer and the store's manifest.

    Raises ValueError if the run in this directory began with other settings, or is at work.
    """
    path = workdir / 'config.json'
    if path.exists():
        for name, (old, new) in settings.changes(config.load(path), c).items():
            if not name.startswith(FREE_SETTINGS):
                raise ValueError(
                    f'{workdir}: {name}: expected {old!r}, with which this run began, got {new!r}; '
                    'choose another --workdir, or delete this one'
                )
            log.info(f'{workdir}: {name} is now {new!r}, was {old!r}')
    if not distributed.is_main_process():
        yield
        return
    workdir.mkdir(parents=True, exist_ok=True)
    with files.lock(workdir / 'lock'):
        shutil.copyfile(s.path / 'tokenizer.json', workdir / 'tokenizer.json')
        shutil.copyfile(s.path / 'manifest.json', workdir / 'data.json')
        config.save(c, path)
        yield


def validation_path(workdir: pathlib.Path) -> pathlib.Path:
    """The store of the pairs of `eval.validation`, made by the program for this run."""
    return workdir / 'validation'


def resolve_config(c: config.Config, s: store.Store, mesh: jax.sharding.Mesh) -> config.Config:
    """The config with the sizes that follow from the store and the pretrained weights.

    Raises ValueError if config, store, weights and devices do not fit each other.
    """
    sharding.check_divides('batch_size', c.batch_size, mesh)
    vocab_size, pad_id = (s.manifest['tokenizer'][x] for x in ('vocab_size', 'pad_id'))
    if c.encoder.init:
        where = f'encoder.init={c.encoder.init}'
        architecture = _pretrained_architecture(c, s)
    else:
        where, rows = 'encoder', c.encoder.vocab_size or vocab_size
        architecture = dataclasses.replace(c.encoder, vocab_size=rows, pad_id=pad_id)
    architecture = model_dir.match_tokenizer(architecture, vocab_size, pad_id, where)
    longest = max(c.data.query_length, c.data.passage_length)
    limit = model_dir.max_text_length(architecture)
    if longest > limit:
        least = architecture.max_positions - limit + longest
        raise ValueError(
            f'{where}: max_positions: expected at least {least} for {longest} tokens of text '
            f'(data.query_length, data.passage_length), got {architecture.max_positions}'
        )
    if architecture.family == 'static':
        _check_static(architecture, s, where)
    if not architecture.normalise:
        raise ValueError('encoder.normalise: expected true: the loss compares cosines, got false')
    c = dataclasses.replace(c, encoder=architecture)
    config.check_dims(c)
    return c


def _check_static(c: config.Encoder, s: store.Store, where: str) -> None:
    if c.num_layers:
        raise ValueError(f'{where}: num_layers: expected 0 with family static, got {c.num_layers}')
    end_id = s.manifest['tokenizer']['end_id']
    if end_id is not None:
        raise ValueError(
            f'{s.path}: expected a store without special tokens around its texts, as '
            f'--tokenizer=train:SIZE:static makes it, for {where} of the family static, got one '
            f'whose texts end with token {end_id}'
        )


def list_surprises(s: sampler.Sampler, platform: str) -> list[str]:
    """Lines to print before a run: what its settings mean for its length, store and platform."""
    c, lines = s.config, []
    if c.optim.warmup > c.steps:
        lines.append(
            f'optim.warmup: {c.optim.warmup:,} steps are cut to steps={c.steps}: the learning rate '
            'rises to its peak at the last step and never falls'
        )
    last = max((step for step, _ in config.alpha_points(c.sampler)), default=0)
    if last > c.steps:
        lines.append(
            f'sampler.alpha_points: the one at step {last:,.0f} is beyond steps={c.steps}: '
            'alpha does not get there'
        )
    if platform == 'cpu' and c.encoder.dtype == 'bfloat16':
        half, full = (telemetry.measure_product(x, 512, 3) for x in ('bfloat16', 'float32'))
        if half < full:
            lines.append(
                f'encoder.dtype: on this CPU a product of bfloat16 takes {full / half:.1f} times '
                'as long as one of float32; encoder.dtype=float32 makes faster steps'
            )
    with log.activity('counting the groups that batches repeat'):
        return lines + repetition.describe_run(s)


def list_next_commands(c: config.Config, workdir: pathlib.Path) -> list[str]:
    """Lines that follow a run: its best step, and what to do with it next."""
    run, name = shlex.quote(str(workdir)), shlex.quote(workdir.name)
    evaluate, export = f'evaluate --workdir={run}', f'export --workdir={run} --out=models/{name}'
    evaluate += '' if c.eval.benchmarks else ' --benchmark=cldr'
    best = checkpoint.read_best(workdir)
    if best is None:
        line = 'best step: none, as nothing was evaluated'
        commands = [evaluate, f'{export} --step=latest']
    else:
        step, scores = best
        score = scores.get(checkpoint.best_metric(c.eval))
        line = f'best step: {step}' + ('' if score is None else f', with {c.eval.best} {score:.4f}')
        commands = [f'{evaluate} --step=best', export, f'report {run} --out=reports/{name}']
    return [line, 'next:', *(f'  python -m hbt.{x}' for x in commands)]


def _pretrained_architecture(c: config.Config, s: store.Store) -> config.Encoder:
    """The architecture of the weights, whose tokenizer, if they have one, must be the store's."""
    try:
        name = train_state.init_name(c)
        path = model_dir.fetch_model(name)
    except ValueError as error:
        raise ValueError(f'encoder.init: {error}') from None
    architecture = model_dir.read_architecture(path, c.encoder)
    folder = model_dir.encoder_folder(path)
    if tokenizer_files.has_tokenizer(folder):
        tokenizer = tokenizer_files.load_tokenizer(folder)
        tokenizer_files.check_same_tokenizer(s.path, tokenizer, str(path))
    if name == c.encoder.init:
        name = hub.pinned_name(name, path)
    else:
        name = c.encoder.init  # of every seed, so that runs differ in nothing else
    return dataclasses.replace(architecture, init=name, normalise=True)


def load_model(
    workdir: str | None, model: str | None, step: str = 'latest', dim: int | None = None
) -> tuple[model_dir.Model, int]:
    """A model with its parameters on all devices, and its step.

    It is that of a training run at `step` (latest, best, or the number of a kept one), or else of a
    model directory or hub name, whose step is 0. `dim`: see `model_dir.truncate_model`.
    """
    if bool(workdir) == bool(model):
        choice = 'both' if model else 'neither'
        raise ValueError(f'expected --workdir=DIR of a run, or --model=NAME, got {choice}')
    replicated = sharding.replicated(sharding.make_mesh())
    if model:
        loaded = model_dir.load_model(model, dim)
        return loaded._replace(params=jax.device_put(loaded.params, replicated)), 0
    folder = pathlib.Path(workdir)
    c = config.load(folder / 'config.json')
    tokenizer = tokenizer_files.load_tokenizer(folder / 'tokenizer.json')
    number, params = checkpoint.load_params(folder, step, replicated)
    encoder.check_finite(params, f'{workdir}: step {number}')
    loaded = model_dir.truncate_model(model_dir.Model(c, params, tokenizer), dim)
    return loaded._replace(params=jax.device_put(loaded.params, replicated)), number
