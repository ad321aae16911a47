"""The best of documents that lie on the devices are those of a plain sort, ties included."""

import numpy as np
import pytest

from hbt.evaluation import search
from hbt.serving import resident


def vectors(*shape):
    """Few values, so that scores are exact and many are equal."""
    return np.random.default_rng(sum(shape)).integers(-2, 3, shape).astype(np.float32)


def expected(queries, documents, codes, k, allowed):
    """By a stable sort: of equal scores the smaller index is first."""
    scores = np.where(np.array(allowed)[codes], queries @ documents.T, -np.inf)
    order = np.argsort(-scores, axis=1, kind='stable')[:, :k]
    return np.take_along_axis(scores, order, axis=1), order


@pytest.mark.parametrize(('count', 'queries', 'k'), [(3, 1, 5), (700, 5, 10), (3000, 3, 100)])
def test_the_best_are_those_of_a_stable_sort(count, queries, k, monkeypatch):
    monkeypatch.setattr(search, 'DEVICE_DOCUMENTS', 128)  # several blocks on each of 8 devices
    monkeypatch.setattr(search, 'DEVICE_SCORES', 256)  # two queries at a time
    documents, rows = vectors(count, 4), vectors(queries, 4)
    codes = np.arange(count, dtype=np.int32) % 3
    placed = resident.put_documents(documents, codes)
    assert len(placed.embeddings.sharding.device_set) == 8
    for allowed in ([True] * 3, [False, True, False]):
        scores, indices = resident.find_best(rows, placed, k, allowed)
        wanted, order = expected(rows, documents, codes, k, allowed)
        np.testing.assert_array_equal(scores, wanted)
        found = np.isfinite(scores)
        np.testing.assert_array_equal(indices[found], order[found])


def test_documents_are_transformed_block_by_block_as_they_are_put_there(monkeypatch):
    monkeypatch.setattr(search, 'DEVICE_DOCUMENTS', 64)
    documents, codes = vectors(1000, 4), np.arange(1000, dtype=np.int32) % 2

    def negate_odd(rows, languages):
        assert len(rows) == len(languages) <= 64
        return np.where(languages[:, None] == 1, -rows, rows)

    placed = resident.put_documents(documents, codes, negate_odd)
    same = resident.put_documents(np.where(codes[:, None] == 1, -documents, documents), codes)
    np.testing.assert_array_equal(placed.embeddings, same.embeddings)
