import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from hbt.evaluation import bias, metrics
from tests import FIXTURES

CASES = json.loads((FIXTURES / 'peer.json').read_text())
UNRANKED = metrics.UNRANKED


@pytest.mark.parametrize('case', CASES[::10])
def test_peer_is_that_of_its_authors_one_by_one(case):
    ranks, languages, grades = (np.array([case[x]]) for x in ('ranks', 'languages', 'grades'))
    weights = {int(grade): weight for grade, weight in case['weights'].items()}
    result = bias.peer(ranks, languages, 4, case['k'], grades, weights)
    assert float(result[0]) == pytest.approx(case['peer'], abs=1e-6)


def test_peer_is_that_of_its_authors_on_a_hundred_random_cases():
    width = max(len(case['ranks']) for case in CASES)
    ranks, languages, grades = np.zeros((3, len(CASES), width), np.int32)
    for i, case in enumerate(CASES):
        for array, name in ((ranks, 'ranks'), (languages, 'languages'), (grades, 'grades')):
            array[i, : len(case[name])] = case[name]
    checked = 0
    for k in sorted({case['k'] for case in CASES}):
        for weights in ({'1': 1.0}, {'1': 0.5, '2': 0.5}, {'1': 0.25, '2': 0.75}):
            rows = [
                i for i, case in enumerate(CASES) if case['k'] == k and case['weights'] == weights
            ]
            by_grade = {int(grade): weight for grade, weight in weights.items()}
            with jax.enable_x64(True):
                result = np.asarray(bias.peer(ranks, languages, 4, k, grades, by_grade))
            np.testing.assert_allclose(result[rows], [CASES[i]['peer'] for i in rows], atol=1e-9)
            checked += len(rows)
    assert checked == 100


@pytest.mark.parametrize('x', [0.0, 1e-3, 0.5, 20.0, 3000.0])
def test_the_tail_of_chi_squared_is_that_of_scipy(x):
    freedom = np.arange(1.0, 60.0)[:, None]
    with jax.enable_x64(True):
        result = bias._chi_squared_tail(jnp.full(freedom.shape, x), jnp.asarray(freedom), 60)
    np.testing.assert_allclose(result, scipy.stats.chi2.sf(x, freedom), atol=1e-14, rtol=0)


def test_peer_of_equal_ranks_is_fair_and_of_nothing_relevant_unknown():
    # Of two, the one beyond the first 3 gets rank (2 * 2 + 1 + 1) / 2 = 3: equal to the other's.
    result = bias.peer(np.array([[3, 9], [0, 0]]), np.array([[0, 1], [0, 0]]), 2, 3)
    assert float(result[0]) == 1 and math.isnan(result[1])


def test_rank_distance_is_from_the_first_to_the_last_relevant_document():
    result = bias.rank_distance(np.array([[4, 1, 0], [3, 0, 0], [0, 0, 0], [3, UNRANKED, 0]]))
    np.testing.assert_array_equal(result, [3, 0, math.nan, math.nan])


def plain_distance(ranks):
    """Rank distance in plain Python."""
    ranked = sorted(rank for rank in ranks if rank > 0)
    return float(ranked[-1] - ranked[0]) if ranked and ranked[-1] < UNRANKED else math.nan


def test_rank_distance_is_that_of_plain_python():
    chance = np.random.default_rng(0)
    ranks = np.stack([chance.permutation(13014)[:11] + 1 for _ in range(300)])
    ranks[chance.random(ranks.shape) < 0.3] = 0
    ranks[:3] = 0
    ranks[chance.random(ranks.shape) < 0.02] = UNRANKED
    result = np.asarray(bias.rank_distance(ranks))
    np.testing.assert_array_equal(result, [plain_distance(row) for row in ranks.tolist()])
    assert np.isnan(result).any() and np.isfinite(result).sum() > 200


def plain_preference(ranks, languages, query_language):
    """Language preference in plain Python."""
    rows = [(rank, code) for rank, code in zip(ranks, languages, strict=True) if rank > 0]
    codes = {code for _, code in rows}
    if query_language not in codes or codes == {query_language} or min(rows)[0] == UNRANKED:
        return math.nan
    return float(min(rows)[1] == query_language)


