"""The device computation of a search: score one block of documents, count, and keep the best.

Queries, their state and documents are divided over the devices, which gather few queries at a time.
"""

import functools
import typing
from collections import abc

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from hbt.utils import sharding


class Layout(typing.NamedTuple):
    """How the work is divided."""

    mesh: jax.sharding.Mesh
    resident: bool  # all documents are scored in one block
    block: int  # documents of all devices in a block
    rows: int  # queries of a device that are scored at a time


class Queries(typing.NamedTuple):
    """Queries on the devices, padded with queries without relevant documents."""

    embeddings: Float[Array, 'q d']
    relevant: Int[Array, 'q r']  # positions in the stream of documents; -1: padding
    relevant_languages: Int[Array, 'q r']
    excluded: Int[Array, 'q x']


class State(typing.NamedTuple):
    """Of every query, after some of the documents."""

    relevant_scores: Float[Array, 'q r']
    per_language: Int[Array, 'q r']  # documents above each relevant one, of its language
    pooled: Int[Array, 'q r']  # documents above each relevant one
    scores: Float[Array, 'q k']  # of the best documents
    top_k: Int[Array, 'q k']  # the best documents


@functools.cache
def make_step(layout: Layout, collect: bool, count: bool) -> abc.Callable:
    """Compiles `step(state, queries, documents, document_languages, start) -> state`.

    `collect` fills in the scores of relevant documents; `count`, after it, the counts and the best.
    """

    def step(state, queries, documents, document_languages, start):
        first = start + jax.lax.axis_index(sharding.AXIS) * len(documents)

        def score(rows):
            return _score_block(*rows, documents, document_languages, first, collect, count)

        def split_rows(x):
            pieces = -(-len(x) // layout.rows)
            return x.reshape(pieces, len(x) // pieces, x.shape[1])

        updated = jax.lax.map(score, jax.tree.map(split_rows, (state, queries)))
        return jax.tree.map(lambda x, like: x.reshape(like.shape), updated, state)

    split = P(sharding.AXIS)
    specs = split, split, split, split, P()
    mapped = jax.shard_map(step, mesh=layout.mesh, in_specs=specs, out_specs=split)
    return jax.jit(mapped, donate_argnums=(0,))


def _score_block(state, queries, documents, document_languages, first, collect, count) -> State:
    """Some of a device's queries, with those of the others, against its documents."""
    gather = functools.partial(jax.lax.all_gather, axis_name=sharding.AXIS, tiled=True)
    scatter = functools.partial(jax.lax.psum_scatter, axis_name=sharding.AXIS, tiled=True)
    gathered = jax.tree.map(gather, queries)
    # By default a TPU multiplies float32 matrices in bfloat16, which makes ties.
    scores = jnp.matmul(gathered.embeddings, documents.T, precision=jax.lax.Precision.HIGHEST)
    n, local = len(documents), gathered.relevant - first
    if collect:
        inside = (local >= 0) & (local < n)
        values = jnp.take_along_axis(scores, jnp.clip(local, 0, n - 1), axis=1)
        relevant_scores = state.relevant_scores + scatter(jnp.where(inside, values, 0.0))
        state = state._replace(relevant_scores=relevant_scores)
    if not count:
        return state
    if queries.excluded.shape[1]:
        excluded = gathered.excluded - first
        excluded = jnp.where((excluded >= 0) & (excluded < n), excluded, n)  # n is dropped
        scores = scores.at[jnp.arange(len(scores))[:, None], excluded].set(-jnp.inf, mode='drop')
    # One query at a time: its scores stay in the cache while r documents are counted.
    per_language, pooled = jax.lax.map(
        lambda row: _count_above(*row, document_languages),
        (scores, gather(state.relevant_scores), local, gathered.relevant_languages),
    )
    per_language = state.per_language + scatter(per_language)
    state = state._replace(per_language=per_language, pooled=state.pooled + scatter(pooled))
    k = state.top_k.shape[1]
    return _merge_top_k(state, *select_top_k(scores, k), first, is_first=collect) if k else state


def _count_above(scores, relevant_scores, relevant, relevant_languages, document_languages):
    """How many of a query's n documents are above each of r: (of its language [r], of all [r])."""
    index = jnp.arange(len(scores), dtype=relevant.dtype)
    earlier = index[None] < relevant[:, None]  # r n
    tied = scores[None] == relevant_scores[:, None]
    above = (scores[None] > relevant_scores[:, None]) | (tied & earlier)
    # Both counts in one sum, which takes half the time of two.
    ones = jnp.where(document_languages[None] == relevant_languages[:, None], 2**16 + 1, 1)
    both = jnp.where(above, ones, 0).sum(axis=1)
    return both >> 16, both & (2**16 - 1)


def select_top_k(
    scores: Float[Array, 'b n'], k: int
) -> tuple[Float[Array, 'b m'], Int[Array, 'b m']]:
    """The best documents here, at most k: of equal scores, those of smaller index; NaN is last."""
    b, n = scores.shape
    strip = next((s for s in (32, 16) if s * s * k <= n), 1)
    scores = jnp.where(scores == 0, 0.0, scores)  # `lax.top_k` puts -0.0 below 0.0
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
    if strip == 1:
        return tuple(jax.lax.top_k(scores, min(k, n)))
    # They are in the k strips with the greatest maxima, so that only these are sorted.
    strips = scores.reshape(b, n // strip, strip)
    chosen = jnp.sort(jax.lax.top_k(strips.max(axis=2), k)[1], axis=1)  # b k
    inside = jnp.take_along_axis(strips, chosen[:, :, None], axis=1).reshape(b, k * strip)
    best, index = jax.lax.top_k(inside, k)
    return best, jnp.take_along_axis(chosen, index // strip, axis=1) * strip + index % strip


def _merge_top_k(state: State, scores, indices, first, is_first: bool) -> State:
    """Merges the best of all devices, and those so far unless this block is the first."""
    # They are concatenated in the order of the documents, which settles ties.
    k = state.top_k.shape[1]
    exchange = functools.partial(
        jax.lax.all_to_all, axis_name=sharding.AXIS, split_axis=0, concat_axis=1, tiled=True
    )
    scores, top_k = exchange(scores), exchange(indices + first)
    if not is_first:
        scores = jnp.concatenate([state.scores, scores], axis=1)
        top_k = jnp.concatenate([state.top_k, top_k], axis=1)
    if scores.shape[1] == k:
        return state._replace(scores=scores, top_k=top_k)
    best, index = jax.lax.top_k(scores, k)
    return state._replace(scores=best, top_k=jnp.take_along_axis(top_k, index, axis=1))
