"""XLM-R and BERT over a pytree of arrays. Shapes: r rows, w width, s slots, d dim, h heads."""

import dataclasses
import functools
import pathlib
import types
from collections import abc

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Bool, Float, Int, UInt32

from hbt import config
from hbt.data import ragged
from hbt.models import attention, layers, tpu_kernels

SITE = np.uint32(2**31)  # seeds of layers and sublayers lie beyond those of features and keys
Params = dict  # nested dicts of arrays, named as in `param_shapes`


def param_shapes(c: config.Encoder) -> dict[str, tuple[int, ...]]:
    """Path -> shape of every parameter; `layers/...` has the layer as its first axis.

    Initialisation, names in checkpoints and the mask of the weight decay follow from it.
    """
    n, d, f = c.num_layers, c.hidden_dim, c.mlp_dim
    table = {
        'embeddings/token': (c.vocab_size, d),
        'embeddings/position': (c.max_positions, d),
        'embeddings/type': (c.type_vocab_size, d),
    }
    norm = 'embeddings/norm' if c.norm == 'post' else 'final_norm'
    table |= {f'{norm}/scale': (d,), f'{norm}/bias': (d,)}
    if c.family == 'static':
        table = {'embeddings/token': (c.vocab_size, d)}
    square = {name: (d, d) for name in ('query', 'key', 'value', 'attention_out')}
    for name, shape in (square | {'ffn_in': (d, f), 'ffn_out': (f, d)}).items():
        table[f'layers/{name}/kernel'] = (n, *shape)
        table[f'layers/{name}/bias'] = (n, shape[1])
    for name in ('attention_norm', 'ffn_norm'):
        table |= {f'layers/{name}/scale': (n, d), f'layers/{name}/bias': (n, d)}
    table |= {'head/kernel': (d, c.projection_dim), 'head/bias': (c.projection_dim,)}
    return {path: shape for path, shape in table.items() if 0 not in shape}


def split_axes(c: config.Encoder, devices: int) -> dict[str, int]:
    """Path -> axis along which a parameter can be split over devices; the others are small."""
    shapes = param_shapes(c)
    kernels = [x for x in shapes if x.startswith('layers/') and x.endswith('kernel')]
    return {path: 1 for path in ('embeddings/token', *kernels) if shapes[path][1] % devices == 0}


def init_params(c: config.Encoder, key: jax.Array) -> Params:
    """Random float32 parameters: normal matrices and tables, zero biases, unit scales (BERT)."""
    flat = {}
    for i, (path, shape) in enumerate(param_shapes(c).items()):
        if path.endswith('/bias'):
            flat[path] = jnp.zeros(shape)
        elif path.endswith('/scale'):
            flat[path] = jnp.ones(shape)
        else:
            flat[path] = c.init_std * jax.random.normal(jax.random.fold_in(key, i), shape)
    if c.family == 'xlmr':  # as in the checkpoints of this family, padding is the zero vector
        flat['embeddings/token'] = flat['embeddings/token'].at[c.pad_id].set(0)
    return traverse_util.unflatten_dict(flat, sep='/')


def check_dim(dim: int, c: config.Encoder) -> int:
    """The same; ValueError for what is no number of dimensions of the embeddings."""
    if not isinstance(dim, int | np.integer) or not 1 <= dim <= c.embedding_dim:
        expected = f'1 to {c.embedding_dim}, the dimensions of the embeddings'
        raise ValueError(f'dim: expected {expected}, got {dim!r}')
    return int(dim)


def truncate_embeddings(
    params: Params, c: config.Encoder, dim: int | None
) -> tuple[Params, config.Encoder]:
    """Parameters and sizes for the first `dim` dimensions, at length 1 again if they all had it.

    The dense layer over the pooled vector has fewer outputs, or one is added that only truncates:
    so all programs, and other libraries, embed in the same way. None: all dimensions.
    """
    if dim is None or check_dim(dim, c) == c.embedding_dim:
        return params, c
    if c.projection_dim:
        head = {name: np.asarray(x)[..., :dim] for name, x in params['head'].items()}
    else:
        kernel = np.eye(c.hidden_dim, dim, dtype=np.float32)
        head = {'kernel': kernel, 'bias': np.zeros(dim, np.float32)}
        c = dataclasses.replace(c, projection_activation='identity')
    return params | {'head': head}, dataclasses.replace(c, projection_dim=int(dim))


def check_finite(params: Params, where: str | pathlib.Path) -> None:
    """ValueError that names the first array with numbers that are not finite, if there is one."""
    flat = traverse_util.flatten_dict(params, sep='/')
    for path, is_finite in jax.device_get(_are_finite(flat)).items():
        if not is_finite:
            raise ValueError(f'{where}: {path}: expected finite numbers, got NaN or infinity')