def test_preference_is_whether_the_querys_language_comes_first():
    chance = np.random.default_rng(0)
    ranks = np.stack([chance.permutation(40)[:6] + 1 for _ in range(300)])
    ranks[chance.random(ranks.shape) < 0.3] = 0
    ranks[chance.random(ranks.shape) < 0.2] = UNRANKED
    languages, query_languages = chance.integers(0, 3, ranks.shape), chance.integers(0, 3, 300)
    result = np.asarray(bias.language_preference(ranks, languages, query_languages))
    rows = zip(ranks.tolist(), languages.tolist(), query_languages.tolist(), strict=True)
    np.testing.assert_array_equal(result, [plain_preference(*row) for row in rows])
    assert 0 < np.nanmean(result) < 1 and np.isnan(result).any()


def test_the_share_of_the_own_language_is_among_the_first_k():
    top_k, document_languages = np.array([[0, 1, 2], [2, 1, -1]]), np.array([7, 8, 7])
    query_languages = np.array([7, 7])
    np.testing.assert_allclose(
        bias.own_language_share(top_k, document_languages, query_languages, 1), [1, 1]
    )
    np.testing.assert_allclose(
        bias.own_language_share(top_k, document_languages, query_languages, 3), [2 / 3, 1 / 3]
    )


def plain_ranks(values):
    return [sum(y < x for y in values) + (sum(y == x for y in values) + 1) / 2 for x in values]


def plain_spearman(x, y):
    x, y = plain_ranks(x), plain_ranks(y)
    mx, my = sum(x) / len(x), sum(y) / len(y)
    xx, yy = sum((a - mx) ** 2 for a in x), sum((b - my) ** 2 for b in y)
    if not xx * yy:
        return math.nan
    return sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / math.sqrt(xx * yy)


def plain_correlation(scores, top_k, parallel, query_languages, i):
    """Of query i with each translation, on the documents in either one's list; the mean."""
    values = []
    for j in range(len(scores)):
        if parallel[j] == parallel[i] >= 0 and query_languages[j] != query_languages[i]:
            union = sorted({*top_k[i].tolist(), *top_k[j].tolist()} - {-1})
            values.append(
                plain_spearman([scores[i][d] for d in union], [scores[j][d] for d in union])
            )
    defined = [x for x in values if not math.isnan(x)]
    return sum(defined) / len(defined) if defined else math.nan


@pytest.mark.parametrize('size', [1, 2**24])
def test_rank_correlation_is_that_of_plain_python(size, monkeypatch):
    monkeypatch.setattr(bias, 'BLOCK_ELEMENTS', size)
    chance = np.random.default_rng(1)
    queries = chance.integers(-2, 3, (24, 5)).astype(np.float32)  # with ties
    documents = chance.integers(-2, 3, (30, 5)).astype(np.float32)
    parallel, query_languages = chance.integers(-1, 8, 24), chance.integers(0, 3, 24)
    scores = queries @ documents.T
    top_k = np.argsort(-scores, axis=1, kind='stable')[:, :6]
    top_k[3, 4:] = -1
    result = bias.rank_correlation(queries, documents, top_k, parallel, query_languages)
    expected = [
        plain_correlation(scores.tolist(), top_k, parallel, query_languages, i) for i in range(24)
    ]
    np.testing.assert_allclose(result, expected, atol=1e-5)
    assert np.isnan(result).any() and np.isfinite(result).any()


def test_queries_without_translations_have_no_rank_correlation():
    ones = np.ones((3, 2), np.float32)
    top_k = np.zeros((3, 1), np.int32)
    for parallel in ([-1, -1, -1], [0, 1, 2]):
        result = bias.rank_correlation(ones, ones, top_k, np.array(parallel), np.arange(3))
        assert np.isnan(result).all()


@pytest.mark.parametrize(('documents', 'relevant'), [(13014, 11), (20534, 4)])
def test_a_random_ranking_has_the_rank_distance_that_chance_gives(documents, relevant):
    """10,846 for XQuAD-R's 13,014 documents and 11 languages."""
    generator = np.random.default_rng(0)
    rows = [generator.choice(documents, relevant, replace=False) + 1 for _ in range(4000)]
    expected = (documents + 1) * (relevant - 1) / (relevant + 1)
    result = metrics.mean_defined(bias.rank_distance(np.array(rows, np.int32)))
    assert abs(result / expected - 1) < 0.01
    assert documents != 13014 or round(expected) == 10846
