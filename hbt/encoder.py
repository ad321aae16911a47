"""XLM-R and BERT as functions over a pytree of arrays.

Hides the arithmetic of the transformer. `shapes` is the one table of parameters: random
initialisation, weight names (`hf`) and decay masks (`optim`) follow from it. Layers are stacked
on a leading axis. Called by `train` and `search`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hbt import config

Params = dict  # nested dicts of arrays, named as `shapes` names them


def shapes(c: config.Encoder) -> dict[str, tuple[int, ...]]:
    """Path -> shape of every parameter; `layers/...` has the layer as its first axis."""
    n, d, f = c.layers, c.dim, c.hidden
    table = {
        'embeddings/token': (c.vocab_size, d),
        'embeddings/position': (c.positions, d),
        'embeddings/type': (c.types, d),
    }
    norm = 'embeddings/norm' if c.norm == 'post' else 'final_norm'
    table |= {f'{norm}/scale': (d,), f'{norm}/bias': (d,)}
    for name, rows, columns in (
        ('query', d, d),
        ('key', d, d),
        ('value', d, d),
        ('attention_out', d, d),
        ('ffn_in', d, f),
        ('ffn_out', f, d),
    ):
        table[f'layers/{name}/kernel'] = (n, rows, columns)
        table[f'layers/{name}/bias'] = (n, columns)
    for name in ('attention_norm', 'ffn_norm'):
        table[f'layers/{name}/scale'] = (n, d)
        table[f'layers/{name}/bias'] = (n, d)
    if c.head:
        table |= {'head/kernel': (d, c.head), 'head/bias': (c.head,)}
    return table


def init(c: config.Encoder, key: jax.Array) -> Params:
    """Random float32 parameters: normal matrices and tables, zero biases, unit scales (BERT)."""
    flat = {}
    for i, (path, shape) in enumerate(shapes(c).items()):
        leaf = path.rsplit('/', 1)[-1]
        if leaf == 'bias':
            flat[path] = jnp.zeros(shape)
        elif leaf == 'scale':
            flat[path] = jnp.ones(shape)
        else:
            flat[path] = c.init_std * jax.random.normal(jax.random.fold_in(key, i), shape)
    if c.family == 'xlmr':  # as in the checkpoints of this family, padding is the zero vector
        flat['embeddings/token'] = flat['embeddings/token'].at[c.pad_id].set(0)
    return nest(flat)


def nest(flat: dict) -> Params:
    """{'a/b': x} -> {'a': {'b': x}}."""
    tree = {}
    for path, leaf in flat.items():
        *parents, name = path.split('/')
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def encode(
    params: Params,
    tokens: Int[Array | np.ndarray, 'b l'],
    c: config.Encoder,
    keys: Array | None = None,
) -> Float[Array, 'b d']:
    """Embeddings of texts in float32, or in float64 if `c.dtype` is; of length 1 if `c.normalise`.

    `tokens` are padded with `c.pad_id`, on either side. `keys` [b] are dropout keys, one a row, so
    that a row's dropout depends neither on its neighbours nor on its device; None: no dropout.
    """
    mask = tokens != c.pad_id  # b l
    dtype = jnp.dtype(c.dtype)
    x = embed(params['embeddings'], tokens, mask, c).astype(dtype)
    x = dropout(x, c.dropout, fold(keys, 0))
    layers = jax.tree.map(lambda w: w.astype(dtype), params['layers'])
    # Unrolled on the CPU, where a scan makes the backward pass 1.8 times slower.
    unroll = c.layers if jax.default_backend() == 'cpu' else 1

    def body(x, numbered):
        i, weights = numbered
        return layer(weights, x, mask, c, fold(keys, i + 1)), None

    x, _ = jax.lax.scan(body, x, (jnp.arange(c.layers), layers), unroll=unroll)
    if c.norm == 'pre':
        x = layer_norm(params['final_norm'], x, c.eps)
    pooled = POOLING[c.pooling](wide(x), mask)
    if c.head:
        pooled = HEAD[c.head_activation](dense(params['head'], pooled[:, None])[:, 0])
    if not c.normalise:
        return pooled
    # A text without tokens is the zero vector, with the gradient zero: its norm would have none.
    return pooled * jax.lax.rsqrt(jnp.maximum(jnp.square(pooled).sum(-1, keepdims=True), 1e-24))


def embed(p: Params, tokens, mask, c: config.Encoder):
    if c.family == 'xlmr':  # positions count real tokens, after the padding id
        positions = jnp.where(mask, jnp.cumsum(mask, axis=1) + c.pad_id, c.pad_id)
    else:
        positions = jnp.arange(tokens.shape[1])[None]
    x = p['token'][tokens] + p['position'][positions] + p['type'][None, :1]
    return layer_norm(p['norm'], x, c.eps) if c.norm == 'post' else x


def layer(p: Params, x, mask, c: config.Encoder, keys):
    """One transformer layer: post-norm (Vaswani et al. 2017) or pre-norm (Goyal et al. 2021)."""

    def residual(norm, x, sublayer, keys):
        before = layer_norm(p[norm], x, c.eps) if c.norm == 'pre' else x
        x = x + dropout(sublayer(before), c.dropout, keys)
        return layer_norm(p[norm], x, c.eps) if c.norm == 'post' else x

    def attend(x):
        return dense(p['attention_out'], attention(p, x, mask, c, fold(keys, 0)))

    def feed_forward(x):
        return dense(p['ffn_out'], ACTIVATION[c.activation](dense(p['ffn_in'], x)))

    x = residual('attention_norm', x, attend, fold(keys, 1))
    return residual('ffn_norm', x, feed_forward, fold(keys, 2))


def attention(p: Params, x, mask, c: config.Encoder, keys):
    q, k, v = (
        dense(p[name], x).reshape(*x.shape[:2], c.heads, -1) for name in ('query', 'key', 'value')
    )  # b l h e
    scores = wide(jnp.einsum('blhe,bmhe->bhlm', q, k) / math.sqrt(q.shape[-1]))
    scores = jnp.where(mask[:, None, None, :], scores, jnp.finfo(scores.dtype).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(x.dtype)
    weights = dropout(weights, c.attention_dropout, keys)
    return jnp.einsum('bhlm,bmhe->blhe', weights, v).reshape(x.shape)


def dense(p: Params, x):
    return x @ p['kernel'] + p['bias'][None, None]


def layer_norm(p: Params, x, eps: float):
    """Statistics in float32 at least, the result in the type of x."""
    y = wide(x)
    y = y - y.mean(-1, keepdims=True)
    y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + eps)
    scale, bias = (p[name].astype(y.dtype)[None, None] for name in ('scale', 'bias'))
    return (y * scale + bias).astype(x.dtype)


def wide(x):
    """x in float32, or still in float64."""
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def fold(keys, number):
    return None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def dropout(x, rate: float, keys):
    """Zeroes a share `rate` of x [b ...] and scales the rest; row i is drawn from keys[i]."""
    if keys is None or rate == 0:
        return x
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)


def mean_pool(x, mask):
    weights = mask[:, :, None].astype(x.dtype)
    return (x * weights).sum(1) / jnp.maximum(weights.sum(1), 1)


def first_pool(x, mask):
    """The first real token, which is the class token, wherever the padding stands."""
    return jnp.take_along_axis(x, jnp.argmax(mask, axis=1)[:, None, None], axis=1)[:, 0]


def max_pool(x, mask):
    return jnp.where(mask[:, :, None], x, jnp.finfo(x.dtype).min).max(1)


POOLING = {'mean': mean_pool, 'cls': first_pool, 'max': max_pool}
HEAD = {'tanh': jnp.tanh, 'identity': lambda x: x}
ACTIVATION = {
    'gelu': lambda x: jax.nn.gelu(x, approximate=False),
    'gelu_new': lambda x: jax.nn.gelu(x, approximate=True),
}
