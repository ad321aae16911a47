import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from hbt import metrics

# Two relevant documents at 1 and 4, in any order; one at 3; none.
RANKS = np.array([[4, 1], [3, 0], [0, 0]], np.int32)


def check(values, expected):
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_average_precision_divides_by_all_relevant_documents_also_with_a_cut_off():
    check(metrics.average_precision(RANKS), [(1 + 2 / 4) / 2, 1 / 3, math.nan])
    check(metrics.average_precision(RANKS, 3), [1 / 2, 1 / 3, math.nan])
    check(metrics.average_precision(RANKS, 2), [1 / 2, 0, math.nan])


def test_reciprocal_rank_is_of_the_first_relevant_document():
    check(metrics.reciprocal_rank(RANKS), [1, 1 / 3, math.nan])
    check(metrics.reciprocal_rank(RANKS, 2), [1, 0, math.nan])


def test_recall_is_the_share_found():
    check(metrics.recall(RANKS, 1), [1 / 2, 0, math.nan])
    check(metrics.recall(RANKS, 4), [1, 1, math.nan])


def test_ndcg_is_1_for_the_best_ranking_and_discounts_by_the_logarithm():
    check(metrics.ndcg(np.array([[2, 1, 3]], np.int32), 2), [1])
    ideal = 1 + 1 / math.log2(3)
    check(metrics.ndcg(RANKS, 10), [(1 + 1 / math.log2(5)) / ideal, 1 / 2, math.nan])


def test_rank_distance_is_from_the_first_to_the_last_relevant_document():
    check(metrics.rank_distance(RANKS), [3, 0, math.nan])


def test_ranks_may_be_on_the_device():
    check(metrics.average_precision(jnp.asarray(RANKS)), metrics.average_precision(RANKS))


def test_the_mean_passes_over_queries_without_relevant_documents():
    assert metrics.mean(np.array([1.0, math.nan, 0.0])) == 0.5
    assert math.isnan(metrics.mean(np.array([math.nan])))


def summarise_two_languages():
    """Queries x1 (answered in x and y), x2 (in x only), y1 (in x and y)."""
    return metrics.summarise(
        own=np.array([[1, 2], [4, 0], [5, 1]], np.int32),
        pooled=np.array([[1, 3], [6, 0], [9, 2]], np.int32),
        query_language=['x', 'x', 'y'],
        relevant_language=np.array([['x', 'y'], ['x', 'y'], ['x', 'y']]),
        languages=['x', 'y'],
    )


def test_a_query_without_an_answer_in_the_corpus_language_is_dropped_from_that_pair():
    pairs = summarise_two_languages()['pairs']
    assert {pair: row['queries'] for pair, row in pairs.items()} == {
        'x-x': 2,
        'x-y': 1,
        'y-x': 1,
        'y-y': 1,
    }
    assert pairs['x-y']['map'] == 1 / 2
    assert pairs['x-x']['map'] == (1 + 1 / 4) / 2


def test_mono_cross_and_multi_are_macro_averages_over_pairs_and_query_languages():
    tree = summarise_two_languages()
    check(tree['metrics']['mono']['map'], ((1 + 1 / 4) / 2 + 1) / 2)
    check(tree['metrics']['cross']['map'], (1 / 2 + 1 / 5) / 2)
    x, y = ((1 + 2 / 3) / 2 + 1 / 6) / 2, (1 / 2 + 2 / 9) / 2
    check(tree['metrics']['multi']['map'], (x + y) / 2)
    check(tree['metrics']['multi']['rank_distance'], ((2 + 0) / 2 + 7) / 2)
    check(tree['languages']['x']['multi']['map'], x)
    check(tree['languages']['y']['cross']['map'], 1 / 5)
    assert list(tree['languages']['x']['mono']) == ['map', 'mrr', 'recall@1', 'recall@10']


def test_a_single_language_has_no_cross():
    tree = metrics.summarise(
        np.array([[1]], np.int32), np.array([[1]], np.int32), ['x'], np.array([['x']]), ['x']
    )
    assert set(tree['metrics']) == set(tree['languages']['x']) == {'mono', 'multi'}
    assert list(tree['pairs']) == ['x-x']


def test_what_no_query_can_answer_is_left_out_and_never_nan():
    none = np.zeros((2, 1), np.int32)
    tree = metrics.summarise(none, none, ['x', 'y'], np.array([['x'], ['y']]), ['x', 'y'])
    assert tree == {'metrics': {}, 'languages': {}, 'pairs': {}}
    one = np.array([[3], [0]], np.int32)  # x's only query is answered in y; y's is not at all
    tree = metrics.summarise(one, one, ['x', 'y'], np.array([['y'], ['x']]), ['x', 'y'])
    assert list(tree['pairs']) == ['x-y'] and list(tree['languages']) == ['x']
    assert set(tree['metrics']) == {'cross', 'multi'}
    json.dumps(tree, allow_nan=False)


def test_a_perfect_pooled_ranking_reaches_a_recall_at_10_of_10_in_11():
    languages = 'ar de el en es hi ru th tr vi zh'.split()
    pooled = np.tile(np.arange(1, 12, dtype=np.int32), (11, 1))
    tree = metrics.summarise(
        np.ones_like(pooled), pooled, languages, np.array([languages] * 11), languages
    )
    check(tree['metrics']['multi']['recall@10'], 10 / 11)
    assert tree['metrics']['multi']['map'] == tree['metrics']['cross']['recall@1'] == 1
    assert len(tree['pairs']) == 121


@pytest.mark.parametrize(('documents', 'relevant'), [(13014, 11), (20534, 4)])
def test_a_random_ranking_has_the_rank_distance_that_chance_gives(documents, relevant):
    generator = np.random.default_rng(0)
    rows = [generator.choice(documents, relevant, replace=False) + 1 for _ in range(4000)]
    expected = (documents + 1) * (relevant - 1) / (relevant + 1)
    found = metrics.mean(metrics.rank_distance(np.array(rows, np.int32)))
    assert abs(found / expected - 1) < 0.01
