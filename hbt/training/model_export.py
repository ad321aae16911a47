"""Model directories of training runs, and of other models with a smaller vocabulary."""

import pathlib
from collections import abc

import jax

from hbt import config
from hbt.data import tokenizer_files
from hbt.models import card, model_dir, vocab_trim
from hbt.training import checkpoint
from hbt.utils import log, sharding


def export_run(
    workdir: pathlib.Path,
    which: str,
    out: pathlib.Path,
    license: str = '',
    languages: abc.Sequence[str] = (),
    corpus: abc.Sequence[str] = (),
) -> None:
    """Writes the parameters of one step of a training run as the model directory `out`.

    Args:
      which: the step: latest, best or a number.
      license: of the model, as the hub names it.
      languages, corpus: what to trim the vocabulary for, see `vocab_trim.trim_model`; none: all.

    Raises:
      ValueError: no training run, no such step, or something exists at `out`.
    """
    c = config.load(workdir / 'config.json')
    placement = sharding.replicated(sharding.make_mesh(jax.devices()[:1]))
    step, params = checkpoint.load_params(workdir, which, placement)
    tokenizer = tokenizer_files.load_tokenizer(workdir / 'tokenizer.json')
    model, note = model_dir.Model(c, jax.device_get(params), tokenizer), ''
    if languages or corpus:
        model, note = vocab_trim.trim_model(model, languages, corpus)
    model_dir.write_model(out, model, card.run_card(c, workdir, step, out, license, note))
    log.info(f'{out}: step {step} of {workdir}')


def export_model(
    name: str, out: pathlib.Path, languages: abc.Sequence[str], corpus: abc.Sequence[str]
) -> None:
    """Writes the model directory or hub model `name`, trimmed; arguments as of `export_run`."""
    model, note = vocab_trim.trim_model(model_dir.load_model(name), languages, corpus)
    model_dir.write_model(out, model, f'# {out.name}\n\n{name} {note}\n')
    log.info(f'{out}: {name}, trimmed')
