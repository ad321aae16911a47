"""Exact search with float32 scores: ranks of the relevant documents by counting, and the top k.

Hides devices and blocks: queries and documents are split over the devices of all hosts, and
documents may lie in a file larger than memory. One rule for ties: a document is above another if
its score is greater, or equal and its index smaller. Called by `evaluate`.
"""

import functools
import mmap
import typing
from collections import abc

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from hbt.evaluation import rank_counts
from hbt.utils import sharding

DEVICE_DOCUMENTS = 2**15  # documents of a device at a time
DEVICE_SCORES = 2**21  # of a device at a time: 8 MiB, which stay in a cache
STRIP = 64  # documents of a device come in multiples of this
GROWTH = 4  # queries are grouped by their number of relevant documents: 1, 2-4, 5-16, ...


class SearchResult(typing.NamedTuple):
    """What a search gives, for query i and its j-th relevant document, or its j-th best one."""

    per_language_ranks: Int[
        np.ndarray, 'q r'
    ]  # 1-based rank among the documents of its language; 0: padding
    pooled_ranks: Int[np.ndarray, 'q r']  # among all documents
    scores: Float[np.ndarray, 'q k']  # of the best documents, the best first
    top_k: Int[np.ndarray, 'q k']  # their indices; -1 where fewer than k are not excluded


