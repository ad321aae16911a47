"""Systems against each other on one benchmark: intervals, paired tests, fits.

Hides which queries make the value of a setting, and what is corrected for what.
Called by `tables` and `figures`.
"""

import itertools
import math
import typing
from collections.abc import Sequence

import numpy as np
from scipy import stats

from hbt import runs, statistics

LEVEL = 0.05  # of significance


class Measure(typing.NamedTuple):
    """A macro-averaged number of an evaluation, and how it is shown."""

    setting: str
    metric: str
    name: str
    form: str = 'score'
    highest: bool | None = True  # is best; None: neither is


MAIN = (  # these are tested
    Measure('mono', 'map', 'mono mAP'),
    Measure('cross', 'map', 'cross mAP'),
    Measure('multi', 'map', 'multi mAP'),
    Measure('multi', 'recall@10', 'multi R@10'),
    Measure('multi', 'rank_distance', 'rank distance', 'distance', False),
)
MORE = (
    Measure('mono', 'recall@1', 'mono R@1'),
    Measure('cross', 'recall@1', 'cross R@1'),
    Measure('mono', 'mrr@10', 'mono MRR@10'),
    Measure('mono', 'ndcg@10', 'mono nDCG@10'),
    Measure('mono', 'recall@5', 'mono R@5'),
    Measure('mono', 'recall@100', 'mono R@100'),
    Measure('cross', 'ndcg@10', 'cross nDCG@10'),
    Measure('multi', 'ndcg@10', 'multi nDCG@10'),
)
BIAS = (
    Measure('multi', 'rank_distance', 'rank distance', 'distance', False),
    Measure('multi', 'peer@20', 'PEER@20'),
    Measure('multi', 'rank_correlation@20', 'rank correlation@20'),
    Measure('multi', 'preference', 'own language first', 'percent', None),
    Measure('multi', 'own_share@10', 'own share@10', 'percent', None),
)


class Test(typing.NamedTuple):
    """The second system less the first, on one measure or pair of languages."""

    first: str
    second: str
    what: str
    difference: statistics.Difference  # `queries`: questions, if of several pairs
    holm: float = math.nan  # of the randomisation's p-value
    hochberg: float = math.nan  # Benjamini and Hochberg's


class Fit(typing.NamedTuple):
    """y = scale * x ** power, by least squares of the logarithms."""

    scale: float
    power: float
    error: float  # standard error of the power; nan for two points
    fitted: float  # R squared; nan for two points


class Case(typing.NamedTuple):
    """A system on a benchmark."""

    system: runs.System
    benchmark: str

    @property
    def saved(self):
        return self.system.saved(self.benchmark)[0]

    def columns(self, setting: str, metric: str) -> np.ndarray:
        """[q p]: a column for each pair, or query language, of a setting; NaN: not of it."""
        saved, values = self.saved, self.system.values(self.benchmark)
        codes = range(len(saved.languages))
        if setting == 'multi':
            found = values.pooled.get(metric)
            parts = [] if found is None else [(x, found) for x in codes]
        else:
            own = values.own[metric]
            chosen = [(x, c) for x in codes for c in codes if (x == c) == (setting == 'mono')]
            parts = [(x, own[:, c]) for x, c in chosen]
        masked = [np.where(saved.asked == x, value, np.nan) for x, value in parts]
        kept = [column for column in masked if not np.isnan(column).all()]
        return np.stack(kept, axis=1) if kept else np.zeros((len(saved.asked), 0))

    def mean(self, measure: Measure) -> float | None:
        numbers = self.system.numbers(self.benchmark)
        return numbers['metrics'].get(measure.setting, {}).get(measure.metric)


def pairs(case: Case) -> list[tuple[str, str]]:
    """Ordered pairs (query language, document language) that have queries."""
    known = case.system.numbers(case.benchmark)['pairs']
    names = case.saved.languages
    return [(x, c) for x in names for c in names if f'{x}-{c}' in known]


def interval(case: Case, measure: Measure) -> statistics.Interval | None:
    """95 % interval over questions; None where the benchmark has no such number."""
    found = case.columns(measure.setting, measure.metric)
    return statistics.bootstrap(found, case.saved.questions) if found.shape[1] else None


def overall(systems: Sequence[runs.System], benchmark: str) -> list[Test]:
    """Every two systems on MAIN, corrected for the number of all these tests together."""
    cases = [Case(x, benchmark) for x in systems if x.saved(benchmark)]
    parts = {}
    for case, measure in itertools.product(cases, MAIN):
        found = case.columns(measure.setting, measure.metric)
        if found.shape[1]:
            parts[case.system.label, measure.name] = statistics.macro(found, case.saved.questions)
    tests = []
    for (first, second), measure in itertools.product(itertools.combinations(cases, 2), MAIN):
        labels = first.system.label, second.system.label
        if all((label, measure.name) in parts for label in labels):
            ours, theirs = (parts[label, measure.name][:, None] for label in labels)
            (found,) = statistics.compare(ours, theirs, np.arange(len(ours)))
            tests.append(Test(*labels, measure.name, found))
    return corrected(tests)


def by_pair(first: runs.System, second: runs.System, benchmark: str, metric='map') -> list[Test]:
    """Two systems on every ordered pair of languages, corrected for the number of pairs."""
    case = Case(first, benchmark)
    saved, known = case.saved, pairs(case)
    codes = {name: i for i, name in enumerate(saved.languages)}
    sides = []
    for system in (first, second):
        own = system.values(benchmark).own[metric]
        sides.append(
            np.stack(
                [np.where(saved.asked == codes[x], own[:, codes[c]], np.nan) for x, c in known], 1
            )
        )
    found = statistics.compare(*sides, saved.questions)
    names = [f'{x}-{c}' for x, c in known]
    return corrected([Test(first.label, second.label, *x) for x in zip(names, found, strict=True)])


def corrected(tests: list[Test]) -> list[Test]:
    chances = [test.difference.randomisation for test in tests]
    both = statistics.holm(chances), statistics.benjamini_hochberg(chances)
    return [
        test._replace(holm=holm, hochberg=hochberg)
        for test, holm, hochberg in zip(tests, *both, strict=True)
    ]


def fit(x: Sequence[float], y: Sequence[float]) -> Fit | None:
    """The power law through points; None for fewer than two different x, or where y is 0."""
    if len(set(x)) < 2 or min(y) <= 0 or min(x) <= 0:
        return None
    line = stats.linregress(np.log(x), np.log(y))
    enough = len(x) > 2
    return Fit(
        math.exp(line.intercept),
        float(line.slope),
        float(line.stderr) if enough else math.nan,
        float(line.rvalue**2) if enough else math.nan,
    )
