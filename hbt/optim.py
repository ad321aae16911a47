"""AdamW with warm-up, a schedule, clipping and a decay mask by name.

Hides optax. Called by `train`.
"""

import jax
import optax

from hbt import config


def make(c: config.Optim, steps: int) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The transformation of gradients and the learning rate by step."""
    rate = schedule(c, steps)
    transform = optax.chain(
        optax.clip_by_global_norm(c.clip),
        optax.adamw(rate, c.b1, c.b2, c.eps, weight_decay=c.weight_decay, mask=decays),
    )
    return transform, rate


def schedule(c: config.Optim, steps: int) -> optax.Schedule:
    """Linear warm-up to the peak, then to zero at `steps`, or constant."""
    warmup = min(c.warmup, steps)
    rest = max(steps - warmup, 1)
    after = {
        'linear': optax.linear_schedule(c.lr, 0.0, rest),
        'cosine': optax.cosine_decay_schedule(c.lr, rest),
        'constant': optax.constant_schedule(c.lr),
    }[c.schedule]
    if not warmup:
        return after
    # The first step already moves: its rate is lr / warmup, not 0.
    rising = optax.linear_schedule(c.lr / warmup, c.lr, max(warmup - 1, 1))
    return optax.join_schedules([rising, after], [warmup])


def decays(params) -> dict:
    """True for matrices and tables; biases and the scales of layer normalisation do not decay."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key not in ('bias', 'scale'), params
    )
