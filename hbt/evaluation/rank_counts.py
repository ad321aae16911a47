"""What the devices do with one block of documents: score it, count, and keep the best.

Hides the collectives and the order of summation. Queries, and what is known of them, are divided
over the devices, as documents are; those of a device are shown to the others in small blocks.
Called by `search`.
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
    """How the work is cut."""

    resident: bool  # all documents are scored in one piece
    part: int  # documents of a device in a piece
    block: int  # documents of all devices in a piece
    rows: int  # queries of a device whose scores are held at a time


class Queries(typing.NamedTuple):
    """A group of queries on the devices, padded with queries of nothing."""

    embeddings: Array  # q d
    relevant: Array  # q r; where a relevant document comes in the stream, -1: padding
    languages: Array  # q r; of the relevant documents
    excluded: Array  # q x


class State(typing.NamedTuple):
    """What is known of a group of queries after some of the documents."""

    targets: Array  # q r; scores of the relevant documents
    own: Array  # q r; documents above them, of their language
    pooled: Array  # q r; documents above them
    scores: Array  # q k
    top: Array  # q k


@functools.cache
def compiled(mesh, layout: Layout, collect: bool, count: bool) -> abc.Callable:
    """`step(state, queries, documents, codes, start) -> state`, mapped over the devices."""

    def step(state, queries, documents, codes, start):
        first = start + jax.lax.axis_index(sharding.AXIS) * layout.part

        def some(rows):
            return _block(*rows, documents, codes, first, collect, count)

        def cut(x):
            pieces = -(-len(x) // layout.rows)
            return x.reshape(pieces, len(x) // pieces, x.shape[1])

        done = jax.lax.map(some, jax.tree.map(cut, (state, queries)))
        return jax.tree.map(lambda x, like: x.reshape(like.shape), done, state)

    split = P(sharding.AXIS)
    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(split, split, split, split, P()), out_specs=split
    )
    return jax.jit(mapped, donate_argnums=(0,))


def _block(state: State, queries: Queries, documents, codes, first, collect, count) -> State:
    """Some of a device's queries, with those of the others, against its documents."""
    gather = functools.partial(jax.lax.all_gather, axis_name=sharding.AXIS, tiled=True)
    add = functools.partial(jax.lax.psum_scatter, axis_name=sharding.AXIS, tiled=True)
    whole = jax.tree.map(gather, queries)
    # By default a TPU multiplies float32 matrices in bfloat16, which makes ties.
    scores = jnp.matmul(whole.embeddings, documents.T, precision=jax.lax.Precision.HIGHEST)
    local = whole.relevant - first
    if collect:
        inside = (whole.relevant >= 0) & (local >= 0) & (local < len(documents))
        here = jnp.take_along_axis(scores, jnp.clip(local, 0, len(documents) - 1), axis=1)
        state = state._replace(targets=state.targets + add(jnp.where(inside, here, 0.0)))
    if not count:
        return state
    scores = _exclude(scores, whole.excluded, first)
    # One query at a time: its scores stay in the cache while r documents are counted.
    own, pooled = jax.lax.map(
        lambda row: _above(*row, codes), (scores, gather(state.targets), local, whole.languages)
    )
    state = state._replace(own=state.own + add(own), pooled=state.pooled + add(pooled))
    k = state.top.shape[1]
    return _merge(state, *_top(scores, k), first, alone=collect) if k else state


def _exclude(scores: Float[Array, 'b n'], excluded: Int[Array, 'b x'], first) -> Array:
    if not excluded.shape[1]:
        return scores
    n = scores.shape[1]
    local = excluded - first
    local = jnp.where((excluded >= 0) & (local >= 0) & (local < n), local, n)  # n is dropped
    rows = jnp.arange(len(scores))[:, None]
    return scores.at[rows, local].set(-jnp.inf, mode='drop')


def _above(
    scores: Float[Array, ' n'],
    targets: Float[Array, ' r'],
    local: Int[Array, ' r'],
    languages: Int[Array, ' r'],
    codes: Int[Array, ' n'],
) -> tuple[Int[Array, ' r'], Int[Array, ' r']]:
    """How many documents of one query are above each relevant one: (of its language, of all)."""
    index = jnp.arange(len(scores), dtype=local.dtype)
    earlier = index[None] < local[:, None]  # r n
    tied = scores[None] == targets[:, None]
    above = (scores[None] > targets[:, None]) | (tied & earlier)
    # Both counts in one sum, which takes half the time of two.
    ones = jnp.where(codes[None] == languages[:, None], 2**16 + 1, 1)
    both = jnp.where(above, ones, 0).sum(axis=1)
    return both >> 16, both & (2**16 - 1)


def _top(scores: Float[Array, 'b n'], k: int) -> tuple[Float[Array, 'b m'], Int[Array, 'b m']]:
    """The best documents here, at most k: of equal scores, those of smaller index.

    They are in the k strips with the greatest maxima, so only these are looked into.
    """
    b, n = scores.shape
    strip = next((s for s in (32, 16) if s * s * k <= n), 1)
    scores = jnp.where(scores == 0, 0.0, scores)  # `lax.top_k` puts -0.0 below 0.0
    scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
    if strip == 1:
        return tuple(jax.lax.top_k(scores, min(k, n)))
    strips = scores.reshape(b, n // strip, strip)
    chosen = jnp.sort(jax.lax.top_k(strips.max(axis=2), k)[1], axis=1)  # b k
    inside = jnp.take_along_axis(strips, chosen[:, :, None], axis=1).reshape(b, k * strip)
    best, place = jax.lax.top_k(inside, k)
    return best, jnp.take_along_axis(chosen, place // strip, axis=1) * strip + place % strip


def _merge(state: State, scores, places, first, alone: bool) -> State:
    """Those of all devices, and those so far: in the order of the documents, which settles ties.

    `alone`: there are none so far.
    """
    k = state.top.shape[1]
    spread = functools.partial(
        jax.lax.all_to_all, axis_name=sharding.AXIS, split_axis=0, concat_axis=1, tiled=True
    )
    scores, top = spread(scores), spread(places + first)
    if not alone:
        scores = jnp.concatenate([state.scores, scores], axis=1)
        top = jnp.concatenate([state.top, top], axis=1)
    if scores.shape[1] == k:
        return state._replace(scores=scores, top=top)
    best, place = jax.lax.top_k(scores, k)
    return state._replace(scores=best, top=jnp.take_along_axis(top, place, axis=1))
