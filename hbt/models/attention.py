"""Attention of tokens to those of their own text. r rows, w width, h heads, e dim of a head."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention
from jaxtyping import Array, Bool, Float, Int

BLOCK = 128  # the splash kernel's rows and columns come in multiples of it


def attend(
    q: Float[Array, 'r w h e'],
    k: Float[Array, 'r w h e'],
    v: Float[Array, 'r w h e'],
    segment_ids: Int[Array, 'r w'],
    keep: Bool[Array, 'r h w w'] | None = None,
    rate: float = 0.0,
) -> Float[Array, 'r w h e']:
    """Softmax attention to the tokens of the same segment id, the softmax in float32 at least.

    Dropout zeroes a proportion `rate` of the weights, all but `keep`; only the formula has weights,
    so with dropout no fused kernel is used.
    """
    if keep is None:
        kernel = choose_kernel(jax.default_backend(), q.dtype, q.shape)
        return _KERNELS[kernel](q, k, v, segment_ids)
    return plain(q, k, v, segment_ids, keep, rate)


def choose_kernel(backend: str, dtype, shape: tuple[int, ...]) -> str:
    """The kernel for a backend, a type and a shape (r, w, h, e)."""
    half = dtype in (jnp.bfloat16, jnp.float16)
    if backend == 'gpu' and half and shape[3] % 8 == 0 and shape[3] <= 128 and shape[1] % 2 == 0:
        return 'cudnn'
    if backend == 'tpu' and shape[1] % BLOCK == 0:
        return 'splash'
    return 'plain'


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
    return jnp.einsum(axes, x, y, preferred_element_type=np.promote_types(x.dtype, jnp.float32))


def _scale(q):
    return jnp.asarray(1 / math.sqrt(q.shape[-1]), q.dtype)


def _drop(signed, x, rate: float):
    """x where the sign says that it is kept, scaled to make up for the rest."""
    return jnp.where(signed > 0, x * jnp.asarray(1 / (1 - rate), x.dtype), 0) if rate else x


def _cudnn(q, k, v, segment_ids):
    mask = _same_text(segment_ids)
    return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation='cudnn')


def splash(q, k, v, segment_ids, interpret=False):
    """The splash kernel of TPUs; `interpret` runs it elsewhere, slowly."""
    width, heads = q.shape[1:3]
    mask = splash_attention.MultiHeadMask([splash_attention.FullMask((width, width))] * heads)
    kernel = splash_attention.make_splash_mha(
        mask, head_shards=1, q_seq_shards=1, interpret=interpret
    )
    q, k, v = (x.swapaxes(1, 2) for x in (q * _scale(q), k, v))  # r h w e
    out = jax.vmap(kernel)(q, k, v, splash_attention.SegmentIds(segment_ids, segment_ids))
    return out.swapaxes(1, 2).astype(q.dtype)


_KERNELS = {'plain': plain, 'cudnn': _cudnn, 'splash': splash}
