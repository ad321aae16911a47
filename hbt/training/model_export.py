"""Model directories of training runs, and smaller ones of other models."""

import pathlib
from collections import abc

import jax

from hbt import config
from hbt.models import card, model_dir, vocab_trim
from hbt.training import run_dir
from hbt.utils import log


def export_model(
    workdir: str | None,
    model: str | None,
    step: str,
    out: pathlib.Path,
    license: str = '',
    languages: abc.Sequence[str] = (),
    corpus: abc.Sequence[str] = (),
    dim: int | None = None,
) -> None:
    """Writes a model (see `run_dir.load_model`) for sentence-transformers, transformers and hbt.

    `license` is that of the model of a run, as the hub names it. The vocabulary is trimmed for
    `languages` and `corpus` (see `vocab_trim.trim_model`), with neither it stays whole; embeddings
    are truncated at `dim`, if any. One of these makes a model that is no run smaller.
    """
    with log.activity(f'{model or workdir}: loading the model'):
        loaded, number = run_dir.load_model(workdir, model, step, dim)
        loaded = loaded._replace(params=jax.device_get(loaded.params))
    notes = [f'with the first {dim} dimensions of its embeddings'] if dim else []
    if languages or corpus or (model and not dim):
        loaded, note = vocab_trim.trim_model(loaded, languages, corpus)
        notes.append(note)
    note = ', '.join(notes)
    if model:
        text = f'# {out.name}\n\n{model} {note}.\n'
    else:
        folder, size = pathlib.Path(workdir), loaded.config.encoder.embedding_dim
        c = config.load(folder / 'config.json')
        text = card.run_card(c, folder, number, out, license, note, size)
    with log.activity(f'{out}: writing the model'):
        model_dir.write_model(out, loaded, text)
    log.info(f'{out}: {model or f"step {number} of {workdir}"}')
