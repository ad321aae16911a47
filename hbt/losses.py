"""InfoNCE with in-batch and hard negatives, masked by identity.

Hides which documents are negatives of which queries. Per-device functions: with an axis name, the
documents of all devices are gathered. Called by `train`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

ABSENT = -2  # document id of a hard negative that a row does not have


def infonce(
    queries: Float[Array, 'b d'],
    documents: Float[Array, 'b n d'],
    query_ids: Int[Array, ' b'],
    document_ids: Int[Array, 'b n'],
    temperature: float,
    axis: str | None = None,
) -> tuple[Float[Array, ''], dict[str, Float[Array, '']]]:
    """Mean over this device's rows of -log softmax of the positive (paper, equation 1).

    Document 0 of a row is its positive. The other documents of all rows are its negatives, on all
    devices of `axis`, but for those that `negatives` rules out. In float32 at least. Returns the
    loss, and scalars to log: accuracy (the positive is above all negatives) and margin (positive
    minus mean negative cosine).
    """
    kind = jnp.float64 if queries.dtype == jnp.float64 else jnp.float32
    queries, documents = queries.astype(kind), documents.astype(kind)
    b, n, d = documents.shape
    row = jnp.arange(b, dtype=jnp.int32)
    everyone = documents.reshape(b * n, d), document_ids.reshape(-1), jnp.repeat(query_ids, n)
    if axis is not None:
        everyone = jax.lax.all_gather(everyone, axis, tiled=True)
        row = row + jax.lax.axis_index(axis) * b
    columns, column_ids, column_queries = everyone
    is_positive = jnp.arange(columns.shape[0], dtype=jnp.int32) % n == 0
    cosine = jnp.matmul(queries, columns.T, precision=jax.lax.Precision.HIGHEST)  # b m
    own = jnp.arange(columns.shape[0], dtype=jnp.int32)[None] == (row * n)[:, None]
    mask = own | negatives(query_ids, document_ids[:, 0], column_ids, column_queries, is_positive)
    logits = jnp.where(mask, cosine / temperature, -jnp.inf)
    positive = jnp.where(own, cosine, 0).sum(1)  # b
    loss = (jax.nn.logsumexp(logits, axis=1) - positive / temperature).mean()
    others = mask & ~own
    hardest = jnp.where(others, cosine, -jnp.inf).max(1)
    mean_negative = jnp.where(others, cosine, 0).sum(1) / jnp.maximum(others.sum(1, dtype=kind), 1)
    return loss, {
        'accuracy': (positive > hardest).mean(dtype=kind),
        'margin': (positive - mean_negative).mean(),
    }


def negatives(
    query_ids: Int[Array, ' b'],
    positive_ids: Int[Array, ' b'],
    column_ids: Int[Array, ' m'],
    column_queries: Int[Array, ' m'],
    is_positive: Bool[Array, ' m'],
) -> Bool[Array, 'b m']:
    """Which documents are negatives of which queries.

    Not a copy or a translation of the query's own document, not the positive of a copy or a
    translation of the query, and not an absent one. Embeddings could not tell: dropout makes two
    copies differ.
    """
    same_document = column_ids[None] == positive_ids[:, None]
    same_query = is_positive[None] & (column_queries[None] == query_ids[:, None])
    return ~same_document & ~same_query & (column_ids != ABSENT)[None]
