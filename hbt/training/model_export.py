"""Command line: a run -> a model directory that sentence-transformers, transformers and hbt load.

Writes the card from what the run recorded: data, settings, results, versions.
"""

import pathlib

import jax

from hbt import config
from hbt.data import tokenizer_files
from hbt.models import card, model_dir
from hbt.training import checkpoint
from hbt.utils import sharding


def export(workdir: pathlib.Path, which: str, out: pathlib.Path, license: str = '') -> int:
    """Writes the parameters of a step (latest, best or a number) as the directory `out`.

    Returns the step. Raises ValueError for a folder that is no run, a step that is not kept, and
    an `out` that exists.
    """
    c = config.load(workdir / 'config.json')
    place = sharding.replicated(sharding.make_mesh(jax.devices()[:1]))
    step, params = checkpoint.load_params(workdir, which, place)
    tokenizer = tokenizer_files.load_tokenizer(workdir / 'tokenizer.json')
    text = card.card(c, workdir, step, out, license)
    model_dir.write_model(out, model_dir.Model(c, jax.device_get(params), tokenizer), text)
    return step
