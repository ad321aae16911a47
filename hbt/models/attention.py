"""Attention of tokens to those of their own text, by the fastest kernel that there is.

Hides cuDNN, the splash kernel of TPUs and the formula itself, which give equal results. Called by
`encoder`.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention
from jaxtyping import Array, Bool, Float, Int

BLOCK = 128  # the splash kernel's rows and columns come in multiples of it


def attend(
    q: Float[Array, 'b l h e'],
    k: Float[Array, 'b l h e'],
    v: Float[Array, 'b l h e'],
    texts: Int[Array, 'b l'],
    kept: Bool[Array, 'b h l l'] | None = None,
    rate: float = 0.0,
) -> Float[Array, 'b l h e']:
    """Softmax attention; tokens of row b see each other if they have the same number in `texts`.

    In training a share `rate` of the weights is dropped, those that are not `kept`; only the
    formula has weights, so then no fused kernel is used. The softmax is in float32 at least.
    """
    if kept is None:
        return KERNELS[choose_kernel(jax.default_backend(), q.dtype, q.shape)](q, k, v, texts)
    return plain(q, k, v, texts, kept, rate)


def choose_kernel(backend: str, dtype, shape: tuple[int, ...]) -> str:
    """The kernel for a backend, a type and a shape (b, l, h, e)."""
    half = dtype in (jnp.bfloat16, jnp.float16)
    if backend == 'gpu' and half and shape[3] % 8 == 0 and shape[3] <= 128 and shape[1] % 2 == 0:
        return 'cudnn'
    if backend == 'tpu' and shape[1] % BLOCK == 0:
        return 'splash'
    return 'plain'


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def plain(q, k, v, texts, kept=None, rate=0.0):
    """The formula. For the gradient its weights are kept in the type of q, and nothing else of
    their size: the sign tells which were dropped."""
    return forward(q, k, v, texts, kept, rate)[0]


def forward(q, k, v, texts, kept, rate):
    scores = product('blhe,bmhe->bhlm', q * root(q), k)
    together = texts[:, None, :, None] == texts[:, None, None, :]
    weights = jax.nn.softmax(jnp.where(together, scores, jnp.finfo(scores.dtype).min), axis=-1)
    signed = weights.astype(q.dtype)
    if kept is not None:
        signed = jnp.where(kept, signed, -signed)
    out = product('bhlm,bmhe->blhe', drop(signed, signed, rate), v).astype(q.dtype)
    return out, (q, k, v, signed, out)


def backward(rate, saved, g):
    q, k, v, signed, out = saved
    dv = product('bhlm,blhe->bmhe', drop(signed, signed, rate), g).astype(v.dtype)
    slopes = drop(signed, product('blhe,bmhe->bhlm', g, v), rate)
    # The mean of a row's slopes, by its weights, needs no sum over them (Dao et al. 2022, B.4).
    mean = product('blhe,blhe->bhl', g, out)[..., None]
    slopes = (jnp.abs(signed).astype(mean.dtype) * (slopes - mean)).astype(q.dtype)
    dq = product('bhlm,bmhe->blhe', slopes, k).astype(q.dtype) * root(q)
    dk = product('bhlm,blhe->bmhe', slopes, q * root(q)).astype(k.dtype)
    return dq, dk, dv, None, None


plain.defvjp(forward, backward)


def product(axes: str, x, y):
    return jnp.einsum(axes, x, y, preferred_element_type=np.promote_types(x.dtype, jnp.float32))


def root(q):
    return jnp.asarray(1 / math.sqrt(q.shape[-1]), q.dtype)


def drop(signed, x, rate: float):
    """What was kept of x, scaled to make up for the rest."""
    return jnp.where(signed > 0, x * jnp.asarray(1 / (1 - rate), x.dtype), 0) if rate else x


def cudnn(q, k, v, texts):
    together = texts[:, None, :, None] == texts[:, None, None, :]
    return jax.nn.dot_product_attention(q, k, v, mask=together, implementation='cudnn')


def splash(q, k, v, texts, interpret=False):
    length, heads = q.shape[1:3]
    mask = splash_attention.MultiHeadMask([splash_attention.FullMask((length, length))] * heads)
    kernel = splash_attention.make_splash_mha(
        mask, head_shards=1, q_seq_shards=1, interpret=interpret
    )
    q, k, v = (x.swapaxes(1, 2) for x in (q * root(q), k, v))  # b h l e
    out = jax.vmap(kernel)(q, k, v, splash_attention.SegmentIds(texts, texts))
    return out.swapaxes(1, 2).astype(q.dtype)


KERNELS = {'plain': plain, 'cudnn': cudnn, 'splash': splash}
