"""AdamW with warm-up, a learning-rate schedule, clipping and a decay mask by name."""

import math

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from hbt import config


def make_optimizer(c: config.Optim, steps: int) -> tuple:
    """The optax transformation of clipped gradients, and the learning rate by its state.

    It counts updates, of which a step that is skipped has none.
    """
    rate = make_schedule(c, steps)
    settings = {'weight_decay': c.weight_decay, 'mask': decay_mask}
    transform = optax.adamw(rate, c.b1, c.b2, c.eps, **settings)
    return transform, lambda state: rate(state[-1].count)


def make_schedule(c: config.Optim, steps: int) -> optax.Schedule:
    """Linear warm-up to the peak, then to zero at `steps`, or constant."""
    warmup = min(c.warmup, steps)
    shape = {
        'linear': lambda x: 1 - x,
        'cosine': lambda x: 0.5 * (1 + jnp.cos(math.pi * x)),
        'constant': jnp.ones_like,
    }[c.schedule]

    def rate(count) -> Float[Array, '']:
        count = jnp.asarray(count, jnp.float32)
        rising = (count + 1) / max(warmup, 1)  # the first step already moves
        falling = shape(jnp.clip((count - warmup) / max(steps - warmup, 1), 0, 1))
        return c.lr * jnp.where(count < warmup, rising, falling)

    return rate


def decay_mask(params) -> dict:
    """True for matrices and tables; biases and the scales of layer normalisation do not decay."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key not in ('bias', 'scale'), params
    )
