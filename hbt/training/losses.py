"""InfoNCE, per device of a mesh axis, with in-batch and hard negatives, masked by identity."""

import functools
import sys
import typing
from collections import abc

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hbt import config
from hbt.models import layers
from hbt.sampling import batches


class Embeddings(typing.NamedTuple):
    """Embeddings with the identities of their texts."""

    vectors: Float[Array, 'm d']
    passage_ids: Int[Array, ' m']  # of the passage; of a query, that of its positive
    query_ids: Int[Array, ' m']  # of the query of its pair
    paired: Bool[Array, ' m']  # false: a hard negative


class PairMetrics(typing.NamedTuple):
    """Of each pair of this device, for the loss and the log."""

    loss: Float[Array, ' b']
    accuracy: Float[Array, ' b']  # 1 where the positive is above all negatives
    margin: Float[Array, ' b']  # cosine of the positive minus the mean of the negatives


def infonce(
    queries: Float[Array, 'b d'],
    passages: Float[Array, 'b n d'],
    query_ids: Int[Array, ' b'],
    passage_ids: Int[Array, 'b n'],
    log_scale: Float[Array, ''],
    c: config.Loss,
    axis: str | None = None,
) -> PairMetrics:
    """-log softmax of the positive, for each pair of this device (paper, equation 1).

    Negatives are the passages of all pairs of all devices that `negative_mask` leaves; with
    `c.negatives` 'hard' only hard negatives, as equation 1 is printed. With `c.symmetric`, the mean
    with the other direction, where the negatives of a positive are the queries of all pairs;
    accuracy and margin stay those of the queries. With `c.dims`, the mean over prefixes of the
    embeddings (see `infonce_by_dim`); accuracy and margin stay those of the whole. In float32 at
    least.

    Args:
      queries, passages: of unit length; passage 0 of a pair is its positive, others hard negatives.
      query_ids, passage_ids: equal for copies and translations; `batches.NO_PASSAGE`: none there.
      log_scale: cosines are multiplied by its exponential.
      axis: of the devices whose passages are negatives; none: this device alone.
    """
    return mean_of_dims(
        infonce_by_dim(queries, passages, query_ids, passage_ids, log_scale, c, axis)
    )


def infonce_by_dim(
    queries: Float[Array, 'b d'],
    passages: Float[Array, 'b n d'],
    query_ids: Int[Array, ' b'],
    passage_ids: Int[Array, 'b n'],
    log_scale: Float[Array, ''],
    c: config.Loss,
    axis: str | None = None,
) -> dict[int, PairMetrics]:
    """Dim -> `infonce` of so many first dimensions, at length 1 again; the last is the whole.

    Of each of `c.dims`, and of the embeddings as they are (Matryoshka representation learning,
    Kusupati et al. 2022, arXiv 2205.13147, equation 1).
    """
    others = query_ids, passage_ids, log_scale, c, axis
    whole = queries.shape[1]
    assert max(c.dims, default=0) <= whole, c.dims
    result = {}
    for dim in c.dims:
        if dim < whole:
            prefixes = (layers.normalise(layers.widen(x[..., :dim])) for x in (queries, passages))
            result[dim] = _infonce_of_vectors(*prefixes, *others)
    return result | {whole: _infonce_of_vectors(queries, passages, *others)}


def mean_of_dims(by_dim: dict[int, PairMetrics]) -> PairMetrics:
    """The mean loss over prefixes and the whole, all of equal weight; the rest is of the whole."""
    *prefixes, whole = by_dim.values()
    loss = sum((x.loss for x in prefixes), start=whole.loss)
    return whole._replace(loss=loss / len(by_dim) if prefixes else loss)


