"""Duplicates among millions of texts and groups; near ones by MinHash with banding, on disk."""

import pathlib
from collections import abc

import numpy as np
import rensa
import scipy.sparse
from jaxtyping import Int, Shaped, UInt8, UInt64

_SHINGLE = 4  # characters
HASHES = 64  # of a side
BANDS = 16  # groups that are equal in one of these are compared
_PAIRS = 1 << 20  # compared at a time


def signatures(
    texts: abc.Sequence[abc.Sequence[str]],
) -> tuple[UInt8[np.ndarray, 'n h'], UInt64[np.ndarray, 'b n']]:
    """MinHash signatures of (query, passage): low bytes of all hashes, and a key for each band.

    One byte of a hash is enough to estimate a similarity (b-bit minwise hashing, Li and Koenig,
    2010, arXiv 0910.3349): two hashes that differ share it by chance in 1 of 256.
    """
    if not texts:
        return np.zeros((0, 2 * HASHES), np.uint8), np.zeros((BANDS, 0), np.uint64)
    sides = [
        rensa.RMinHash.digests_from_token_sets([shingles(text) for text in side], HASHES, 1)
        for side in zip(*texts, strict=True)
    ]
    hashes = np.array(sides, np.uint64).transpose(1, 0, 2)  # n, side, hash
    keys = np.zeros((BANDS, len(texts)), np.uint64)
    banded = hashes.reshape(len(texts), 2, BANDS, -1).transpose(2, 1, 3, 0)
    for values in banded.reshape(BANDS, -1, len(texts)).transpose(1, 0, 2):
        keys = (keys ^ values) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return hashes.reshape(len(texts), -1).astype(np.uint8), keys


def shingles(text: str) -> list[str]:
    """Every four characters of a text in lower case."""
    text = ' '.join(text.casefold().split())
    return [text[i : i + _SHINGLE] for i in range(max(1, len(text) - _SHINGLE + 1))]


def first_equal(values: Shaped[np.ndarray, ' n']) -> Int[np.ndarray, ' n']:
    """The first of the groups with the value of each group, which may be itself."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return first[inverse]


def first_similar(folder: pathlib.Path, size: int, threshold: float) -> Int[np.ndarray, ' n']:
    """The first of the groups that each of `size` groups is similar to, also through others.

    Their `signatures` are in `progress.near` and `progress.near.<band>`; `threshold` is for the
    Jaccard similarity of the shingles, of the queries and of the passages.
    """
    if not size:
        return np.zeros(0, np.int64)
    low = np.memmap(folder / 'progress.near', np.uint8, 'r', shape=(size, 2 * HASHES))
    similar = [np.zeros((0, 2), np.int64)]
    for band in range(BANDS):
        pairs = _candidates(np.fromfile(folder / f'progress.near.{band}', np.uint64))
        for start in range(0, len(pairs), _PAIRS):
            part = pairs[start : start + _PAIRS]
            equal = low[part[:, 0]] == low[part[:, 1]]
            shares = equal.reshape(len(part), 2, HASHES).mean(2)  # of query and of passage
            similar.append(part[((shares - 1 / 256) / (1 - 1 / 256) >= threshold).all(1)])
    return first_equal(_components(np.concatenate(similar), size))


def _candidates(keys: UInt64[np.ndarray, ' n']) -> Int[np.ndarray, 'p 2']:
    """Each of a run of equal keys with the one before it and with the first of the run."""
    order = np.argsort(keys, kind='stable')
    same = np.append(False, keys[order][1:] == keys[order][:-1])
    index = np.flatnonzero(same)
    first = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))[index]
    further = first < index - 1
    pairs = [np.append(index - 1, first[further]), np.append(index, index[further])]
    return order[np.stack(pairs, 1)]


def _components(pairs: Int[np.ndarray, 'p 2'], size: int) -> Int[np.ndarray, ' n']:
    """The connected component of each of `size` nodes."""
    graph = scipy.sparse.coo_matrix((np.ones(len(pairs), bool), tuple(pairs.T)), (size, size))
    return scipy.sparse.csgraph.connected_components(graph, directed=False)[1]


def duplicate_clusters(
    tables: abc.Iterable[UInt64[np.ndarray, 'l n']], size: int
) -> Int[np.ndarray, ' n']:
    """The duplicate cluster of each of `size` texts: those with a hash in common are connected.

    A table has hashes of the texts by language, 0 for none. Collections repeat texts (headings,
    boilerplate) whose translations differ: they must not be negatives of each other anywhere.
    """
    pairs = np.concatenate([equal_pairs(hashes.ravel()) % size for hashes in tables])
    return _components(pairs, size).astype(np.int32)


def equal_pairs(hashes: UInt64[np.ndarray, ' n']) -> Int[np.ndarray, 'p 2']:
    """Pairs of neighbours among equal hashes that are not 0: enough to connect all of them."""
    order = np.argsort(hashes, kind='stable')
    ordered = hashes[order]
    same = (ordered[1:] == ordered[:-1]) & (ordered[1:] != 0)
    return np.stack([order[:-1][same], order[1:][same]], 1)
