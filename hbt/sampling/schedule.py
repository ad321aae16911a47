"""Which rows make a batch: monolingual, cross-lingual, mixed, hybrid, multitask.

Hides how shares of languages, pairs and datasets become rows. A batch is a pure function of
(settings, store, step): a run resumes exactly, on any number of hosts. Called by `main`; as a
program it prints a batch.
"""

import jax.numpy as jnp
import numpy as np

from hbt import config


def alpha_at(c: config.Sampler, step, xp=np):
    """Alpha at a step, or at many; `xp` is numpy or jax.numpy.

    Between the points of `alpha_points` it follows `alpha_curve`, outside it keeps the nearest.
    """
    points = config.alpha_points(c)
    if not points:
        return c.alpha + 0 * xp.asarray(step, np.float32)
    at, values = (xp.asarray(x, np.float32) for x in zip(*points, strict=True))
    step = xp.asarray(step, np.float32)
    i = xp.clip(xp.searchsorted(at, step, side='right') - 1, 0, len(at) - 1)
    j = xp.minimum(i + 1, len(at) - 1)
    part = xp.clip((step - at[i]) / xp.maximum(at[j] - at[i], 1), 0, 1)
    return values[i] + CURVES[c.alpha_curve](part, xp) * (values[j] - values[i])


CURVES = {
    'linear': lambda part, xp: part,
    'cosine': lambda part, xp: (1 - xp.cos(np.pi * part)) / 2,
    'stairs': lambda part, xp: 0 * part,
}


def task_weights(c: config.Sampler, tasks: int, step) -> tuple:
    """Weight of the loss of each task of a step, inside a compiled function."""
    if tasks == 1:
        return (1.0,)
    share = alpha_at(c, step, jnp)
    return share, 1 - share


def uses_kind(c: config.Sampler, kind: str) -> bool:
    """Whether any step can have a batch of this kind."""
    values = [value for _, value in config.alpha_points(c)] or [c.alpha]
    return c.kind == 'multitask' or any(x > 0 if kind == 'mono' else x < 1 for x in values)
