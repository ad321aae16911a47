import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hbt import config
from hbt.evaluation import metrics, trec

# Two relevant documents at 1 and 4, in any order; one at 3; none; one that is not ranked.
RANKS = np.array([[4, 1], [3, 0], [0, 0], [metrics.UNRANKED, 0]], np.int32)


def check(values, expected):
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_average_precision_divides_by_all_relevant_documents_also_with_a_cut_off():
    check(metrics.average_precision(RANKS), [(1 + 2 / 4) / 2, 1 / 3, math.nan, 0])
    check(metrics.average_precision(RANKS, 3), [1 / 2, 1 / 3, math.nan, 0])
    check(metrics.average_precision(RANKS, 2), [1 / 2, 0, math.nan, 0])


def test_reciprocal_rank_is_of_the_first_relevant_document():
    check(metrics.reciprocal_rank(RANKS), [1, 1 / 3, math.nan, 0])
    check(metrics.reciprocal_rank(RANKS, 2), [1, 0, math.nan, 0])


def test_recall_is_the_share_found_and_success_whether_any_is():
    check(metrics.recall(RANKS, 1), [1 / 2, 0, math.nan, 0])
    check(metrics.recall(RANKS, 4), [1, 1, math.nan, 0])
    check(metrics.success(RANKS, 1), [1, 0, math.nan, 0])
    check(metrics.success(RANKS, 3), [1, 1, math.nan, 0])


def test_r_precision_looks_at_as_many_documents_as_are_relevant():
    check(metrics.r_precision(RANKS), [1 / 2, 0, math.nan, 0])
    check(metrics.r_precision(np.array([[2, 1], [1, 0]])), [1, 1])


def test_ndcg_is_1_for_the_best_ranking_and_discounts_by_the_logarithm():
    check(metrics.ndcg(np.array([[2, 1, 3]], np.int32), 2), [1])
    ideal = 1 + 1 / math.log2(3)
    expected = [(1 + 1 / math.log2(5)) / ideal, 1 / 2, math.nan, 0]
    check(metrics.ndcg(RANKS, 10), expected)
    check(metrics.ndcg(RANKS), expected)


def test_ndcg_gains_are_the_grades():
    values = metrics.ndcg(np.array([[2, 1]]), 10, np.array([[3, 1]]))
    check(values, [(1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3))])


def test_ranks_may_be_on_the_device():
    check(metrics.average_precision(jnp.asarray(RANKS)), metrics.average_precision(RANKS))


def test_no_columns_of_relevant_documents_are_no_scores():
    none = np.zeros((2, 0), np.int32)
    for score in metrics.METRICS.values():
        assert np.isnan(score(none)).all()


def test_the_mean_skips_queries_without_relevant_documents():
    assert metrics.mean_defined(np.array([1.0, math.nan, 0.0])) == 0.5
    assert math.isnan(metrics.mean_defined(np.array([math.nan])))


# Ours, and what trec_eval and ir_measures call it.
MEASURES = [
    ('map', 'AP', metrics.average_precision),
    ('map_cut_2', 'AP@2', lambda x: metrics.average_precision(x, 2)),
    ('map_cut_10', 'AP@10', lambda x: metrics.average_precision(x, 10)),
    ('recip_rank', 'RR', metrics.reciprocal_rank),
    ('recall_1', 'R@1', lambda x: metrics.recall(x, 1)),
    ('recall_10', 'R@10', lambda x: metrics.recall(x, 10)),
    ('success_1', 'Success@1', lambda x: metrics.success(x, 1)),
    ('success_10', 'Success@10', lambda x: metrics.success(x, 10)),
    ('Rprec', 'Rprec', metrics.r_precision),
]
GRADED = [
    ('ndcg', 'nDCG', None),
    ('ndcg_cut_2', 'nDCG@2', 2),
    ('ndcg_cut_10', 'nDCG@10', 10),
]


@st.composite
def runs(draw):
    """A run and its judgements: with ties, queries that are missing or without an answer."""
    documents = [f'd{i}' for i in range(draw(st.integers(1, 30)))]
    queries = [f'q{i}' for i in range(draw(st.integers(1, 6)))]
    subset = st.lists(st.sampled_from(documents), unique=True)
    score = st.sampled_from([-1.0, 0.0, 0.5, 0.5, 1.0, 2.0])
    run, qrels = {}, {}
    for query in queries:
        qrels[query] = {d: draw(st.integers(0, 3)) for d in draw(subset)} or {'d0': 0}
        listed = {d: draw(score) for d in draw(subset)}
        if listed:
            run[query] = listed
    return run, qrels


def untied(run):
    """The same rankings in trec_eval's order, with scores that fall strictly."""
    ordered = {q: sorted(x, key=lambda d: (x[d], d), reverse=True) for q, x in run.items()}
    return {q: {d: -float(i) for i, d in enumerate(order)} for q, order in ordered.items()}


def padded(ranks):
    """In one shape, so that nothing is compiled twice."""
    out = np.zeros((6, 30), np.int32)
    out[: ranks.shape[0], : ranks.shape[1]] = ranks
    return out


@hypothesis.given(runs())
@hypothesis.settings(max_examples=80)
def test_every_metric_is_that_of_trec_eval_and_of_ir_measures(case):
    pytrec_eval = pytest.importorskip('pytrec_eval')
    ir_measures = pytest.importorskip('ir_measures')
    run, qrels = case
    names = [name for name, *_ in MEASURES + GRADED if name]
    measures = {'.'.join(x.rsplit('_', 1)) if x[-1].isdigit() else x for x in names}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
    parsed = [ir_measures.parse_measure(other) for _, other, _ in MEASURES + GRADED]
    others = {}
    for score in ir_measures.iter_calc(parsed, qrels, run):
        others[str(score.measure), score.query_id] = score.value
    # Of equal scores, ir_measures takes the smaller id first in this one; so without ties.
    for score in ir_measures.iter_calc([ir_measures.parse_measure('RR@2')], qrels, untied(run)):
        others['RR@2', score.query_id] = score.value
    ranks, grades = (padded(x) for x in trec.rank_relevant(run, qrels))
    with jax.enable_x64(True):
        ours = {other: np.asarray(score(ranks)) for _, other, score in MEASURES}
        ours['RR@2'] = np.asarray(metrics.reciprocal_rank(ranks, 2))
        ours |= {other: np.asarray(metrics.ndcg(ranks, k, grades)) for _, other, k in GRADED}
    for i, query in enumerate(qrels):
        answerable = any(grade > 0 for grade in qrels[query].values())
        for name, other, _ in [*MEASURES, *GRADED, (None, 'RR@2', None)]:
            value = ours[other][i]
            assert math.isnan(value) == (not answerable)
            if query in theirs and name:
                assert abs(np.nan_to_num(value) - theirs[query][name]) < 1e-9, name
            if answerable:  # ir_measures gives a query that the run lacks 0
                assert abs(value - others[other, query]) < 1e-6, other


def test_every_metric_may_choose_the_best_parameters():
    assert tuple(metrics.METRICS) == config.METRICS