def _infonce_of_vectors(queries, passages, query_ids, passage_ids, log_scale, c, axis):
    """The loss in one or both directions; arguments as in `infonce`."""
    dtype = jnp.float64 if queries.dtype == jnp.float64 else jnp.float32
    queries, passages = queries.astype(dtype), passages.astype(dtype)
    b, n, d = passages.shape
    scale = jnp.exp(log_scale.astype(dtype))
    positives = passages[:, 0]
    rows = Embeddings(queries, passage_ids[:, 0], query_ids, jnp.ones(b, bool))
    columns = Embeddings(
        passages.reshape(b * n, d),
        passage_ids.reshape(-1),
        jnp.repeat(query_ids, n),
        jnp.tile(jnp.arange(n, dtype=jnp.int32) == 0, b),
    )
    result = _infonce_one_direction(rows, positives, columns, scale, c, axis)
    if c.symmetric:
        mirrored = rows._replace(vectors=positives)
        back = _infonce_one_direction(mirrored, queries, rows, scale, c, axis)
        result = result._replace(loss=(result.loss + back.loss) / 2)
    return result


def _infonce_one_direction(
    rows: Embeddings, positives: Float[Array, 'b d'], columns: Embeddings, scale, c, axis
) -> PairMetrics:
    """Each row against its positive and the columns of all devices that are its negatives."""
    cosine = (rows.vectors * positives).sum(1)
    hard = c.negatives == 'hard'
    total, (max_cosine, cosine_sum, count) = LOSSES[c.kind](
        rows, cosine * scale, columns, scale, c.chunk, hard, axis
    )
    mean = cosine_sum / jnp.maximum(count, 1)
    fixed = jax.lax.stop_gradient(cosine)
    accuracy = (fixed > max_cosine).astype(fixed.dtype)
    return PairMetrics(total - cosine * scale, accuracy, fixed - mean)


def negative_mask(rows: Embeddings, columns: Embeddings, hard: bool) -> Bool[Array, 'b m']:
    """Which columns are negatives of which rows, in either direction; `hard`: hard negatives only.

    No copy or translation of a row's passage, no pair of a copy or translation of its query, none
    that is missing. By identity, since dropout makes the embeddings of two copies differ.
    """
    same_passage = columns.passage_ids[None] == rows.passage_ids[:, None]
    same_query = columns.paired[None] & (columns.query_ids[None] == rows.query_ids[:, None])
    usable = (columns.passage_ids != batches.NO_PASSAGE) & ~(columns.paired & hard)
    return ~same_passage & ~same_query & usable[None]


def _gathered(rows, start, columns, scale, chunk, hard, axis):
    """All columns on every device, and the logits of a device's rows at once."""
    del chunk
    return _chunked(rows, start, columns, scale, sys.maxsize, hard, axis)


def _chunked(rows, start, columns, scale, chunk, hard, axis):
    """All columns on every device, the logits of `chunk` of them at a time."""
    if axis is not None:
        columns = jax.lax.all_gather(columns, axis, tiled=True)
    return _logsumexp(rows, start, columns, scale, chunk, hard, None)


def _ring(rows, start, columns, scale, chunk, hard, axis):
    """The columns pass from device to device, the logits of `chunk` of them at a time."""
    if axis is not None:  # the one constant among the columns
        columns = columns._replace(paired=jax.lax.pcast(columns.paired, axis, to='varying'))
    return _logsumexp(rows, start, columns, scale, chunk, hard, axis)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _logsumexp(rows: Embeddings, start, columns: Embeddings, scale, chunk: int, hard: bool, axis):
    """log(exp(start) + sum of exp(logit) over the negatives) of each row, and stats for the log.

    The stats: the greatest cosine of the negatives, the sum of all, and their count. Scans `chunk`
    columns at a time, with an axis also those of other devices; the gradient computes the logits
    again (as attention in Dao et al. 2022): memory is that of one block of logits.
    """
    return _forward(rows, start, columns, scale, chunk, hard, axis)[0]