@jax.jit
def _are_finite(arrays):
    return jax.tree.map(lambda x: jnp.isfinite(x).all(), arrays)


def encode_padded(
    params: Params,
    tokens: Int[Array | np.ndarray, 'r w'],
    lengths: Int[Array | np.ndarray, ' r'],
    c: config.Encoder,
    seeds: UInt32[Array, ' r'] | None = None,
    platform: str = 'cpu',
) -> Float[Array, 'r d']:
    """Embeds the first `lengths` tokens of each row as one text; see `encode_packed`.

    What lies behind them is padding, whatever its ids; a padding token among them is part of the
    text, as in packed rows.
    """
    segment_ids = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None] < jnp.asarray(lengths)[:, None]
    rows = ragged.PackedRows(tokens, segment_ids.astype(jnp.int32))
    seeds = None if seeds is None else seeds[:, None]
    return encode_packed(params, rows, 1, c, seeds, platform)[:, 0]


def encode_packed(
    params: Params,
    rows: ragged.PackedRows,
    slots: int,
    c: config.Encoder,
    seeds: UInt32[Array, 'r s'] | None = None,
    platform: str = 'cpu',
    mesh_axes: abc.Mapping[str, str] = types.MappingProxyType({}),
) -> Float[Array, 'r s d']:
    """Embeds the texts of packed rows, each as if it stood alone, dropout included.

    Args:
      slots: how many texts a row may hold.
      seeds: of the dropout of each text; none: no dropout.
      platform: where it runs (`sharding.platform`); it chooses kernels and loops, not results.
      mesh_axes: path -> mesh axis of the parameters that are split as in `split_axes`.

    Returns:
      The embedding of segment i of a row at slot i - 1; without meaning where there is none. In
      float32, or in float64 if `c.dtype` is; of length 1 if `c.normalise`.
    """
    rows = ragged.PackedRows(*map(jnp.asarray, rows))
    segment_ids = rows.segment_ids
    index = jnp.arange(segment_ids.shape[1], dtype=jnp.int32)[None]
    previous = jnp.pad(segment_ids[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    first = jax.lax.cummax(jnp.where(segment_ids != previous, index, 0), axis=1)
    positions = index - first
    token_seeds = None
    if seeds is not None:
        of_text = jnp.take_along_axis(seeds, jnp.maximum(segment_ids - 1, 0), axis=1)
        token_seeds = layers.fold_seeds(of_text, positions)
    x = _embed_tokens(params['embeddings'], rows, positions, c, platform, mesh_axes)
    x = x.astype(jnp.dtype(c.dtype))
    x = layers.dropout(x, c.dropout, token_seeds)

    def body(x, numbered):
        i, weights, casts = numbered
        layer_seeds = layers.fold_seeds(token_seeds, SITE + i.astype(jnp.uint32))
        tokens = segment_ids, positions, layer_seeds
        return _apply_layer(weights, casts, x, tokens, c, platform, mesh_axes), None

    # A loop copies what it stores for the gradient: on a CPU it makes the backward pass 1.8 times
    # slower, on a TPU the step 1.3 times. With recomputation a TPU stores little.
    on_tpu = platform.startswith('tpu')
    loop = not c.unroll or platform == 'gpu' or on_tpu and c.remat != 'none'
    if c.num_layers:
        casts = _cast_kernels(params['layers'], x.dtype) if on_tpu else {}
        numbered = jnp.arange(c.num_layers), params['layers'], casts
        x, _ = jax.lax.scan(_REMAT[c.remat](body), x, numbered, unroll=1 if loop else c.num_layers)
    if c.norm == 'pre' and c.family != 'static':
        x = layers.layer_norm(params['final_norm'], x, c.norm_eps)
    numbers = jnp.arange(1, slots + 1, dtype=jnp.int32)[None, :, None]
    pooled = _POOLING[c.pooling](layers.widen(x), segment_ids[:, None, :] == numbers)
    return _project(params, pooled, c)


def _embed_tokens(p, rows: ragged.PackedRows, positions, c: config.Encoder, platform, mesh_axes):
    x = _look_up(p['token'], rows.tokens, mesh_axes.get('embeddings/token'))
    if c.family == 'static':
        return x
    first = c.pad_id + 1 if c.family == 'xlmr' else 0  # XLM-R counts on from the padding id
    indices = jnp.where(rows.segment_ids > 0, positions + first, first - 1 if first else 0)
    if c.norm == 'post' and tpu_kernels.fits(platform, *x.shape[1:], x.dtype):
        position, types = p['position'][indices], p['type'][0]
        return tpu_kernels.residual_norm(x, position, p['norm'], types, None, 0.0, c.norm_eps)
    x = x + p['position'][indices] + p['type'][None, :1]
    return layers.layer_norm(p['norm'], x, c.norm_eps) if c.norm == 'post' else x


def _look_up(table, tokens, axis: str | None):
    """Rows of a table; a device with some of its columns looks these up for the tokens of all."""
    if axis is None:
        return table[tokens]
    all_tokens = jax.lax.all_gather(tokens, axis)  # devices r w
    return jax.lax.all_to_all(table[all_tokens], axis, 0, 3, tiled=True)[0]


def _cast_kernels(p: Params, dtype) -> dict[str, Float[Array, 'n k f']]:
    """The kernels of all layers in the type of the computation, converted once.

    Within a product, a TPU converts them again for every tile.
    """
    kernels = {name: x['kernel'].astype(dtype) for name, x in p.items() if 'kernel' in x}
    return jax.lax.optimization_barrier(jax.lax.stop_gradient(kernels))


def _apply_layer(p, casts, x, tokens, c: config.Encoder, platform: str, mesh_axes):
    """One transformer layer: post-norm (Vaswani et al. 2017) or pre-norm (Goyal et al. 2021).

    `casts`: kernels in the type of x; `tokens`: the segment id, the position and the seed of each.
    """
    seeds, activation = tokens[-1], _ACTIVATION[c.activation]

    def dense(name, x):
        axis = mesh_axes.get(f'layers/{name}/kernel')
        return layers.dense(x, p[name]['kernel'], casts.get(name), axis)

    def residual(norm, x, sublayer, last, number):
        """`last`: the sublayer's last dense layer, whose bias is added here."""
        pre = c.norm == 'pre'
        y = sublayer(layers.layer_norm(p[norm], x, c.norm_eps) if pre else x)
        drop = p[last]['bias'], layers.fold_seeds(seeds, SITE + number), c.dropout
        if not pre and tpu_kernels.fits(platform, *x.shape[1:], x.dtype):
            return tpu_kernels.residual_norm(x, y, p[norm], *drop, c.norm_eps)
        x = layers.residual(x, y, *drop)
        return x if pre else layers.layer_norm(p[norm], x, c.norm_eps)

    def attend(x):
        names = 'query', 'key', 'value'
        qkv, biases = tuple(dense(n, x) for n in names), tuple(p[n]['bias'] for n in names)
        y = attention.attend(qkv, biases, tokens, c.num_heads, c.attention_dropout, platform)
        return dense('attention_out', y)

    def feed_forward(x):
        x = dense('ffn_in', x) + p['ffn_in']['bias'].astype(x.dtype)[None, None]
        return dense('ffn_out', activation(x))

    x = residual('attention_norm', x, attend, 'attention_out', np.uint32(1))
    return residual('ffn_norm', x, feed_forward, 'ffn_out', np.uint32(2))


def mean_pool(x: Float[Array, 'r w d'], mask: Bool[Array, 'r s w']) -> Float[Array, 'r s d']:
    """The mean over the tokens of each text, as all poolings zeros where there is none."""
    weights = mask.astype(x.dtype)
    total = jnp.matmul(weights, x, precision=jax.lax.Precision.HIGHEST)
    return total / jnp.maximum(weights.sum(2), 1)[:, :, None]


def first_pool(x: Float[Array, 'r w d'], mask: Bool[Array, 'r s w']) -> Float[Array, 'r s d']:
    """The first token of each text, which is the class token."""
    first = jnp.take_along_axis(x, jnp.argmax(mask, axis=2)[:, :, None], axis=1)
    return jnp.where(mask.any(2)[:, :, None], first, 0)


def max_pool(x: Float[Array, 'r w d'], mask: Bool[Array, 'r s w']) -> Float[Array, 'r s d']:
    """The maximum over the tokens of each text; one slot at a time, so that no rank is 4."""
    most = [jnp.where(mask[:, i, :, None], x, -jnp.inf).max(1) for i in range(mask.shape[1])]
    return jnp.where(mask.any(2)[:, :, None], jnp.stack(most, axis=1), 0)


def _project(params: Params, pooled: Float[Array, 'r s d'], c: config.Encoder):
    """The dense layer over the pooled vector, and the length 1."""
    if c.projection_dim:
        p = params['head']
        pooled = layers.dense(pooled, p['kernel']) + p['bias'][None, None]
        pooled = _PROJECTION_ACTIVATION[c.projection_activation](pooled)
    return layers.normalise(pooled) if c.normalise else pooled


_POOLING = {'mean': mean_pool, 'cls': first_pool, 'max': max_pool}
_PROJECTION_ACTIVATION = {'tanh': jnp.tanh, 'identity': lambda x: x}
_ACTIVATION = {'gelu': layers.gelu, 'gelu_new': functools.partial(jax.nn.gelu, approximate=True)}
_REMAT = {  # what of a layer is computed again for the gradient, instead of being stored
    'none': lambda body: body,
    'cheap': functools.partial(
        jax.checkpoint, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    ),
    'layer': jax.checkpoint,
}
