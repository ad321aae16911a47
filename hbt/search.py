"""Exact search with float32 scores: ranks of the relevant documents, and the top k.

Hides the blocks of queries, the counting that needs no sort, and the one rule for ties: a
document is above another if its score is greater, or equal and its index smaller.
Called by `hbt.evaluate`.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

SCORES_HELD = 2**26  # in one block: 256 MiB
QUERIES_HELD = 1024  # in one block: more are no faster


def ranks(
    queries: Float[Array | np.ndarray, 'q d'],
    documents: Float[Array | np.ndarray, 'n e'],
    relevant: Int[Array | np.ndarray, 'q r'],
    corpus: Int[Array | np.ndarray, ' n'],
) -> tuple[Int[Array, 'q r'], Int[Array, 'q r']]:
    """1-based ranks of the relevant documents, by dot product: (own, pooled).

    `relevant` holds document indices, -1 for padding (rank 0); `corpus` the language code of
    each document. `own` counts the documents of the relevant one's language, `pooled` all.
    Raises ValueError if e is not d, if an index is no document, if anything is not finite.
    """
    queries, documents = _checked(queries, documents)
    if relevant.size and not -1 <= int(relevant.min()) <= int(relevant.max()) < len(documents):
        raise ValueError(
            f'relevant: expected document indices below {len(documents)}, or -1, '
            f'got {relevant.min()} to {relevant.max()}'
        )
    integers = jnp.asarray(relevant, jnp.int32), jnp.asarray(corpus, jnp.int32)
    own, pooled, overflows = _ranks(queries, documents, *integers)
    _check_scores(overflows)
    return own, pooled


def top_k(
    queries: Float[Array | np.ndarray, 'q d'], documents: Float[Array | np.ndarray, 'n e'], k: int
) -> tuple[Float[Array, 'q k'], Int[Array, 'q k']]:
    """The k best documents of each query, the best first: (scores, indices).

    Raises ValueError if e is not d, if there are fewer than k documents, if anything is not
    finite.
    """
    queries, documents = _checked(queries, documents)
    if not 0 < k <= len(documents):
        raise ValueError(f'k: expected 1 to {len(documents)} (the documents), got {k}')
    scores, indices, overflows = _top_k(queries, documents, k)
    _check_scores(overflows)
    return scores, indices


def _checked(
    queries: Float[Array | np.ndarray, 'q d'], documents: Float[Array | np.ndarray, 'n e']
) -> tuple[Float[Array, 'q d'], Float[Array, 'n d']]:
    """Both in float32. Annotated e and compared here, so that a user gets the reason."""
    queries, documents = (jnp.asarray(x, jnp.float32) for x in (queries, documents))
    for name, vectors in (('queries', queries), ('documents', documents)):
        if not len(vectors):
            raise ValueError(f'{name}: expected at least one embedding, got none')
        strange = int((~jnp.isfinite(vectors)).any(axis=1).sum())
        if strange:
            raise ValueError(
                f'{name}: expected finite embeddings, got NaN or infinity '
                f'in {strange} of {len(vectors)}'
            )
    if queries.shape[1] != documents.shape[1]:
        raise ValueError(
            'queries and documents: expected embeddings of one dimension, '
            f'got {queries.shape[1]} and {documents.shape[1]}'
        )
    return queries, documents


def _check_scores(overflows: Int[Array, ' q']) -> None:
    count = int(np.asarray(overflows).sum(dtype=np.int64))
    if count:
        raise ValueError(f'scores: expected finite dot products, got {count} beyond float32')


@jax.jit
def _ranks(queries: Array, documents: Array, relevant: Array, corpus: Array) -> tuple[Array, ...]:
    def block(rows: tuple[Array, ...]) -> tuple[Array, ...]:
        queries, relevant = rows
        scores = _scores(queries, documents)  # b n
        targets = jnp.take_along_axis(scores, relevant, axis=1)  # b r
        # One query at a time: its scores stay in the cache while r documents are counted.
        counts = jax.lax.map(
            lambda row: _above(*row, corpus), (scores, targets, relevant, corpus[relevant])
        )
        return *counts, _overflows(scores)

    own, pooled, overflows = _in_blocks(block, (queries, relevant), len(documents))
    present = relevant >= 0
    return jnp.where(present, 1 + own, 0), jnp.where(present, 1 + pooled, 0), overflows


def _above(
    scores: Float[Array, ' n'],
    targets: Float[Array, ' r'],
    relevant: Int[Array, ' r'],
    language: Int[Array, ' r'],
    corpus: Int[Array, ' n'],
) -> tuple[Int[Array, ' r'], Int[Array, ' r']]:
    """How many documents of one query are above each relevant one: (of its language, of all)."""
    index = jnp.arange(len(scores), dtype=relevant.dtype)
    earlier = index[None] < relevant[:, None]  # r n
    tied = scores[None] == targets[:, None]
    above = (scores[None] > targets[:, None]) | (tied & earlier)
    own = above & (corpus[None] == language[:, None])
    return own.sum(axis=1), above.sum(axis=1)


@functools.partial(jax.jit, static_argnames='k')
def _top_k(queries: Array, documents: Array, k: int) -> tuple[Array, ...]:
    def block(rows: tuple[Array]) -> tuple[Array, ...]:
        scores = _scores(*rows, documents)
        scores = jnp.where(scores == 0, 0.0, scores)  # `lax.top_k` puts -0.0 below 0.0
        return *jax.lax.top_k(scores, k), _overflows(scores)

    return _in_blocks(block, (queries,), len(documents))


def _scores(queries: Float[Array, 'b d'], documents: Float[Array, 'n d']) -> Float[Array, 'b n']:
    # By default a TPU multiplies float32 matrices in bfloat16, which makes ties.
    return jnp.matmul(queries, documents.T, precision=jax.lax.Precision.HIGHEST)


def _overflows(scores: Float[Array, 'b n']) -> Int[Array, ' b']:
    return (~jnp.isfinite(scores)).sum(axis=1)


def _in_blocks(
    function: Callable[[tuple[Array, ...]], tuple[Array, ...]],
    rows: tuple[Array, ...],
    documents: int,
) -> tuple[Array, ...]:
    """Maps blocks of rows, the last padded with zeros, so that one block's scores fit in memory."""
    count = len(rows[0])
    size = max(1, min(count, QUERIES_HELD, SCORES_HELD // documents))
    padded = [jnp.pad(x, ((0, -count % size), (0, 0))) for x in rows]
    blocks = tuple(x.reshape(-1, size, x.shape[1]) for x in padded)  # blocks b ...
    results = jax.lax.map(function, blocks)
    return tuple(x.reshape(-1, *x.shape[2:])[:count] for x in results)
