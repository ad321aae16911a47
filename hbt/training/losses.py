"""InfoNCE with in-batch and hard negatives, masked by identity.

Hides which columns are negatives of which rows, and how the columns of all devices are walked
over without holding their logits. Per-device functions over the mesh axis. Called by `train`.
"""

import functools
import typing
from collections import abc

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from hbt import config
from hbt.sampling import batches


class Texts(typing.NamedTuple):
    """Embeddings with what tells them apart."""

    vectors: Float[Array, 'm d']
    documents: Int[Array, ' m']  # id of the text's own document
    queries: Int[Array, ' m']  # id of the query of its row
    positive: Bool[Array, ' m']  # whether it belongs to the pair of its row


class Rows(typing.NamedTuple):
    """What is known of each row of this device, for the loss and the log."""

    loss: Float[Array, ' b']
    accuracy: Float[Array, ' b']  # 1 where the positive is above all negatives
    margin: Float[Array, ' b']  # cosine of the positive minus the mean of the negatives


def infonce(
    queries: Float[Array, 'b d'],
    documents: Float[Array, 'b n d'],
    query_ids: Int[Array, ' b'],
    document_ids: Int[Array, 'b n'],
    log_scale: Float[Array, ''],
    c: config.Loss,
    axis: str | None = None,
) -> Rows:
    """-log softmax of the positive, for each row of this device (paper, equation 1).

    Document 0 of a row is its positive. The other documents of all rows are its negatives, on all
    devices of `axis`, but for those that `negatives` rules out; with `c.negatives` 'hard' only
    hard negatives, as equation 1 is printed. Cosines are multiplied by exp(log_scale). With
    `c.symmetric`, the mean of both directions: the queries of all rows are the negatives of a
    positive document. Accuracy and margin are those of the queries. In float32 at least.
    """
    kind = jnp.float64 if queries.dtype == jnp.float64 else jnp.float32
    queries, documents = queries.astype(kind), documents.astype(kind)
    b, n, d = documents.shape
    scale = jnp.exp(log_scale.astype(kind))
    positives, ids = documents[:, 0], document_ids[:, 0]
    asked = Texts(queries, ids, query_ids, jnp.ones(b, bool))
    given = Texts(
        documents.reshape(b * n, d),
        document_ids.reshape(-1),
        jnp.repeat(query_ids, n),
        jnp.tile(jnp.arange(n, dtype=jnp.int32) == 0, b),
    )
    rows = one_way(asked, positives, given, scale, c, axis)
    if c.symmetric:
        back = one_way(asked._replace(vectors=positives), queries, asked, scale, c, axis)
        rows = rows._replace(loss=(rows.loss + back.loss) / 2)
    return rows


def one_way(
    rows: Texts, partners: Float[Array, 'b d'], columns: Texts, scale, c: config.Loss, axis
) -> Rows:
    """Each row against its own partner and the columns of all devices that are negatives."""
    cosine = (rows.vectors * partners).sum(1)
    hard = c.negatives == 'hard'
    total, seen = LOSSES[c.kind](rows, cosine * scale, columns, scale, c.chunk, hard, axis)
    mean = seen.cosines / jnp.maximum(seen.count, 1)
    still = jax.lax.stop_gradient(cosine)
    return Rows(total - cosine * scale, (still > seen.hardest).astype(still.dtype), still - mean)


def negatives(rows: Texts, columns: Texts, hard: bool) -> Bool[Array, 'b m']:
    """Which columns are negatives of which rows, in either direction.

    Not a copy or a translation of the row's own document, not the pair of a copy or a translation
    of its query, not an absent one; if `hard`, hard negatives only. Embeddings could not tell:
    dropout makes two copies differ.
    """
    same_document = columns.documents[None] == rows.documents[:, None]
    same_query = columns.positive[None] & (columns.queries[None] == rows.queries[:, None])
    real = (columns.documents != batches.NO_PASSAGE) & ~(columns.positive & hard)
    return ~same_document & ~same_query & real[None]


class Seen(typing.NamedTuple):
    """Of the negatives of each row, for the log."""

    hardest: Float[Array, ' b']
    cosines: Float[Array, ' b']
    count: Float[Array, ' b']


def gathered(rows, start, columns, scale, chunk, hard, axis):
    """All columns on every device, and the logits of a device's rows at once."""
    del chunk
    columns = everyone(columns, axis)
    return logsumexp(rows, start, columns, scale, len(columns.documents), hard, None)


def chunked(rows, start, columns, scale, chunk, hard, axis):
    """All columns on every device, the logits of `chunk` of them at a time."""
    return logsumexp(rows, start, everyone(columns, axis), scale, chunk, hard, None)


def ring(rows, start, columns, scale, chunk, hard, axis):
    """The columns pass from device to device, the logits of `chunk` of them at a time."""
    if axis is not None:  # the one constant among the columns
        columns = columns._replace(positive=jax.lax.pcast(columns.positive, axis, to='varying'))
    return logsumexp(rows, start, columns, scale, chunk, hard, axis)


