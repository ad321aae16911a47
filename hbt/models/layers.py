"""The arithmetic of a layer, each with the gradient that runs fast; shapes as in `encoder`."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt32

GOLDEN = 0x9E3779B9  # 2**32 over the golden ratio
HEAD_SEEDS = 2**16  # seeds of the dropout of a head lie beyond those of its keys


def widen(x):
    """x in float32, or still in float64."""
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def normalise(x: Float[Array, '*n d']) -> Float[Array, '*n d']:
    """Vectors of length 1.

    A text without tokens is the zero vector, with the gradient zero: its norm would have none.
    """
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-24))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def dense(
    x: Float[Array, 'r w d'],
    kernel: Float[Array, 'k f'],
    cast: Float[Array, 'k f'] | None = None,
    axis: str | None = None,
) -> Float[Array, 'r w f']:
    """x @ kernel in the type of x, summed in float32; the kernel's gradient is float32.

    With a mesh axis, a device has some rows of the kernel. The rest is gathered for the product and
    again for the gradient, which is split in the same way and summed over the devices. `cast` is
    the kernel in the type of x; none: it is converted here.
    """
    return _dense_forward(x, kernel, cast, axis)[0]


def _dense_forward(x, kernel, cast, axis):
    y = _product(x, _gather(kernel, cast, x.dtype, axis), ((2,), (0,)))
    return y.astype(x.dtype), (x, kernel, cast)


def _dense_backward(axis, saved, g):
    x, kernel, cast = saved
    weights, contracted = _gather(kernel, cast, x.dtype, axis), 1
    if cast is not None:  # a TPU contracts the last axis of a kernel 1.4 times slower
        weights, contracted = jax.lax.optimization_barrier(weights.T), 0
    dx = _product(g, weights, ((2,), (contracted,))).astype(x.dtype)
    # Over both axes at once: flattened into one, XLA's CPU product of bfloat16 is much slower.
    dk = _product(x, g, ((0, 1), (0, 1))).astype(kernel.dtype)
    if axis is not None:
        dk = jax.lax.psum_scatter(dk, axis, tiled=True)
    return dx, dk, None


dense.defvjp(_dense_forward, _dense_backward)


def _gather(kernel, cast, dtype, axis):
    cast = kernel.astype(dtype) if cast is None else cast
    return cast if axis is None else jax.lax.all_gather(cast, axis, tiled=True)


def _product(x, y, axes):
    # Without a type for the sum, XLA's CPU backend raises bfloat16 to float32 before the product.
    dtype = np.promote_types(x.dtype, jnp.float32)
    axes = axes, ((), ())
    return jax.lax.dot_general(x, y, axes, precision(x.dtype), preferred_element_type=dtype)


def precision(dtype) -> jax.lax.Precision:
    """Of products of this type: by default a TPU multiplies float32 in bfloat16."""
    return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else jax.lax.Precision.DEFAULT


def layer_norm(p: dict, x: Float[Array, 'r w d'], eps: float) -> Float[Array, 'r w d']:
    """Statistics in float32 at least, the result in the type of x."""
    y = widen(x)
    y = y - y.mean(-1, keepdims=True)
    y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + eps)
    scale, bias = (p[name].astype(y.dtype)[None, None] for name in ('scale', 'bias'))
    return (y * scale + bias).astype(x.dtype)


@jax.custom_vjp
def gelu(x: Float[Array, '*n']) -> Float[Array, '*n']:
    """x * P(normal variable < x) (Hendrycks and Gimpel 2016), in float32 at least."""
    return _gelu_forward(x)[0]


def _gelu_forward(x):
    y = widen(x)
    below = 0.5 * (1 + jax.lax.erf(y * math.sqrt(0.5)))
    slope = below + y * jnp.exp(-0.5 * jnp.square(y)) * (1 / math.sqrt(2 * math.pi))
    return (y * below).astype(x.dtype), slope.astype(x.dtype)


# The slope is stored, not x: nothing is computed twice, nothing wider than x is stored.
gelu.defvjp(_gelu_forward, lambda slope, g: (g * slope,))


def _mix_bits(x: UInt32[Array, '*n']) -> UInt32[Array, '*n']:
    """A bijection of 32-bit integers that spreads every bit (MurmurHash3's finaliser)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def fold_seeds(seeds: UInt32[Array, '...'] | None, number) -> UInt32[Array, '...'] | None:
    """Other seeds, one from each seed and number; without seeds, none."""
    if seeds is None:
        return None
    return _mix_bits(seeds + jnp.asarray(number).astype(jnp.uint32) * jnp.uint32(GOLDEN))


def keep_mask(seeds: UInt32[Array, '*n'], rate: float) -> Bool[Array, '*n']:
    """True with probability 1 - rate, for each seed."""
    return seeds >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))


def dropout(x: Float[Array, 'r w d'], rate: float, seeds: UInt32[Array, 'r w'] | None):
    """Zeroes a proportion `rate` of each token by its seed, and scales the rest; no seeds: off."""
    if seeds is None or rate == 0:
        return x
    features = jnp.arange(x.shape[2], dtype=jnp.uint32)[None, None]
    keep = keep_mask(fold_seeds(seeds[:, :, None], features), rate)
    return jnp.where(keep, x * jnp.asarray(1 / (1 - rate), x.dtype), 0)


def residual(x, y, bias: Float[Array, ' d'], seeds: UInt32[Array, 'r w'] | None, rate: float):
    """x + dropout(y + bias), of shape [r w d]."""
    return x + dropout(y + bias.astype(y.dtype)[None, None], rate, seeds)
