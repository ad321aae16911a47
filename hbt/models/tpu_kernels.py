"""Kernels for TPUs: attention, and the gradient of a residual with dropout and layer norm.

A program of the grid computes one row of texts. Of attention, nothing of width x width leaves the
chip: scores lie as [keys, queries], so that the softmax sums over sublanes, and a product with a
transposed operand transposes [w, d], never [w, w]; the gradient computes the weights again (Dao et
al. 2022). Biases are added here, since their gradients are sums over tokens, which cost little
inside a kernel and much outside. Shapes: r rows, w width, h heads, e dim of a head, d = h e.
"""

import functools
import math
from collections import abc

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int, UInt32

from hbt.models import layers

LANES = 128
VMEM = 64 * 2**20  # bytes of vector memory that a program may use
SMALL_VMEM = {kind: 16 * 2**20 for kind in ('tpu v2', 'tpu v3', 'tpu v4')}


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def attend(
    qkv: tuple[Float[Array, 'r w d'], ...],
    biases: tuple[Float[Array, ' d'], ...],
    tokens: tuple[Int[Array, 'r w'], Int[Array, 'r w'], UInt32[Array, 'r w']],
    num_heads: int,
    rate: float,
    interpret: bool = False,
) -> Float[Array, 'r w d']:
    """`attention.attend` as one kernel; `interpret` runs it anywhere, slowly.

    Args:
      qkv: queries, keys and values, without their biases.
      tokens: segment ids, positions and seeds of the dropout.
    """
    return _attend_forward(qkv, biases, tokens, num_heads, rate, interpret)[0]


def _attend_forward(qkv, biases, tokens, num_heads, rate, interpret):
    r, w, _ = qkv[0].shape
    inputs = *_as_rows(tokens), *_as_row(biases, qkv[0]), *qkv
    outputs = qkv[0], jax.ShapeDtypeStruct((r, num_heads, w), jnp.float32)
    kernel = functools.partial(_attention_kernel, num_heads=num_heads, rate=rate)
    cost = _attention_cost(2, (*qkv, *outputs), num_heads)
    out, lse = _call(kernel, inputs, outputs, cost, interpret)
    return out, (inputs, biases, out, lse)


def _attend_backward(num_heads, rate, interpret, saved, g):
    inputs, biases, out, lse = saved
    qkv = inputs[-3:]
    sums = [jax.ShapeDtypeStruct((len(g), 1, g.shape[2]), jnp.float32)] * 3
    kernel = functools.partial(_attention_slopes_kernel, num_heads=num_heads, rate=rate)
    arrays = *inputs, out, g, lse
    cost = _attention_cost(5, (*qkv, out, g, *qkv), num_heads)
    *slopes, a, b, c = _call(kernel, arrays, (*qkv, *sums), cost, interpret)
    sums = (x.sum((0, 1)).astype(like.dtype) for x, like in zip((a, b, c), biases, strict=True))
    return tuple(slopes), tuple(sums), (None,) * 3


