"""Which texts are one: equal in some language, or through others.

Hides the search for equal texts in large tables. Called by `writer`.
"""

from collections import abc

import numpy as np
import scipy.sparse
from jaxtyping import Int, UInt64


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
