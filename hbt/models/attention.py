"""Attention of tokens to those of their own text: the formula, and which kernel runs where.

Shapes: r rows, w width, h heads, e dim of a head, d = h e.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from hbt.models import layers, tpu_kernels


def attend(
    qkv: tuple[Float[Array, 'r w d'], ...],
    biases: tuple[Float[Array, ' d'], ...],
    tokens: tuple[Int[Array, 'r w'], Int[Array, 'r w'], UInt32[Array, 'r w'] | None],
    num_heads: int,
    rate: float = 0.0,
    platform: str = 'cpu',
) -> Float[Array, 'r w d']:
    """Softmax attention to the tokens of the same segment id, the softmax in float32 at least.

    Args:
      qkv: queries, keys and values, to which `biases` are added.
      tokens: segment ids, positions of the tokens in their texts, and seeds of the dropout of each
        query; no seeds: no dropout.
      rate: the proportion of the weights that is zero; which ones follows from the query's seed,
        the head and the key's position, on every platform.
      platform: where it runs (`sharding.platform`); it chooses the kernel.
    """
    segment_ids, positions, seeds = tokens
    q = qkv[0]
    rate = 0.0 if seeds is None else rate
    kernel = choose_kernel(platform, q.dtype, q.shape[1], q.shape[2], num_heads, rate)
    if kernel == 'tpu':
        seeds = jnp.zeros(q.shape[:2], jnp.uint32) if seeds is None else seeds
        return tpu_kernels.attend(qkv, biases, (segment_ids, positions, seeds), num_heads, rate)
    heads = [
        (x + bias.astype(x.dtype)[None, None]).reshape(*x.shape[:2], num_heads, -1)
        for x, bias in zip(qkv, biases, strict=True)
    ]
    if kernel == 'cudnn':
        out = _cudnn(*heads, segment_ids)
    else:
        keep = keep_mask(seeds, positions, num_heads, rate) if rate else None
        out = plain(*heads, segment_ids, keep, rate)
    return out.reshape(q.shape)


def choose_kernel(
    platform: str, dtype, width: int, dim: int, num_heads: int, rate: float = 0.0
) -> str:
    """The kernel for rows of a width and a dim: tpu, cudnn, or plain, which is the formula."""
    half, e = dtype in (jnp.bfloat16, jnp.float16), dim // num_heads
    if platform == 'gpu' and half and not rate and e % 8 == 0 and e <= 128 and width % 2 == 0:
        return 'cudnn'
    return 'tpu' if tpu_kernels.fits(platform, width, dim, dtype) else 'plain'


def keep_mask(
    seeds: UInt32[Array, 'r w'], positions: Int[Array, 'r w'], num_heads: int, rate: float
) -> Bool[Array, 'r h w w']:
    """Which weights are kept, by the query's seed, the head and the key's position."""
    numbers = jnp.arange(num_heads, dtype=jnp.int32)[None, :, None, None] * layers.HEAD_SEEDS
    numbers += positions[:, None, None, :]
    return layers.keep_mask(layers.fold_seeds(seeds[:, None, :, None], numbers), rate)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def plain(q, k, v, segment_ids, keep=None, rate=0.0):
    """The formula; for the gradient it stores weights in the type of q, negative where dropped."""
    return _plain_forward(q, k, v, segment_ids, keep, rate)[0]


def _plain_forward(q, k, v, segment_ids, keep, rate):
    scores = _product('rwhe,rvhe->rhwv', q * _scale(q), k)
    lowest = jnp.finfo(scores.dtype).min
    weights = jax.nn.softmax(jnp.where(_same_text(segment_ids), scores, lowest), axis=-1)
    signed = weights.astype(q.dtype)
    if keep is not None:
        signed = jnp.where(keep, signed, -signed)
    out = _product('rhwv,rvhe->rwhe', _drop(signed, signed, rate), v).astype(q.dtype)
    return out, (q, k, v, signed, out)


def _plain_backward(rate, saved, g):
    q, k, v, signed, out = saved
    dv = _product('rhwv,rwhe->rvhe', _drop(signed, signed, rate), g).astype(v.dtype)
    slopes = _drop(signed, _product('rwhe,rvhe->rhwv', g, v), rate)
    # The mean of a row's slopes, by its weights, needs no sum over them (Dao et al. 2022, B.4).
    mean = _product('rwhe,rwhe->rhw', g, out)[..., None]
    slopes = (jnp.abs(signed).astype(mean.dtype) * (slopes - mean)).astype(q.dtype)
    dq = _product('rhwv,rvhe->rwhe', slopes, k).astype(q.dtype) * _scale(q)
    dk = _product('rhwv,rwhe->rvhe', slopes, q * _scale(q)).astype(k.dtype)
    return dq, dk, dv, None, None


plain.defvjp(_plain_forward, _plain_backward)


def _same_text(segment_ids: Int[Array, 'r w']) -> Bool[Array, 'r 1 w w']:
    return segment_ids[:, None, :, None] == segment_ids[:, None, None, :]


def _product(axes: str, x, y):
    dtype, precision = np.promote_types(x.dtype, jnp.float32), layers.precision(x.dtype)
    return jnp.einsum(axes, x, y, precision=precision, preferred_element_type=dtype)


def _scale(q):
    return jnp.asarray(1 / math.sqrt(q.shape[-1]), q.dtype)


def _drop(signed, x, rate: float):
    """x where the sign says that it is kept, scaled to make up for the rest."""
    return jnp.where(signed > 0, x * jnp.asarray(1 / (1 - rate), x.dtype), 0) if rate else x


def _cudnn(q, k, v, segment_ids):
    mask = _same_text(segment_ids)
    return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation='cudnn')