attend.defvjp(_attend_forward, _attend_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def residual_norm(
    x: Float[Array, 'r w d'],
    y: Float[Array, 'r w d'],
    norm: dict[str, Float[Array, ' d']],
    bias: Float[Array, ' d'],
    seeds: UInt32[Array, 'r w'] | None,
    rate: float,
    eps: float,
    interpret: bool = False,
) -> Float[Array, 'r w d']:
    """`layers.layer_norm` of `layers.residual`, whose gradient is one kernel."""
    return _residual_norm_forward(x, y, norm, bias, seeds, rate, eps, interpret)[0]


def _residual_norm_forward(x, y, norm, bias, seeds, rate, eps, interpret):
    total = layers.residual(x, y, bias, seeds, rate)
    return layers.layer_norm(norm, total, eps), (total, norm, bias, seeds)


def _residual_norm_backward(rate, eps, interpret, saved, g):
    total, norm, bias, seeds = saved
    rate = 0.0 if seeds is None else rate
    row = jnp.zeros(g.shape[:2], jnp.uint32) if seeds is None else seeds
    inputs = *_as_rows([row]), *_as_row([norm['scale']], total), total, g
    sums = [jax.ShapeDtypeStruct((len(g), 1, g.shape[2]), jnp.float32)] * 3
    kernel = functools.partial(_residual_norm_slopes_kernel, rate=rate, eps=eps)
    cost = pl.CostEstimate(30 * g.size, 0, 4 * g.size * g.dtype.itemsize)
    dx, dy, *sums = _call(kernel, inputs, (g, g, *sums), cost, interpret)
    sums = [x.sum((0, 1)).astype(bias.dtype) for x in sums]
    return dx, dy, {'scale': sums[1], 'bias': sums[2]}, sums[0], None


residual_norm.defvjp(_residual_norm_forward, _residual_norm_backward)


def fits(platform: str, width: int, dim: int, dtype) -> bool:
    """Whether both kernels compute rows of this width and dim on this platform (`sharding`).

    Of attention, the gradient takes most: eight arrays, twice, and scores of a head in float32.
    """
    if not platform.startswith('tpu') or dtype not in (jnp.bfloat16, jnp.float32):
        return False
    arrays = 2 * 8 * width * dim * jnp.dtype(dtype).itemsize
    scores = 8 * width * -(-width // LANES) * LANES * 4
    return max(arrays + scores, 48 * width * dim) <= SMALL_VMEM.get(platform, VMEM)


def _as_rows(arrays) -> list[jax.Array]:
    """Integers of the tokens as [r 1 w]."""
    return [jax.lax.bitcast_convert_type(x, jnp.uint32)[:, None] for x in arrays]


def _as_row(arrays, like) -> list[jax.Array]:
    """Parameters [d] as [1 1 d], which every program reads whole, as varying as `like`."""
    varying, given = (jax.typeof(x).manual_axis_type.varying for x in (like, arrays[0]))
    axes = tuple(varying - given)
    cast = (jax.lax.pcast(x, axes, to='varying') if axes else x for x in arrays)
    return [x.astype(jnp.float32)[None, None] for x in cast]


def _call(kernel, inputs, outputs, cost: pl.CostEstimate, interpret: bool):
    """Runs a kernel once for each row; what has but one row is read whole."""
    varying = jax.typeof(inputs[-1]).manual_axis_type
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype, manual_axis_type=varying) for x in outputs]
    rows = len(outputs[0])

    def spec(x):
        each = len(x) == rows
        return pl.BlockSpec(
            (1, *x.shape[1:]), (lambda i: (i, 0, 0)) if each else lambda i: (0, 0, 0)
        )

    return pl.pallas_call(
        kernel,
        grid=(rows,),
        in_specs=[spec(x) for x in inputs],
        out_specs=[spec(x) for x in shapes],
        out_shape=shapes,
        name=kernel.func.__name__.strip('_'),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=('parallel',), vmem_limit_bytes=VMEM
        ),
        cost_estimate=cost,
        interpret=interpret,
    )(*inputs)


def _attention_cost(products: int, arrays, num_heads: int) -> pl.CostEstimate:
    """What the compiler schedules by: products, exponentials, bytes."""
    r, w, d = arrays[0].shape
    size = sum(math.prod(x.shape) * x.dtype.itemsize for x in arrays)
    return pl.CostEstimate(products * 2 * r * w * w * d, r * num_heads * w * w, size)


def _attention_kernel(
    segments, positions, seeds, bias_q, bias_k, bias_v, q, k, v, out, lse, *, num_heads, rate
):
    w, d = q.shape[1:]
    e = d // num_heads
    mask, keep = _mask_and_dropout(segments, positions, seeds, w, rate)

    def compute_group(lanes, heads):
        group_q, group_k, group_v = _add_biases((q, k, v), (bias_q, bias_k, bias_v), lanes)
        group_q = group_q * _scale(group_q, e)
        columns = group_v.T  # d of the group, w
        outputs = []
        for i, head in enumerate(heads):
            part = slice(i * e, (i + 1) * e)
            scores = _product(group_k[:, part], group_q[:, part], 1, 1)
            scores = jnp.where(mask, scores, np.finfo(np.float32).min)
            most = scores.max(0, keepdims=True)
            weights = jnp.exp(scores - most)
            total = weights.sum(0, keepdims=True)
            lse[0, pl.ds(head, 1), :] = most + jnp.log(total)
            weights = keep(weights, head).astype(v.dtype)
            outputs.append(_product(columns[part], weights, 1, 0) / (total * (1 - rate)))  # e w
        out[0, :, lanes] = jnp.concatenate(outputs).T.astype(out.dtype)

    _for_each_group(compute_group, d, num_heads)


