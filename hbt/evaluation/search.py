"""Exact search with float32 scores: ranks of the relevant documents by counting, and the top k.

Of equal scores, the smaller index is above, as in trec_eval: documents come by id, descending.
"""

import mmap
import pathlib
import typing
from collections import abc

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Float, Int

from hbt.evaluation import rank_counts
from hbt.utils import sharding

DEVICE_DOCUMENTS = 2**15  # documents of a device at a time
DEVICE_SCORES = 2**21  # scores of a device at a time: 8 MiB, which stay in a cache
STRIP = 64  # documents of a device come in multiples of this
GROWTH = 4  # queries are batched by their number of relevant documents: 1, 2-4, 5-16, ...


class SearchResult(typing.NamedTuple):
    """Of query i: the rank of its j-th relevant document, and its j-th best document."""

    per_language_ranks: Int[np.ndarray, 'q r']  # 1-based, among its language's documents; 0: none
    pooled_ranks: Int[np.ndarray, 'q r']  # among all documents
    scores: Float[np.ndarray, 'q k']  # of the best documents, the best first
    top_k: Int[np.ndarray, 'q k']  # their indices; -1 where fewer than k are not excluded


def search(
    queries: Float[np.ndarray, 'q d'],
    documents: Float[np.ndarray, 'n e'],
    relevant: Int[np.ndarray, 'a r'],
    document_languages: Int[np.ndarray, ' m'],
    k: int = 0,
    excluded: Int[np.ndarray, 'b x'] | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> SearchResult:
    """Ranks of the relevant documents and the k best of all, by dot product.

    The work is divided over the devices of all hosts, which call this together, with equal
    arguments, and get equal results.

    Args:
      queries: embeddings.
      documents: embeddings; a memory-mapped `.npy` file is read in blocks, which are not kept.
      relevant: indices of the relevant documents of each query, then -1.
      document_languages: language code of each document.
      k: how many of the best documents are returned.
      excluded: indices of the documents that are left out of a query's ranking, then -1.
      mesh: devices; None: all.

    Raises:
      ValueError: for embeddings that are not finite, and for inputs that do not fit each other.
    """
    mesh = mesh or sharding.make_mesh()
    excluded = np.zeros((len(queries), 0), np.int32) if excluded is None else excluded
    queries = np.asarray(queries, np.float32)
    _check_inputs(queries, documents, relevant, excluded, document_languages, k)
    layout = make_layout(len(documents), mesh)
    batches = list(_batch_queries(relevant))
    inputs = [
        _put_queries(queries[i], relevant[i, :r], document_languages, excluded[i], layout)
        for i, r in batches
    ]
    states = [_empty_state(x, k, mesh) for x in inputs]
    if not layout.resident:
        states = _collect_scores(inputs, states, documents, relevant, layout)
    step = rank_counts.make_step(layout, collect=layout.resident, count=True)
    states = _stream(step, inputs, states, documents, document_languages, layout)
    return _gather_results(batches, states, relevant, k)


def _check_inputs(queries, documents, relevant, excluded, document_languages, k) -> None:
    (q, d), (n, e) = queries.shape, documents.shape
    for name, count in (('queries', q), ('documents', n)):
        if not count:
            raise ValueError(f'{name}: expected at least one embedding, got none')
    if d != e:
        raise ValueError(
            f'queries and documents: expected embeddings of one dimension, got {d} and {e}'
        )
    for name, rows in (('relevant', relevant), ('excluded', excluded)):
        if len(rows) != q:
            raise ValueError(f'{name}: expected {q} rows, got {len(rows)}')
        check_indices(name, rows, n)
    if len(document_languages) != n:
        raise ValueError(f'document_languages: expected {n}, got {len(document_languages)}')
    if not 0 <= k <= n:
        raise ValueError(f'k: expected 0 to {n} (the documents), got {k}')
    _check_finite('queries', queries, 0, q)


def check_indices(where: str | pathlib.Path, indices: Int[np.ndarray, 'q r'], count: int) -> None:
    """ValueError unless they are of `count` documents, or -1."""
    if indices.size and not -1 <= indices.min() <= indices.max() < count:
        raise ValueError(
            f'{where}: expected document indices below {count}, or -1, '
            f'got {indices.min()} to {indices.max()}'
        )


def _check_finite(name: str, vectors: Float[np.ndarray, 'n d'], start: int, count: int) -> None:
    """If the sum of squares is finite in float32, so is every dot product (Cauchy-Schwarz)."""
    with np.errstate(over='ignore', invalid='ignore'):
        if np.isfinite(np.vdot(vectors, vectors)):
            return
    invalid = ~np.isfinite(vectors).all(axis=1)
    if invalid.any():
        raise ValueError(
            f'{name}: expected finite embeddings, got NaN or infinity, '
            f'first in row {start + int(invalid.argmax())} of {count}'
        )
    raise ValueError(
        f'{name}: expected embeddings whose squares are within float32, '
        f'got values up to {np.abs(vectors).max():.3g}'
    )


def make_layout(num_documents: int, mesh: jax.sharding.Mesh) -> rank_counts.Layout:
    """How documents are divided over devices, and queries over time."""
    resident = num_documents <= DEVICE_DOCUMENTS * mesh.size
    part = -(-num_documents // mesh.size) if resident else DEVICE_DOCUMENTS
    part = -(-part // STRIP) * STRIP
    assert part <= 2**15, 'two counts share 32 bits'
    block = part * mesh.size
    return rank_counts.Layout(mesh, resident, block, max(1, DEVICE_SCORES // block))


def _batch_queries(relevant: Int[np.ndarray, 'q r']) -> abc.Iterator[tuple[np.ndarray, int]]:
    """Yields queries with similarly many relevant documents, and the most that one of them has."""
    counts = (relevant >= 0).sum(axis=1)
    wrong = ((np.arange(relevant.shape[1]) < counts[:, None]) & (relevant < 0)).any(axis=1)
    if wrong.any():
        expected, row = 'the document indices of a row before its padding', wrong.argmax()
        raise ValueError(f'relevant: expected {expected}, got {relevant[row]} in row {row}')
    bucket = np.ceil(np.log(np.maximum(counts, 1)) / np.log(GROWTH)).astype(int)
    for value in np.unique(bucket):
        rows = np.flatnonzero(bucket == value)
        yield rows, int(counts[rows].max())


def _put_queries(queries, relevant, document_languages, excluded, layout) -> rank_counts.Queries:
    """A batch on the devices; padding has nothing relevant and nothing excluded."""
    device_rows = -(-len(queries) // layout.mesh.size)
    pieces = -(-device_rows // layout.rows)
    size = -(-device_rows // pieces) * pieces * layout.mesh.size
    languages = np.where(relevant >= 0, document_languages[relevant], -2)

    def put(x, fill, dtype):
        padding = (0, size - len(x)), (0, 0)
        return _shard(np.pad(x.astype(dtype), padding, constant_values=fill), layout.mesh)

    integers = (put(x, -1, np.int32) for x in (relevant, languages, excluded))
    return rank_counts.Queries(put(queries, 0, np.float32), *integers)


def _shard(array: np.ndarray, mesh) -> Array:
    return jax.make_array_from_callback(array.shape, sharding.sharded(mesh), array.__getitem__)


def _empty_state(queries: rank_counts.Queries, k: int, mesh) -> rank_counts.State:
    shape = queries.relevant.shape
    counts = (np.zeros(shape, dtype) for dtype in (np.float32, np.int32, np.int32))
    best = np.full((shape[0], k), -np.inf, np.float32), np.full((shape[0], k), -1, np.int32)
    return rank_counts.State(*(_shard(x, mesh) for x in (*counts, *best)))


def _collect_scores(inputs, states, documents, relevant, layout) -> list[rank_counts.State]:
    """Scores the relevant documents alone; blocks of the same shape give the same bits."""
    indices = np.unique(relevant[relevant >= 0])
    step = rank_counts.make_step(layout, collect=True, count=False)

    def reindex(relevant: Array) -> Array:
        """The same documents as positions in `indices`."""
        rows = multihost_utils.process_allgather(relevant, tiled=True)
        rows = np.where(rows >= 0, np.searchsorted(indices, rows), -1).astype(np.int32)
        return _shard(rows, layout.mesh)

    subset = [x._replace(relevant=reindex(x.relevant), excluded=x.excluded[:, :0]) for x in inputs]
    languages = np.zeros(len(indices), np.int32)
    return _stream(step, subset, states, documents[indices], languages, layout)


def _stream(step, inputs, states, documents, document_languages, layout) -> list[rank_counts.State]:
    """Passes the documents through `step`; the next ones are read while it computes."""
    n, dim = documents.shape
    for start in range(0, n, layout.block):

        def read(index, start=start):
            rows = index[0]
            first, last = start + (rows.start or 0), start + (rows.stop or layout.block)
            vectors = _read_rows(documents, first, min(last, n))
            _check_finite('documents', vectors, first, n)
            padding = ((0, last - first - len(vectors)), (0, 0))  # NaN is above nothing
            return np.pad(vectors, padding, constant_values=np.nan) if padding[0][1] else vectors

        split = sharding.sharded(layout.mesh)
        block = jax.make_array_from_callback((layout.block, dim), split, read)
        codes = document_languages[start : start + layout.block].astype(np.int32)
        codes = np.pad(codes, (0, layout.block - len(codes)), constant_values=-1)
        languages = _shard(codes, layout.mesh)
        jax.block_until_ready(states)
        first = np.int32(start)
        states = [step(s, x, block, languages, first) for s, x in zip(states, inputs, strict=True)]
    return states


def _read_rows(documents: Float[np.ndarray, 'n d'], start: int, stop: int) -> np.ndarray:
    """Rows as float32; of a memory-mapped file through a map of their own, which is closed."""
    mapped = isinstance(documents, np.memmap) and isinstance(documents.base, mmap.mmap)
    if not mapped or not documents.flags.c_contiguous or stop <= start:
        return np.asarray(documents[start : max(start, stop)], np.float32)
    offset = documents.offset + start * documents.strides[0]
    shape = (stop - start, documents.shape[1])
    return np.array(np.memmap(documents.filename, documents.dtype, 'r', offset, shape), np.float32)


def _gather_results(batches, states, relevant, k: int) -> SearchResult:
    """The results of all batches, in the order of the queries, on every host."""
    shape = len(relevant), k
    ranks = (np.zeros(relevant.shape, np.int32) for _ in range(2))
    result = SearchResult(*ranks, np.zeros(shape, np.float32), np.zeros(shape, np.int32))
    for (rows, width), state in zip(batches, states, strict=True):
        state = multihost_utils.process_allgather(state, tiled=True)
        state = rank_counts.State(*(x[: len(rows)] for x in state))
        present = relevant[rows, :width] >= 0
        result.per_language_ranks[rows, :width] = np.where(present, 1 + state.per_language, 0)
        result.pooled_ranks[rows, :width] = np.where(present, 1 + state.pooled, 0)
        result.scores[rows] = state.scores
        result.top_k[rows] = np.where(np.isneginf(state.scores), -1, state.top_k)
    return result
