"""From a block of a source to arrays of tokens: the part of `prepare` that runs in many processes.

Hides the tokenizer and its speed: one thread of the library in every process is as fast as all of
its threads in one, and the rest of the work runs beside it. Called by `prepare`.


Groups that are equal, or nearly, among millions: MinHash with banding, on disk.

Hides signatures and the search. A group is near another if its query and its passage both are, by
the Jaccard similarity of their pieces of four characters. Called by `hygiene`.


Which texts are one: equal in some language, or through others.

Hides the search for equal texts in large tables. Called by `writer`.
"""

import pathlib
from collections import abc

import numpy as np
import rensa
import scipy.sparse
from jaxtyping import Int, UInt8, UInt64

PIECE = 4  # characters
HASHES = 64  # of a side
BANDS = 16  # groups that are equal in one of these are compared
PAIRS = 1 << 20  # compared at a time


def signatures(
    texts: abc.Sequence[tuple[str, str]],
) -> tuple[UInt8[np.ndarray, 'n h'], UInt64[np.ndarray, 'b n']]:
    """Of (query, passage): the low bytes of their hashes, and one key for each band.

    One byte of a hash is enough to estimate a similarity (b-bit minwise hashing, Li and Koenig,
    2010, arXiv 0910.3349), since two hashes that differ share it by chance in 1 of 256.
    """
    if not texts:
        return np.zeros((0, 2 * HASHES), np.uint8), np.zeros((BANDS, 0), np.uint64)
    sides = [
        rensa.RMinHash.digests_from_token_sets([pieces(text) for text in side], HASHES, 1)
        for side in zip(*texts, strict=True)
    ]
    hashes = np.array(sides, np.uint64).transpose(1, 0, 2)  # n, side, hash
    keys = np.zeros((BANDS, len(texts)), np.uint64)
    banded = hashes.reshape(len(texts), 2, BANDS, -1).transpose(2, 1, 3, 0)
    for values in banded.reshape(BANDS, -1, len(texts)).transpose(1, 0, 2):
        keys = (keys ^ values) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return hashes.reshape(len(texts), -1).astype(np.uint8), keys


def pieces(text: str) -> list[str]:
    text = ' '.join(text.casefold().split())
    return [text[i : i + PIECE] for i in range(max(1, len(text) - PIECE + 1))]


def exact(hashes: UInt64[np.ndarray, ' n']) -> Int[np.ndarray, ' n']:
    """The first row that each row is equal to, which may be itself."""
    return firsts(equal_rows(hashes), len(hashes))


def near(folder: pathlib.Path, size: int, threshold: float) -> Int[np.ndarray, ' n']:
    """The first row that each row is near to, directly or through others.

    `folder` holds what `signatures` gave of all rows: `progress.near` and `progress.near.<band>`.
    """
    if not size:
        return np.zeros(0, np.int64)
    low = np.memmap(folder / 'progress.near', np.uint8, 'r', shape=(size, 2 * HASHES))
    found = []
    for band in range(BANDS):
        keys = np.fromfile(folder / f'progress.near.{band}', np.uint64)
        pairs = candidates(keys)
        for start in range(0, len(pairs), PAIRS):
            part = pairs[start : start + PAIRS]
            found.append(part[similar(low, part, threshold)])
    return firsts(np.unique(np.concatenate(found), axis=0), size)


def candidates(keys: UInt64[np.ndarray, ' n']) -> Int[np.ndarray, 'p 2']:
    """Each row of a run of equal keys with the one before it and with the first of the run."""
    order = np.argsort(keys, kind='stable')
    same = np.append(False, keys[order][1:] == keys[order][:-1])
    at = np.flatnonzero(same)
    first = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))[at]
    further = first < at - 1
    pairs = np.stack([np.append(at - 1, first[further]), np.append(at, at[further])], 1)
    return order[pairs]


def similar(low, pairs: Int[np.ndarray, 'p 2'], threshold: float) -> np.ndarray:
    """Whether both sides of both rows of a pair are as similar as that."""
    same = low[pairs[:, 0]] == low[pairs[:, 1]]
    shares = same.reshape(len(pairs), 2, HASHES).mean(2)
    return ((shares - 1 / 256) / (1 - 1 / 256) >= threshold).all(1)


def firsts(pairs: Int[np.ndarray, 'p 2'], size: int) -> Int[np.ndarray, ' n']:
    """The smallest row that each is connected to."""
    graph = scipy.sparse.coo_matrix((np.ones(len(pairs), bool), tuple(pairs.T)), (size, size))
    labels = scipy.sparse.csgraph.connected_components(graph, directed=False)[1]
    first = np.full(size, size, np.int64)
    np.minimum.at(first, labels, np.arange(size))
    return first[labels]


def classes(tables: abc.Iterable[UInt64[np.ndarray, ' n']], size: int) -> Int[np.ndarray, ' n']:
    """Labels texts that are equal in some language, as connected components.

    Collections repeat texts (headings, boilerplate), and a repeated text need not have the same
    translation everywhere. Texts of one class must not be negatives of each other in any language.
    Each table has a hash for every text, 0 where the language lacks it.
    """
    edges = np.concatenate([np.zeros((0, 2), np.int32), *map(equal_rows, tables)])
    if not len(edges):
        return np.arange(size, dtype=np.int32)
    graph = scipy.sparse.coo_matrix((np.ones(len(edges), bool), tuple(edges.T)), (size, size))
    labels = scipy.sparse.csgraph.connected_components(graph, directed=False)[1]
    return labels.astype(np.int32)


def equal_rows(hashes: UInt64[np.ndarray, ' n']) -> Int[np.ndarray, 'm 2']:
    """Pairs of neighbours among the rows of equal hash: enough to connect all of them."""
    order = np.argsort(hashes, kind='stable').astype(np.int32)
    ordered = hashes[order]
    same = (ordered[1:] == ordered[:-1]) & (ordered[1:] != 0)
    return np.stack([order[:-1][same], order[1:][same]], 1)