def _attention_slopes_kernel(*refs, num_heads, rate):
    segments, positions, seeds, bias_q, bias_k, bias_v, q, k, v, out, g, lse, *outputs = refs
    w, d = q.shape[1:]
    e = d // num_heads
    mask, keep = _mask_and_dropout(segments, positions, seeds, w, rate)

    def compute_group(lanes, heads):
        group_q, group_k, group_v = _add_biases((q, k, v), (bias_q, bias_k, bias_v), lanes)
        group_q, group_g = group_q * _scale(group_q, e), g[0, :, lanes]
        columns = group_k.T
        # The mean of a query's slopes, by its weights (Dao et al. 2022, B.4), as a row.
        means = (group_g.astype(jnp.float32) * out[0, :, lanes].astype(jnp.float32)).T
        parts = [], [], []
        for i, head in enumerate(heads):
            part = slice(i * e, (i + 1) * e)
            q_head, g_head = group_q[:, part], group_g[:, part]
            scores = _product(group_k[:, part], q_head, 1, 1)
            weights = jnp.where(mask, jnp.exp(scores - lse[0, pl.ds(head, 1), :]), 0.0)
            slopes = keep(_product(group_v[:, part], g_head, 1, 1), head) * (1 / (1 - rate))
            slopes = weights * (slopes - means[part].sum(0, keepdims=True))
            slopes = slopes.astype(q.dtype)
            weights = (keep(weights, head) * (1 / (1 - rate))).astype(q.dtype)
            parts[0].append(_product(columns[part], slopes, 1, 0))  # e w
            parts[1].append(_product(slopes, q_head, 1, 0))
            parts[2].append(_product(weights, g_head, 1, 0))
        slopes = (
            jnp.concatenate(parts[0]).T * (1 / math.sqrt(e)),
            *(jnp.concatenate(x, 1) for x in parts[1:]),
        )
        for x, slope, total in zip(slopes, outputs[:3], outputs[3:], strict=True):
            slope[0, :, lanes] = x.astype(slope.dtype)
            total[0, :, lanes] = x.sum(0, keepdims=True)

    _for_each_group(compute_group, d, num_heads)


def _add_biases(arrays, biases, lanes) -> list[jax.Array]:
    return [
        x[0, :, lanes] + bias[0, :, lanes].astype(x.dtype)
        for x, bias in zip(arrays, biases, strict=True)
    ]


def _for_each_group(compute_group: abc.Callable, d: int, num_heads: int) -> None:
    """`compute_group(lanes, heads)` for heads that fill lanes together: two of 64, one of 128."""
    lanes = math.lcm(d // num_heads, LANES)
    count = lanes // (d // num_heads)
    if num_heads % count or num_heads == count:
        compute_group(slice(None), range(num_heads))
        return

    def body(i, _):
        first = pl.multiple_of(i * lanes, LANES)
        compute_group(pl.ds(first, lanes), [i * count + j for j in range(count)])

    jax.lax.fori_loop(0, num_heads // count, body, None)


def _mask_and_dropout(segments, positions, seeds, w: int, rate: float) -> tuple:
    """The mask [keys, queries] of a text's own tokens, and `keep(x, head)`, x but for dropout."""
    mask = _column(segments[0], w) == segments[0]
    keys, queries = _column(positions[0], w), seeds[0]

    def keep(x, head):
        numbers = keys + jnp.asarray(head).astype(jnp.uint32) * jnp.uint32(layers.HEAD_SEEDS)
        return jnp.where(layers.keep_mask(layers.fold_seeds(queries, numbers), rate), x, 0.0)

    return mask, keep if rate else lambda x, head: x


def _residual_norm_slopes_kernel(seeds, scale, total, g, dx, dy, *sums, rate, eps):
    w, d = total.shape[1:]
    y, slope = total[0].astype(jnp.float32), g[0].astype(jnp.float32)
    y = y - y.mean(1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.square(y).mean(1, keepdims=True) + eps)
    normal = y * inverse
    sums[1][0] = (slope * normal).sum(0, keepdims=True)
    sums[2][0] = slope.sum(0, keepdims=True)
    slope = slope * scale[0]
    slope = slope - slope.mean(1, keepdims=True) - normal * (slope * normal).mean(1, keepdims=True)
    slope = slope * inverse
    dx[0] = slope.astype(dx.dtype)
    if rate:
        features = jax.lax.broadcasted_iota(jnp.int32, (1, d), 1).astype(jnp.uint32)
        token_seeds = layers.fold_seeds(_column(seeds[0], w), features)
        slope = jnp.where(layers.keep_mask(token_seeds, rate), slope * (1 / (1 - rate)), 0.0)
    dy[0] = slope.astype(dy.dtype)
    sums[0][0] = slope.sum(0, keepdims=True)


def _column(x, w: int):
    """[w 1] from [1 w]."""
    return jnp.broadcast_to(x, (8, w)).T[:, :1]


def _scale(x, e: int):
    return jnp.asarray(1 / math.sqrt(e), x.dtype)


def _product(x, y, x_axis: int, y_axis: int):
    """Summed in float32; the precision follows the type."""
    axes = ((x_axis,), (y_axis,)), ((), ())
    precision = layers.precision(x.dtype)
    return jax.lax.dot_general(x, y, axes, precision, preferred_element_type=jnp.float32)
