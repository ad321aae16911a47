"""XLM-R and BERT as functions over a pytree of arrays.

Hides the arithmetic of the transformer. `shapes` is the one table of parameters: random
initialisation, weight names (`hf`) and decay masks (`optim`) follow from it. Layers are stacked
on a leading axis. Called by `train` and `search`.
"""

import functools
import types
import typing
from collections import abc

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from hbt import config
from hbt.data import ragged
from hbt.models import attention, layers

SITE = np.uint32(2**31)  # seeds of layers and sublayers lie beyond those of features and keys
Params = dict  # nested dicts of arrays, named as `shapes` names them


def param_shapes(c: config.Encoder) -> dict[str, tuple[int, ...]]:
    """Path -> shape of every parameter; `layers/...` has the layer as its first axis.

    Without layers there are no such parameters: the embeddings of the tokens are pooled.
    """
    n, d, f = c.num_layers, c.hidden_dim, c.mlp_dim
    table = {
        'embeddings/token': (c.vocab_size, d),
        'embeddings/position': (c.max_positions, d),
        'embeddings/type': (c.type_vocab_size, d),
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
    table |= {'head/kernel': (d, c.projection_dim), 'head/bias': (c.projection_dim,)}
    return {path: shape for path, shape in table.items() if 0 not in shape}


def split_axes(c: config.Encoder, devices: int) -> dict[str, int]:
    """Path -> the axis along which a parameter can be split, for those that are worth it.

    The token table has its columns split, the kernels of the layers their rows. All else is small.
    """
    table = {'embeddings/token': 1}
    table |= {
        path: 1
        for path in param_shapes(c)
        if path.startswith('layers/') and path.endswith('kernel')
    }
    return {
        path: axis for path, axis in table.items() if param_shapes(c)[path][axis] % devices == 0
    }


def init_params(c: config.Encoder, key: jax.Array) -> Params:
    """Random float32 parameters: normal matrices and tables, zero biases, unit scales (BERT)."""
    flat = {}
    for i, (path, shape) in enumerate(param_shapes(c).items()):
        leaf = path.rsplit('/', 1)[-1]
        if leaf == 'bias':
            flat[path] = jnp.zeros(shape)
        elif leaf == 'scale':
            flat[path] = jnp.ones(shape)
        else:
            flat[path] = c.init_std * jax.random.normal(jax.random.fold_in(key, i), shape)
    if c.family == 'xlmr':  # as in the checkpoints of this family, padding is the zero vector
        flat['embeddings/token'] = flat['embeddings/token'].at[c.pad_id].set(0)
    return nest_params(flat)


def nest_params(flat: dict) -> Params:
    """{'a/b': x} -> {'a': {'b': x}}."""
    tree = {}
    for path, leaf in flat.items():
        *parents, name = path.split('/')
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def encode_padded(
    params: Params,
    tokens: Int[Array | np.ndarray, 'b l'],
    c: config.Encoder,
    seeds: UInt32[Array, ' b'] | None = None,
) -> Float[Array, 'b e']:
    """Embeddings of texts in float32, or in float64 if `c.dtype` is; of length 1 if `c.normalise`.

    `tokens` are padded with `c.pad_id`, on either side; BERT counts the positions of padding in
    front, as in transformers. `seeds` are those of the dropout of each text, None: no dropout.
    """
    rows = ragged.PackedRows(tokens, (tokens != c.pad_id).astype(jnp.int32))
    seeds = None if seeds is None else seeds[:, None]
    place = None
    if c.family == 'bert':
        place = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
    return encode_packed(params, rows, 1, c, seeds, place=place)[:, 0]


def encode_packed(
    params: Params,
    rows: ragged.PackedRows,
    slots: int,
    c: config.Encoder,
    seeds: UInt32[Array, 'r s'] | None = None,
    split: abc.Mapping[str, str] = types.MappingProxyType({}),
    place: Int[Array, 'r w'] | None = None,
) -> Float[Array, 'r s e']:
    """Embeddings of texts 1 ... `slots` of each row; of no meaning where a row has fewer.

    A text's embedding, dropout included, does not depend on the row or the place where it stands.
    `place` is that of each token in its text, None: counted from the text's first token. `split`
    gives the mesh axis of those parameters that are split over devices as `splits` tells.
    """
    dtype = jnp.dtype(c.dtype)
    rows = ragged.PackedRows(*map(jnp.asarray, rows))
    index = jnp.arange(rows.segment_ids.shape[1], dtype=jnp.int32)[None]
    previous = jnp.pad(rows.segment_ids[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    if place is None:
        place = index - jax.lax.cummax(
            jnp.where(rows.segment_ids != previous, index, 0), axis=1
        )  # r w
    of_token = None
    if seeds is not None:
        mine = jnp.take_along_axis(seeds, jnp.maximum(rows.segment_ids - 1, 0), axis=1)
        of_token = layers.fold_seeds(mine, place)
    x = embed(params['embeddings'], rows, place, c, split).astype(dtype)
    x = layers.dropout(x, c.dropout, of_token)

    def body(x, numbered):
        i, weights = numbered
        folded = (
            None if of_token is None else layers.fold_seeds(of_token, SITE + i.astype(jnp.uint32))
        )
        return layer(weights, x, TokenContext(rows.segment_ids, place, folded), c, split), None

    # Unrolled on the CPU, where a scan makes the backward pass 1.8 times slower.
    unroll = c.num_layers if jax.default_backend() == 'cpu' else 1
    if c.num_layers:
        numbered = jnp.arange(c.num_layers), params['layers']
        x, _ = jax.lax.scan(REMAT[c.remat](body), x, numbered, unroll=unroll)
    if c.norm == 'pre':
        x = layers.layer_norm(params['final_norm'], x, c.norm_eps)
    return finish(params, pool(layers.widen(x), rows.segment_ids, slots, c.pooling), c)


class TokenContext(typing.NamedTuple):
    """What a layer knows of the tokens besides their states."""

    texts: Int[Array, 'r w']
    places: Int[Array, 'r w']  # in their text
    seeds: UInt32[Array, 'r w'] | None


def embed(p: Params, rows: ragged.PackedRows, places, c: config.Encoder, split):
    first = c.pad_id + 1 if c.family == 'xlmr' else 0  # XLM-R counts on from the padding id
    positions = jnp.where(rows.segment_ids > 0, places + first, first - 1 if first else 0)
    x = lookup(p['token'], rows.tokens, split.get('embeddings/token'))
    x = x + p['position'][positions] + p['type'][None, :1]
    return layers.layer_norm(p['norm'], x, c.norm_eps) if c.norm == 'post' else x


def lookup(table, tokens, axis: str | None):
    """Rows of a table, of which a device may have some of the columns.

    Each device then looks up its columns for the tokens of all: the table is never in one place.
    """
    if axis is None:
        return table[tokens]
    everyone = jax.lax.all_gather(tokens, axis)  # devices r w
    return jax.lax.all_to_all(table[everyone], axis, 0, 3, tiled=True)[0]


def layer(p: Params, x, row: TokenContext, c: config.Encoder, split):
    """One transformer layer: post-norm (Vaswani et al. 2017) or pre-norm (Goyal et al. 2021)."""

    def dense(name, x):
        y = layers.dense(x, p[name]['kernel'], split.get(f'layers/{name}/kernel'))
        return y + p[name]['bias'].astype(x.dtype)[None, None]

    def residual(norm, x, sublayer, number):
        before = layers.layer_norm(p[norm], x, c.norm_eps) if c.norm == 'pre' else x
        seeds = None if row.seeds is None else layers.fold_seeds(row.seeds, SITE + number)
        x = x + layers.dropout(sublayer(before), c.dropout, seeds)
        return layers.layer_norm(p[norm], x, c.norm_eps) if c.norm == 'post' else x

    def attend(x):
        q, k, v = (
            dense(name, x).reshape(*x.shape[:2], c.num_heads, -1)
            for name in ('query', 'key', 'value')
        )  # r w h e
        kept, rate = None, c.attention_dropout
        if row.seeds is not None and rate:
            kept = keep_weights(row, c.num_heads, rate)
        y = attention.attend(q, k, v, row.texts, kept, rate)
        return dense('attention_out', y.reshape(x.shape))

    def feed_forward(x):
        return dense('ffn_out', ACTIVATION[c.activation](dense('ffn_in', x)))

    x = residual('attention_norm', x, attend, np.uint32(1))
    return residual('ffn_norm', x, feed_forward, np.uint32(2))


def keep_weights(row: TokenContext, heads: int, rate: float) -> Bool[Array, 'r h w w']:
    """Attention weights that dropout leaves, drawn by query token, head and place of the key."""
    numbers = jnp.arange(heads, dtype=jnp.int32)[None, :, None, None] * jnp.int32(2**16)
    numbers += row.places[:, None, None, :]
    return layers.keep_mask(layers.fold_seeds(row.seeds[:, None, :, None], numbers), rate)


def pool(x, texts, slots: int, kind: str) -> Float[Array, 'r s d']:
    """One vector for each text of a row; zeros for those that are not there."""
    number = jnp.arange(1, slots + 1, dtype=jnp.int32)[None, :, None]
    return POOLING[kind](x, texts[:, None, :] == number)  # r s w


def mean_pool(x, mine):
    weights = mine.astype(x.dtype)
    total = jnp.matmul(weights, x, precision=jax.lax.Precision.HIGHEST)
    return total / jnp.maximum(weights.sum(2), 1)[:, :, None]


def first_pool(x, mine):
    """The first token, which is the class token, wherever the text stands."""
    first = jnp.take_along_axis(x, jnp.argmax(mine, axis=2)[:, :, None], axis=1)
    return jnp.where(mine.any(2)[:, :, None], first, 0)


def max_pool(x, mine):
    def one(mine):  # one text of every row, so that nothing of rank 4 is held
        return jnp.where(mine[:, :, None], x, -jnp.inf).max(1)

    most = jnp.stack([one(mine[:, i]) for i in range(mine.shape[1])], axis=1)
    return jnp.where(mine.any(2)[:, :, None], most, 0)


def finish(params: Params, pooled: Float[Array, 'r s d'], c: config.Encoder):
    """The head, and the length 1."""
    if c.projection_dim:
        p = params['head']
        pooled = HEAD[c.projection_activation](
            layers.dense(pooled, p['kernel']) + p['bias'][None, None]
        )
    if not c.normalise:
        return pooled
    # A text without tokens is the zero vector, with the gradient zero: its norm would have none.
    return pooled * jax.lax.rsqrt(jnp.maximum(jnp.square(pooled).sum(-1, keepdims=True), 1e-24))


POOLING = {'mean': mean_pool, 'cls': first_pool, 'max': max_pool}
HEAD = {'tanh': jnp.tanh, 'identity': lambda x: x}
ACTIVATION = {'gelu': layers.gelu, 'gelu_new': layers.gelu_new}
REMAT = {  # what of a layer is computed again for the gradient, instead of being kept
    'none': lambda body: body,
    'cheap': functools.partial(
        jax.checkpoint, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    ),
    'layer': jax.checkpoint,
}
