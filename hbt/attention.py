"""Attention of tokens to those of their own text, by the fastest kernel that there is.

Hides cuDNN, the splash kernel of TPUs and the formula itself, which give equal results. Called by
`encoder`.
"""

import math
from collections import abc

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention
from jaxtyping import Array, Float, Int

BLOCK = 128  # the splash kernel's rows and columns come in multiples of it


def attend(
    q: Float[Array, 'b l h e'],
    k: Float[Array, 'b l h e'],
    v: Float[Array, 'b l h e'],
    texts: Int[Array, 'b l'],
    drop: abc.Callable | None = None,
) -> Float[Array, 'b l h e']:
    """Softmax attention; tokens of row b see each other if they have the same number in `texts`.

    `drop(weights [b h l l])` is applied to the weights in training; only the formula has weights,
    so with it no fused kernel is used. The softmax is in float32 at least.
    """
    kernel = 'plain' if drop else choose(jax.default_backend(), q.dtype, q.shape)
    return KERNELS[kernel](q, k, v, texts, drop)


def choose(backend: str, dtype, shape: tuple[int, ...]) -> str:
    """The kernel for a backend, a type and a shape (b, l, h, e)."""
    half = dtype in (jnp.bfloat16, jnp.float16)
    if backend == 'gpu' and half and shape[3] % 8 == 0 and shape[3] <= 128 and shape[1] % 2 == 0:
        return 'cudnn'
    if backend == 'tpu' and shape[1] % BLOCK == 0:
        return 'splash'
    return 'plain'


def plain(q, k, v, texts, drop):
    kind = np.promote_types(q.dtype, jnp.float32)
    scale = jnp.asarray(1 / math.sqrt(q.shape[-1]), q.dtype)
    scores = jnp.einsum('blhe,bmhe->bhlm', q * scale, k, preferred_element_type=kind)
    together = texts[:, None, :, None] == texts[:, None, None, :]
    weights = softmax(jnp.where(together, scores, jnp.finfo(kind).min))
    if drop:
        weights = drop(weights)
    return jnp.einsum('bhlm,bmhe->blhe', weights.astype(q.dtype), v)


def softmax(x):
    return jax.nn.softmax(x, axis=-1)


def cudnn(q, k, v, texts, drop):
    del drop
    together = texts[:, None, :, None] == texts[:, None, None, :]
    return jax.nn.dot_product_attention(q, k, v, mask=together, implementation='cudnn')


def splash(q, k, v, texts, drop, interpret=False):
    del drop
    length, heads = q.shape[1:3]
    mask = splash_attention.MultiHeadMask([splash_attention.FullMask((length, length))] * heads)
    kernel = splash_attention.make_splash_mha(
        mask, head_shards=1, q_seq_shards=1, interpret=interpret
    )
    scale = jnp.asarray(1 / math.sqrt(q.shape[-1]), q.dtype)
    q, k, v = (x.swapaxes(1, 2) for x in (q * scale, k, v))  # b h l e
    out = jax.vmap(kernel)(q, k, v, splash_attention.SegmentIds(texts, texts))
    return out.swapaxes(1, 2).astype(q.dtype)


KERNELS = {'plain': plain, 'cudnn': cudnn, 'splash': splash}
