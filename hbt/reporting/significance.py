"""Is a difference more than chance: confidence intervals, paired tests, several seeds.

Hides resampling. The unit is a question, with all its translations: these are not independent.
Called by `report`.
"""

import math
import typing
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

RESAMPLES = 1000
FLIPS = 10_000
HELD = 2**22  # random numbers at a time


class Interval(typing.NamedTuple):
    """A mean and the bounds of its confidence interval."""

    mean: float
    low: float
    high: float


class Difference(typing.NamedTuple):
    """Of the means of two runs on the same queries, the second less the first; two-sided tests."""

    queries: int
    mean: float
    randomisation: float  # p-value
    t: float  # p-value


def bootstrap(
    values: Float[np.ndarray, 'q p'],
    questions: Int[np.ndarray, ' q'],
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of the mean over the columns of their means over the queries.

    A column is a language pair, or a query language; NaN: the query is not part of it. Queries of
    equal `questions` are drawn together, RESAMPLES times (Efron and Tibshirani, 1993, chapter 13).
    """
    sums, counts = _by_question(values, questions)
    generator = np.random.default_rng(seed)
    n = len(sums)
    means, size = [], max(1, HELD // n)
    for start in range(0, RESAMPLES, size):
        count = min(size, RESAMPLES - start)
        weights = generator.multinomial(n, np.full(n, 1 / n), count).astype(float)
        totals = weights @ counts
        drawn = (totals > 0).sum(axis=1)  # columns; without any, a draw has no mean
        parts = (weights @ sums / np.maximum(totals, 1)).sum(axis=1)
        means.append(parts[drawn > 0] / drawn[drawn > 0])
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float((sums.sum(0) / counts.sum(0)).mean()), float(low), float(high))


def compare(
    first: Float[np.ndarray, 'q p'],
    second: Float[np.ndarray, 'q p'],
    questions: Int[np.ndarray, ' q'],
    seed: int = 0,
) -> list[Difference]:
    """Paired tests of two runs, for every column by itself.

    Fisher's randomisation test with FLIPS random exchanges of the runs per question, and the t-test
    over the questions (Smucker, Allan and Carterette, CIKM 2007). A column is NaN where a query is
    not part of it; nan as p-value where fewer than two are.
    """
    differing = np.isnan(first) != np.isnan(second)
    if differing.any():
        raise ValueError(
            'runs: expected values for the same queries, '
            f'got {int(differing.any(axis=1).sum())} that only one has'
        )
    sums, counts = _by_question(second - first, questions)
    generator = np.random.default_rng(seed)
    extreme = np.zeros(sums.shape[1])
    observed = np.abs(sums.sum(axis=0))
    size = max(1, HELD // len(sums))
    for start in range(0, FLIPS, size):
        signs = generator.integers(0, 2, (min(size, FLIPS - start), len(sums))) * 2.0 - 1
        extreme += (np.abs(signs @ sums) >= observed * (1 - 1e-12) - 1e-12).sum(axis=0)
    found = []
    for p, total in enumerate(counts.sum(axis=0)):
        there = counts[:, p] > 0
        units = sums[there, p] / counts[there, p]
        known = len(units) > 1
        mean = float(sums[:, p].sum() / total) if total else math.nan
        chance = float((1 + extreme[p]) / (1 + FLIPS)) if known else math.nan
        found.append(Difference(int(total), mean, chance, _t(units) if known else math.nan))
    return found


def macro(
    values: Float[np.ndarray, 'q p'], questions: Int[np.ndarray, ' q']
) -> Float[np.ndarray, ' n']:
    """Each question's part in the mean over the columns: the parts' mean is that mean.

    So a difference of macro-averages is tested by `compare` on single numbers of the questions.
    Columns without any value do not count.
    """
    sums, counts = _by_question(values, questions)
    totals = counts.sum(axis=0)
    known = totals > 0
    return (sums[:, known] / totals[known]).mean(axis=1) * len(sums)


def _t(differences: Float[np.ndarray, ' n']) -> float:
    """Two-sided p-value of the paired t-test; 1 where there is no difference at all."""
    spread = differences.std(ddof=1)
    if spread == 0:
        return 1.0 if differences[0] == 0 else 0.0
    t = differences.mean() / spread * math.sqrt(len(differences))
    return float(2 * stats.t.sf(abs(t), len(differences) - 1))


def _by_question(values: Float[np.ndarray, 'q p'], questions: Int[np.ndarray, ' q']):
    """Sums of the values of each question, and how many they are: [n p] each."""
    index = np.unique(questions, return_inverse=True)[1]
    sums, counts = np.zeros((2, index.max() + 1, values.shape[1]))
    np.add.at(sums, index, np.nan_to_num(values))
    np.add.at(counts, index, ~np.isnan(values))
    return sums, counts


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number: the family-wise error rate (Holm, 1979)."""
    return _stepwise(p, lambda ordered, n: np.maximum.accumulate(ordered * (n - np.arange(n))))


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number: the false discovery rate (1995)."""

    def step(ordered, n):
        return np.minimum.accumulate((ordered * n / np.arange(1, n + 1))[::-1])[::-1]

    return _stepwise(p, step)


def _stepwise(p: Sequence[float], step) -> list[float]:
    """NaN stays NaN and does not count."""
    p = np.asarray(p, float)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind='stable')]
    out = p.copy()
    out[order] = np.minimum(step(p[order], len(order)), 1)
    return out.tolist()


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds, and standard deviation between them (n - 1; nan for a single one)."""
    values = np.asarray(values, float)
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else math.nan
