"""Is a difference more than chance: confidence intervals, paired tests, corrections.

Their unit is a question with all its translations, which are not independent. Everywhere `values`
has a column for each pair of languages, or query language, NaN where the query is not part of it;
`questions` is equal for translations.
"""

import math
import typing
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

RESAMPLES = 1000
FLIPS = 10_000
BLOCK = 2**22  # random numbers at a time
Values = Float[np.ndarray, 'q p']
Questions = Int[np.ndarray, ' q']


class Interval(typing.NamedTuple):
    """A mean and the bounds of its confidence interval."""

    mean: float
    low: float
    high: float


class Difference(typing.NamedTuple):
    """Of the means of two systems on the same queries, the second less the first."""

    queries: int
    mean: float
    randomisation: float  # two-sided p-value
    t: float  # two-sided p-value


def bootstrap(values: Values, questions: Questions, level: float = 0.95, seed: int = 0) -> Interval:
    """Percentile bootstrap of the mean over the columns of their means over the queries.

    Questions are drawn RESAMPLES times (Efron and Tibshirani, 1993, chapter 13).
    """
    sums, counts = _sum_by_question(values, questions)
    means = _resample(sums, counts, seed)
    low, high = np.nanquantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float((sums.sum(0) / counts.sum(0)).mean()), float(low), float(high))


def resample_means(
    values: Values, questions: Questions, seed: int = 0
) -> Float[np.ndarray, ' resamples']:
    """The macro-averages of the bootstrap's draws; NaN for a draw without any value.

    Equal questions and seeds give equal draws, whatever the values.
    """
    return _resample(*_sum_by_question(values, questions), seed)


def _resample(sums, counts, seed: int) -> Float[np.ndarray, ' resamples']:
    generator, n = np.random.default_rng(seed), len(sums)
    means, size = [], max(1, BLOCK // n)
    for start in range(0, RESAMPLES, size):
        count = min(size, RESAMPLES - start)
        weights = generator.multinomial(n, np.full(n, 1 / n), count).astype(float)
        totals = weights @ counts
        columns = (totals > 0).sum(axis=1)  # without any, a draw has no mean
        parts = (weights @ sums / np.maximum(totals, 1)).sum(axis=1)
        means.append(np.where(columns > 0, parts / np.maximum(columns, 1), np.nan))
    return np.concatenate(means)


def compare(first: Values, second: Values, questions: Questions) -> list[Difference]:
    """Paired tests of two systems, for every column by itself.

    Fisher's randomisation test with FLIPS random exchanges of the systems per question, and the
    t-test over the questions (Smucker, Allan and Carterette, CIKM 2007). A p-value is NaN where a
    column has fewer than two questions. Raises ValueError where the NaN of the two differ.
    """
    count = int((np.isnan(first) != np.isnan(second)).any(axis=1).sum())
    if count:
        raise ValueError(
            f'runs: expected values for the same queries, got {count} that only one has'
        )
    sums, counts = _sum_by_question(second - first, questions)
    chances = _randomise(sums)
    differences = []
    for p, total in enumerate(counts.sum(axis=0)):
        present = counts[:, p] > 0
        mean = float(sums[:, p].sum() / total) if total else math.nan
        tests = math.nan, math.nan
        if present.sum() > 1:
            tests = float(chances[p]), _t_test(sums[present, p] / counts[present, p])
        differences.append(Difference(int(total), mean, *tests))
    return differences


def question_parts(values: Values, questions: Questions) -> Float[np.ndarray, ' n']:
    """Each question's part in the mean over the columns: the parts' mean is that mean.

    So a difference of macro-averages is tested by `compare` on single numbers of the questions.
    Columns without any value do not count.
    """
    sums, counts = _sum_by_question(values, questions)
    totals = counts.sum(axis=0)
    present = totals > 0
    return (sums[:, present] / totals[present]).mean(axis=1) * len(sums)


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number: the family-wise error rate (1979); NaN do not count."""
    p = np.array(p, float)
    order = np.argsort(p, kind='stable')  # NaN are last
    factors = np.count_nonzero(~np.isnan(p)) - np.arange(len(p))
    corrected = np.minimum(np.maximum.accumulate(p[order] * factors), 1)
    return corrected[np.argsort(order)].tolist()


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number: the false discovery rate (1995); NaN do not count."""
    p = np.array(p, float)
    present = ~np.isnan(p)
    if present.any():
        p[present] = stats.false_discovery_control(p[present])
    return p.tolist()


def _randomise(sums: Float[np.ndarray, 'n p']) -> Float[np.ndarray, ' p']:
    """p-values of the randomisation test of each column."""
    generator, size = np.random.default_rng(0), max(1, BLOCK // len(sums))
    extreme, observed = np.zeros(sums.shape[1]), np.abs(sums.sum(axis=0))
    for start in range(0, FLIPS, size):
        signs = generator.integers(0, 2, (min(size, FLIPS - start), len(sums))) * 2.0 - 1
        extreme += (np.abs(signs @ sums) >= observed * (1 - 1e-12) - 1e-12).sum(axis=0)
    return (1 + extreme) / (1 + FLIPS)


def _t_test(differences: Float[np.ndarray, ' n']) -> float:
    """p-value of the paired t-test; 1 where there is no difference at all."""
    if not np.ptp(differences):  # scipy's is NaN
        return float(differences[0] == 0)
    return float(stats.ttest_1samp(differences, 0).pvalue)


def _sum_by_question(values: Values, questions: Questions):
    """Sums of the values of each question, and how many they are: [n p] each."""
    index = np.unique(questions, return_inverse=True)[1]
    sums, counts = np.zeros((2, index.max() + 1, values.shape[1]))
    np.add.at(sums, index, np.nan_to_num(values))
    np.add.at(counts, index, ~np.isnan(values))
    return sums, counts
