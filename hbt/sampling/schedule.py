"""Alpha, the proportion of monolingual batches, as a function of the step."""

import numpy as np

from hbt import config


def alpha_at(c: config.Sampler, step, xp=np):
    """Alpha at steps of any shape; `xp` is numpy, or jax.numpy inside a compiled function.

    Between the points of `alpha_points` it follows `alpha_curve`; outside, the nearest point holds.
    """
    points = config.alpha_points(c)
    if not points:
        return c.alpha + 0 * xp.asarray(step, np.float32)
    steps, values = (xp.asarray(x, np.float32) for x in zip(*points, strict=True))
    step = xp.asarray(step, np.float32)
    i = xp.clip(xp.searchsorted(steps, step, side='right') - 1, 0, len(steps) - 1)
    j = xp.minimum(i + 1, len(steps) - 1)
    part = xp.clip((step - steps[i]) / xp.maximum(steps[j] - steps[i], 1), 0, 1)
    return values[i] + _CURVES[c.alpha_curve](part, xp) * (values[j] - values[i])


def task_weights(c: config.Sampler, tasks: int, step, xp=np) -> tuple:
    """Weight of the loss of each task of a step; `xp` as in `alpha_at`."""
    if tasks == 1:
        return (1.0,)
    alpha = alpha_at(c, step, xp)
    return alpha, 1 - alpha


_CURVES = {
    'linear': lambda part, xp: part,
    'cosine': lambda part, xp: (1 - xp.cos(np.pi * part)) / 2,
    'stairs': lambda part, xp: 0 * part,
}