def _forward(rows, start, columns, scale, chunk, hard, axis):
    def visit(carry, block: Embeddings):
        total, (max_cosine, cosine_sum, count) = carry
        cosine, mask = _cosines_and_mask(rows, block, hard)
        logits = jnp.where(mask, cosine * scale, -jnp.inf)
        stats = (
            jnp.maximum(max_cosine, jnp.where(mask, cosine, -jnp.inf).max(1)),
            cosine_sum + jnp.where(mask, cosine, 0).sum(1),
            count + mask.sum(1, dtype=start.dtype),
        )
        return (jnp.logaddexp(total, jax.nn.logsumexp(logits, axis=1)), stats), ()

    zeros = jnp.zeros_like(start)
    carry = start, (zeros - jnp.inf, zeros, zeros)
    (total, stats), _ = _scan_columns(visit, carry, columns, (), chunk, axis)
    return (total, stats), (rows, start, columns, scale, total)


def _backward(chunk, hard, axis, residuals, cotangents):
    rows, start, columns, scale, total = residuals
    outer, _ = cotangents  # the stats are for the log

    def visit(carry, block: Embeddings):
        d_rows, d_scale = carry
        cosine, mask = _cosines_and_mask(rows, block, hard)
        softmax = jnp.where(mask, jnp.exp(cosine * scale - total[:, None]), 0) * outer[:, None]
        d_rows += _matmul(softmax, block.vectors) * scale
        d_block = _matmul(softmax.T, rows.vectors) * scale
        return (d_rows, d_scale + (softmax * cosine).sum()), d_block

    carry = jnp.zeros_like(rows.vectors), jnp.zeros_like(start).sum()
    zeros = jnp.zeros_like(columns.vectors)
    (d_rows, d_scale), d_columns = _scan_columns(visit, carry, columns, zeros, chunk, axis)
    d_start = outer * jnp.exp(start - total)
    d_rows, d_columns = (Embeddings(x, None, None, None) for x in (d_rows, d_columns))
    return d_rows, d_start, d_columns, d_scale  # integers have no cotangent


_logsumexp.defvjp(_forward, _backward)


def _cosines_and_mask(rows: Embeddings, block: Embeddings, hard: bool):  # b m
    return _matmul(rows.vectors, block.vectors.T), negative_mask(rows, block, hard)


def _matmul(a, b):
    # By default a TPU multiplies float32 matrices in bfloat16.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _scan_columns(visit: abc.Callable, carry, columns: Embeddings, result, chunk: int, axis):
    """(carry, result) after `visit(carry, block) -> (carry, result of the block)` on all columns.

    `result` has a row for each column, to which those of the blocks are added. With an axis both go
    round all devices and end where they began.
    """

    def scan_local(carry, columns, result):
        carry, added = _scan_blocks(visit, carry, columns, chunk)
        return carry, jax.tree.map(jnp.add, result, added)

    if axis is None:
        return scan_local(carry, columns, result)
    size = jax.lax.axis_size(axis)
    to_next = [(i, (i + 1) % size) for i in range(size)]

    def hop(state, _):
        carry, columns, result = state
        carry, result = scan_local(carry, columns, result)
        columns, result = jax.lax.ppermute((columns, result), axis, to_next)
        return (carry, columns, result), None

    (carry, _, result), _ = jax.lax.scan(hop, (carry, columns, result), None, length=size)
    return carry, result


def _scan_blocks(visit: abc.Callable, carry, columns: Embeddings, chunk: int):
    """`visit` on blocks of `chunk` columns, the last padded with columns that are no negatives."""
    m = len(columns.passage_ids)
    if m <= chunk:
        return visit(carry, columns)
    fill = -m % chunk
    padded = jax.tree.map(lambda x: jnp.pad(x, ((0, fill),) + ((0, 0),) * (x.ndim - 1)), columns)
    real = jnp.arange(m + fill, dtype=jnp.int32) < m
    padded = padded._replace(passage_ids=jnp.where(real, padded.passage_ids, batches.NO_PASSAGE))
    blocks = jax.tree.map(lambda x: x.reshape(-1, chunk, *x.shape[1:]), padded)
    carry, results = jax.lax.scan(visit, carry, blocks)
    return carry, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:m], results)


LOSSES = {'gathered': _gathered, 'chunked': _chunked, 'ring': _ring}
