import itertools
import math

import numpy as np
import pytest
from scipy import stats

from hbt.reporting import significance


def column(values):
    return np.asarray(values, float)[:, None]


def test_the_interval_covers_the_true_mean_as_often_as_it_says(monkeypatch):
    monkeypatch.setattr(significance, 'RESAMPLES', 400)
    generator, inside = np.random.default_rng(0), 0
    for seed in range(200):
        interval = significance.bootstrap(
            column(generator.normal(0.3, 1, 60)), np.arange(60), level=0.9, seed=seed
        )
        inside += interval.low < 0.3 < interval.high
        assert interval.low < interval.mean < interval.high
    assert 0.84 < inside / 200 < 0.95


def test_the_interval_of_translations_is_not_narrower_for_their_number():
    """Eleven copies of each question tell no more than one."""
    values = np.random.default_rng(0).normal(size=80)
    one = significance.bootstrap(column(values), np.arange(80))
    many = significance.bootstrap(column(np.repeat(values, 11)), np.repeat(np.arange(80), 11))
    assert many == pytest.approx(one)


def test_the_interval_is_of_the_macro_average():
    values = np.full((30, 2), np.nan)
    values[:20, 0], values[20:, 1] = 1.0, 0.0
    interval = significance.bootstrap(values, np.arange(30))
    assert interval.mean == 0.5 and interval.low == interval.high == 0.5


def test_blocks_do_not_change_an_interval(monkeypatch):
    values = column(np.random.default_rng(0).normal(size=50))
    interval = significance.bootstrap(values, np.arange(50))
    monkeypatch.setattr(significance, 'BLOCK', 1000)
    assert significance.bootstrap(values, np.arange(50)) == interval


def test_the_t_test_is_scipys_and_the_randomisation_test_that_of_all_exchanges():
    generator = np.random.default_rng(0)
    first = generator.random((9, 2))
    second = first + generator.normal(0.2, 0.3, first.shape)
    for p, test in enumerate(significance.compare(first, second, np.arange(9))):
        difference = (second - first)[:, p]
        assert test.queries == 9 and test.mean == pytest.approx(difference.mean())
        assert test.t == pytest.approx(stats.ttest_rel(second[:, p], first[:, p]).pvalue)
        signs = np.array(list(itertools.product([-1, 1], repeat=9)))
        exact = (np.abs(signs @ difference) >= abs(difference.sum()) - 1e-12).mean()
        assert test.randomisation == pytest.approx(exact, abs=0.02)


def test_equal_runs_do_not_differ_and_one_query_tells_nothing():
    same = np.random.default_rng(0).random((9, 1))
    (test,) = significance.compare(same, same, np.arange(9))
    assert test.randomisation == test.t == 1 and test.mean == 0
    (test,) = significance.compare(same[:1], same[:1] + 1, np.arange(1))
    assert math.isnan(test.randomisation) and math.isnan(test.t) and test.mean == 1


def test_runs_on_different_queries_are_refused():
    first, second = np.zeros((4, 2)), np.zeros((4, 2))
    first[:2, 1] = np.nan
    with pytest.raises(ValueError, match='same queries, got 2 that only one has'):
        significance.compare(first, second, np.arange(4))


def test_holm_and_benjamini_hochberg_are_those_of_their_papers():
    p = [0.01, 0.04, math.nan, 0.03, 0.005]
    assert significance.holm(p) == pytest.approx([0.03, 0.06, math.nan, 0.06, 0.02], nan_ok=True)
    expected = stats.false_discovery_control([0.01, 0.04, 0.03, 0.005])
    corrected = significance.benjamini_hochberg(p)
    assert [corrected[i] for i in (0, 1, 3, 4)] == pytest.approx(expected)
    assert significance.holm([0.9, 0.8]) == [1, 1] and significance.holm([]) == []


def test_corrections_and_the_t_test_are_their_formulas_within_1e_12():
    generator = np.random.default_rng(0)
    for n in (2, 3, 10, 300):
        p = generator.uniform(size=n) ** 3
        p[: n // 3] = p[-1]  # ties
        listed = p.tolist()
        order = np.argsort(p, kind='stable')
        ranks, steps = np.argsort(order), np.arange(1, n + 1)
        step_up = np.minimum.accumulate((p[order] * n / steps)[::-1])[::-1]
        step_down = np.maximum.accumulate(p[order] * (n + 1 - steps))
        for correct, expected in (
            (significance.benjamini_hochberg, step_up),
            (significance.holm, step_down),
        ):
            expected = np.minimum(expected, 1)[ranks]
            np.testing.assert_allclose(correct(listed), expected, rtol=0, atol=1e-12)
            padded = correct([math.nan, *listed, math.nan])
            np.testing.assert_array_equal(padded, [math.nan, *correct(listed), math.nan])
        differences = generator.normal(0.1, 1, n)
        t = differences.mean() / differences.std(ddof=1) * math.sqrt(n)
        expected = 2 * stats.t.sf(abs(t), n - 1)
        (test,) = significance.compare(column([0] * n), column(differences), np.arange(n))
        assert test.t == pytest.approx(expected, rel=0, abs=1e-12)
    assert significance.benjamini_hochberg([]) == [] and significance.holm([math.nan])[0] != 0
    (test,) = significance.compare(column([0, 0]), column([0.5, 0.5]), np.arange(2))
    assert test.t == 0


def test_the_parts_of_a_macro_average_have_its_mean():
    values = np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.nan], [np.nan, 7.0, np.nan]])
    parts = significance.question_parts(values, np.array([0, 1, 1]))
    assert parts.tolist() == [0.5, 7.5]  # columns have means 2 and 6, the last has none
    assert parts.mean() == 4


def test_draws_without_any_value_do_not_count():
    """Of three questions one has a value: 8 of 27 draws miss it, all others have its mean."""
    values = np.array([[0.25], [np.nan], [np.nan]])
    assert significance.bootstrap(values, np.arange(3)) == (0.25, 0.25, 0.25)