def everyone(columns: Texts, axis) -> Texts:
    return columns if axis is None else jax.lax.all_gather(columns, axis, tiled=True)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def logsumexp(rows: Texts, start, columns: Texts, scale, chunk: int, hard: bool, axis):
    """log(exp(start) + sum of exp(logit) over the negatives) of each row, and what was seen.

    The columns, `chunk` at a time, are walked over once here and once for the gradient, which
    keeps the result and computes the logits again (as attention in Dao et al. 2022): memory is
    that of one block of logits. With an axis, also those of the other devices.
    """
    return forward(rows, start, columns, scale, chunk, hard, axis)[0]


def forward(rows, start, columns, scale, chunk, hard, axis):
    def visit(carry, block: Texts):
        total, seen = carry
        cosine, mask = compare(rows, block, hard)
        logits = jnp.where(mask, cosine * scale, -jnp.inf)
        seen = Seen(
            jnp.maximum(seen.hardest, jnp.where(mask, cosine, -jnp.inf).max(1)),
            seen.cosines + jnp.where(mask, cosine, 0).sum(1),
            seen.count + mask.sum(1, dtype=start.dtype),
        )
        return (jnp.logaddexp(total, jax.nn.logsumexp(logits, axis=1)), seen), ()

    nothing = jnp.zeros_like(start)
    carry = start, Seen(nothing - jnp.inf, nothing, nothing)
    (total, seen), _ = walk(visit, carry, columns, (), chunk, axis)
    return (total, seen), (rows, start, columns, scale, total)


def backward(chunk, hard, axis, saved, cotangents):
    rows, start, columns, scale, total = saved
    outer, _ = cotangents  # what was seen is for the log

    def visit(carry, block: Texts):
        d_rows, d_scale = carry
        cosine, mask = compare(rows, block, hard)
        share = jnp.where(mask, jnp.exp(cosine * scale - total[:, None]), 0) * outer[:, None]
        d_rows += product(share, block.vectors) * scale
        return (d_rows, d_scale + (share * cosine).sum()), product(share.T, rows.vectors) * scale

    carry = jnp.zeros_like(rows.vectors), jnp.zeros_like(start).sum()
    (d_rows, d_scale), d_columns = walk(
        visit, carry, columns, jnp.zeros_like(columns.vectors), chunk, axis
    )
    return like(rows, d_rows), outer * jnp.exp(start - total), like(columns, d_columns), d_scale


logsumexp.defvjp(forward, backward)


def like(texts: Texts, vectors) -> Texts:
    """The cotangent of texts: integers have none."""
    return Texts(vectors, None, None, None)


def compare(rows: Texts, block: Texts, hard: bool):
    return product(rows.vectors, block.vectors.T), negatives(rows, block, hard)  # b m


def product(a, b):
    # By default a TPU multiplies float32 matrices in bfloat16.
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def walk(visit: abc.Callable, carry, columns: Texts, result, chunk: int, axis):
    """(carry, result) after `visit(carry, block) -> (carry, of the block)` on all columns.

    `result` has a row for each column, to which what the visits return is added. With an axis the
    columns and their result go round all devices, and the result ends where it began.
    """

    def here(carry, columns, result):
        carry, new = in_blocks(visit, carry, columns, chunk)
        return carry, jax.tree.map(jnp.add, result, new)

    if axis is None:
        return here(carry, columns, result)
    size = jax.lax.axis_size(axis)
    turn = [(i, (i + 1) % size) for i in range(size)]

    def hop(state, _):
        carry, columns, result = state
        carry, result = here(carry, columns, result)
        columns, result = jax.lax.ppermute((columns, result), axis, turn)
        return (carry, columns, result), None

    (carry, _, result), _ = jax.lax.scan(hop, (carry, columns, result), None, length=size)
    return carry, result


def in_blocks(visit: abc.Callable, carry, columns: Texts, chunk: int):
    """`visit` on blocks of `chunk` columns, the last filled up with columns that are nobody's."""
    m, chunk = len(columns.documents), min(chunk, len(columns.documents))
    if m == chunk:
        return visit(carry, columns)
    fill = -m % chunk
    padded = jax.tree.map(lambda x: jnp.pad(x, ((0, fill),) + ((0, 0),) * (x.ndim - 1)), columns)
    real = jnp.arange(m + fill, dtype=jnp.int32) < m
    padded = padded._replace(documents=jnp.where(real, padded.documents, batches.NO_PASSAGE))
    blocks = jax.tree.map(lambda x: x.reshape(-1, chunk, *x.shape[1:]), padded)
    carry, new = jax.lax.scan(visit, carry, blocks)
    return carry, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:m], new)


LOSSES = {'gathered': gathered, 'chunked': chunked, 'ring': ring}