def search(
    queries: Float[np.ndarray, 'q d'],
    documents: Float[np.ndarray, 'n e'],
    relevant: Int[np.ndarray, 'a r'],
    corpus: Int[np.ndarray, ' m'],
    k: int = 0,
    excluded: Int[np.ndarray, 'b x'] | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> SearchResult:
    """Ranks of the relevant documents and the k best of all, by dot product.

    `documents` may be a memory-mapped `.npy` file: it is read in pieces, which are not kept.
    `relevant` and `excluded` hold document indices, then -1 as padding; `corpus` the language code
    of each document. Documents that are excluded for a query are nowhere in its ranking.
    Several hosts call this together, with equal arguments, and get equal results.
    Raises ValueError for embeddings that are not finite or do not fit each other, for an index
    that is no document, and for k beyond the number of documents.
    """
    mesh = mesh or sharding.make_mesh()
    excluded = np.zeros((len(queries), 0), np.int32) if excluded is None else excluded
    queries = np.asarray(queries, np.float32)
    _check(queries, documents, relevant, excluded, corpus, k)
    layout = _layout(len(documents), mesh)
    groups = list(_groups(relevant))
    inputs = [
        _place(queries[i], relevant[i, :r], corpus, excluded[i], layout, mesh) for i, r in groups
    ]
    states = [_empty(x, k, mesh) for x in inputs]
    if not layout.resident:
        states = _collect(inputs, states, documents, relevant, layout, mesh)
    step = rank_counts.compiled(mesh, layout, collect=layout.resident, count=True)
    states = _stream(step, inputs, states, documents, corpus, layout, mesh)
    return _results(groups, states, relevant, k, mesh)


def _check(queries, documents, relevant, excluded, corpus, k) -> None:
    for name, vectors in (('queries', queries), ('documents', documents)):
        if not len(vectors):
            raise ValueError(f'{name}: expected at least one embedding, got none')
    if queries.shape[1] != documents.shape[1]:
        raise ValueError(
            'queries and documents: expected embeddings of one dimension, '
            f'got {queries.shape[1]} and {documents.shape[1]}'
        )
    n = len(documents)
    for name, rows in (('relevant', relevant), ('excluded', excluded)):
        if len(rows) != len(queries):
            raise ValueError(f'{name}: expected {len(queries)} rows, got {len(rows)}')
        if rows.size and not -1 <= rows.min() <= rows.max() < n:
            raise ValueError(
                f'{name}: expected document indices below {n}, or -1, '
                f'got {rows.min()} to {rows.max()}'
            )
    if len(corpus) != n:
        raise ValueError(f'corpus: expected the languages of {n} documents, got {len(corpus)}')
    if not 0 <= k <= n:
        raise ValueError(f'k: expected 0 to {n} (the documents), got {k}')
    _check_finite('queries', queries, 0, len(queries))


def _check_finite(name: str, vectors: Float[np.ndarray, 'n d'], start: int, count: int) -> None:
    """Where the sum of squares is finite in float32, so is every dot product (Cauchy-Schwarz)."""
    with np.errstate(over='ignore', invalid='ignore'):
        if np.isfinite(np.vdot(vectors, vectors)):
            return
    strange = ~np.isfinite(vectors).all(axis=1)
    if strange.any():
        raise ValueError(
            f'{name}: expected finite embeddings, got NaN or infinity, '
            f'first in row {start + int(strange.argmax())} of {count}'
        )
    raise ValueError(
        f'{name}: expected embeddings whose squares are within float32, '
        f'got values up to {np.abs(vectors).max():.3g}'
    )


def _layout(documents: int, mesh: jax.sharding.Mesh) -> rank_counts.Layout:
    resident = documents <= DEVICE_DOCUMENTS * mesh.size
    part = -(-documents // mesh.size) if resident else DEVICE_DOCUMENTS
    part = -(-part // STRIP) * STRIP
    assert part <= 2**15, 'two counts share 32 bits'
    return rank_counts.Layout(
        resident, part, part * mesh.size, max(1, DEVICE_SCORES // (part * mesh.size))
    )


def _groups(relevant: Int[np.ndarray, 'q r']) -> abc.Iterator[tuple[Int[np.ndarray, ' g'], int]]:
    """Queries with similarly many relevant documents, and the most that one of them has."""
    counts = (relevant >= 0).sum(axis=1)
    if not (relevant[np.arange(relevant.shape[1]) < counts[:, None]] >= 0).all():
        raise ValueError('relevant: expected the document indices of a row before its padding')
    bucket = np.ceil(np.log(np.maximum(counts, 1)) / np.log(GROWTH)).astype(int)
    for value in np.unique(bucket):
        rows = np.flatnonzero(bucket == value)
        yield rows, int(counts[rows].max())


def _place(
    queries, relevant, corpus, excluded, layout: rank_counts.Layout, mesh
) -> rank_counts.Queries:
    """The group on the devices. Padding asks for nothing and excludes nothing."""
    mine = -(-len(queries) // mesh.size)
    pieces = -(-mine // layout.rows)
    size = -(-mine // pieces) * pieces * mesh.size
    languages = np.where(relevant >= 0, corpus[relevant], -2) if relevant.size else relevant

    def put(x, fill, dtype):
        padded = np.full((size, x.shape[1]), fill, dtype)
        padded[: len(x)] = x
        return _split(padded, mesh)

    integers = (put(x, -1, np.int32) for x in (relevant, languages, excluded))
    return rank_counts.Queries(put(queries, 0, np.float32), *integers)


def _split(array: np.ndarray, mesh) -> Array:
    return jax.make_array_from_callback(array.shape, sharding.sharded(mesh), array.__getitem__)


def _empty(queries: rank_counts.Queries, k: int, mesh) -> rank_counts.State:
    rows, width = queries.relevant.shape

    def full(columns, value, dtype):
        return _split(np.full((rows, columns), value, dtype), mesh)

    return rank_counts.State(
        full(width, 0, np.float32),
        full(width, 0, np.int32),
        full(width, 0, np.int32),
        full(k, -np.inf, np.float32),
        full(k, -1, np.int32),
    )


def _collect(
    inputs, states, documents, relevant, layout: rank_counts.Layout, mesh
) -> list[rank_counts.State]:
    """Scores of the relevant documents alone, in blocks of the same shape.

    One shape, so that a document has the same score, bit for bit, as among all others.
    """
    known = np.unique(relevant[relevant >= 0])
    step = rank_counts.compiled(mesh, layout, collect=True, count=False)
    packed = [
        x._replace(relevant=_packed(x.relevant, known, mesh), excluded=x.excluded[:, :0])
        for x in inputs
    ]
    wanted = documents[known]
    return _stream(step, packed, states, wanted, np.zeros(len(known), np.int32), layout, mesh)


def _packed(relevant: Array, known: Int[np.ndarray, ' u'], mesh) -> Array:
    """The same places among the documents `known`."""
    places = np.asarray(_everywhere(mesh)(relevant))
    return _split(np.where(places >= 0, np.searchsorted(known, places), -1).astype(np.int32), mesh)


def _stream(
    step, inputs, states, documents, corpus, layout: rank_counts.Layout, mesh
) -> list[rank_counts.State]:
    """Passes the documents through `step`; the next ones are read while it computes."""
    n, dim = documents.shape
    place = sharding.sharded(mesh)
    for start in range(0, n, layout.block):

        def read(index, start=start):
            rows = index[0]
            first, last = start + (rows.start or 0), start + (rows.stop or layout.block)
            real = _rows(documents, first, min(last, n))
            _check_finite('documents', real, first, n)
            padding = ((0, last - first - len(real)), (0, 0))  # NaN is above nothing
            return np.pad(real, padding, constant_values=np.nan) if padding[0][1] else real

        block = jax.make_array_from_callback((layout.block, dim), place, read)
        codes = np.full(layout.block, -1, np.int32)
        codes[: min(layout.block, n - start)] = corpus[start : start + layout.block]
        codes = _split(codes, mesh)
        jax.block_until_ready(states)
        first = np.int32(start)
        states = [step(s, x, block, codes, first) for s, x in zip(states, inputs, strict=True)]
    return states


def _rows(documents: Float[np.ndarray, 'n d'], start: int, stop: int) -> Float[np.ndarray, 'm d']:
    """Rows as float32. Of a memory-mapped file through a map of their own, which is closed."""
    stop = max(start, stop)
    if isinstance(documents, np.memmap) and isinstance(documents.base, mmap.mmap):
        if documents.flags.c_contiguous and stop > start:
            offset = documents.offset + start * documents.strides[0]
            shape = (stop - start, documents.shape[1])
            return np.array(
                np.memmap(documents.filename, documents.dtype, 'r', offset, shape), np.float32
            )
    return np.asarray(documents[start:stop], np.float32)


def _results(groups, states, relevant, k: int, mesh) -> SearchResult:
    count = len(relevant)
    ranks = (np.zeros(relevant.shape, np.int32) for _ in range(2))
    found = SearchResult(*ranks, np.zeros((count, k), np.float32), np.zeros((count, k), np.int32))
    for (rows, width), state in zip(groups, states, strict=True):
        state = rank_counts.State(*(np.asarray(x)[: len(rows)] for x in _everywhere(mesh)(state)))
        present = relevant[rows, :width] >= 0
        found.per_language_ranks[rows, :width] = np.where(present, 1 + state.own, 0)
        found.pooled_ranks[rows, :width] = np.where(present, 1 + state.pooled, 0)
        found.scores[rows] = state.scores
        found.top_k[rows] = np.where(np.isneginf(state.scores), -1, state.top)
    return found


@functools.cache
def _everywhere(mesh):
    return jax.jit(lambda x: x, out_shardings=sharding.replicated(mesh))
