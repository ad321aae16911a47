"""Model directories of training runs, and of other models with a smaller vocabulary."""

import pathlib
from collections import abc

import jax

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
) -> None:
    """Writes a model (see `run_dir.load_model`) for sentence-transformers, transformers and hbt.

    `license` is that of the model of a run, as the hub names it. The vocabulary is trimmed for
    `languages` and `corpus` (see `vocab_trim.trim_model`); with neither, that of a run stays whole.
    """
    loaded, number = run_dir.load_model(workdir, model, step)
    loaded = loaded._replace(params=jax.device_get(loaded.params))
    c, note = loaded.config, ''
    if model or languages or corpus:
        loaded, note = vocab_trim.trim_model(loaded, languages, corpus)
    if model:
        text = f'# {out.name}\n\n{model} {note}\n'
    else:
        text = card.run_card(c, pathlib.Path(workdir), number, out, license, note)
    model_dir.write_model(out, loaded, text)
    log.info(f'{out}: {model or f"step {number} of {workdir}"}')
