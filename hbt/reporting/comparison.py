"""Systems against each other on one benchmark: measures, intervals, paired tests.

Hides which queries make the value of a setting, and what is corrected for what.
Called by `tables` and `figures`.
"""

import itertools
import math
import typing
from collections.abc import Sequence

import numpy as np

from hbt.evaluation import bias, metrics
from hbt.reporting import experiments, significance

LEVEL = 0.05  # of significance
SETTINGS = ('mono', 'cross', 'multi')


class Measure(typing.NamedTuple):
    """A macro-averaged number of an evaluation, and how it is shown."""

    setting: str
    metric: str
    name: str
    form: str = 'score'
    highest: bool | None = True  # is best; None: neither is


SHORT = {'map': 'mAP', 'mrr': 'MRR', 'ndcg': 'nDCG', 'recall': 'R', 'success': 'S'}
BIAS = (
    Measure('multi', 'rank_distance', 'rank distance', 'distance', False),
    Measure('multi', f'peer@{bias.CUTOFF}', f'PEER@{bias.CUTOFF}'),
    Measure('multi', f'rank_correlation@{bias.CUTOFF}', f'rank correlation@{bias.CUTOFF}'),
    Measure('multi', 'preference', 'own language first', 'percent', None),
    Measure('multi', 'own_share@10', 'own share@10', 'percent', None),
)


def short(metric: str) -> str:
    """R@10 for recall@10."""
    kind, mark, depth = metric.partition('@')
    return SHORT.get(kind, kind.replace('_', '-')) + mark + depth


def measure(text: str) -> Measure:
    """Reads SETTING.METRIC, such as cross.map@10; ValueError for an unknown one."""
    found = {f'{x.setting}.{x.metric}': x for x in BIAS}
    for setting in SETTINGS:
        for metric in metrics.METRICS:
            name = f'{setting} {short(metric)}'
            found[f'{setting}.{metric}'] = Measure(setting, metric, name)
    if text not in found:
        raise ValueError(f'--measure: expected one of {", ".join(found)}, got {text!r}')
    return found[text]


MAIN = tuple(  # these are compared and tested, if nothing else is asked for
    map(measure, ('mono.map', 'cross.map', 'multi.map', 'multi.recall@10', 'multi.rank_distance'))
)


def of_pairs(measures: Sequence[Measure]) -> str:
    """The metric that pairs of languages are shown and tested by: the first that pairs have."""
    return next((x.metric for x in measures if x.setting != 'multi'), 'map')


class Test(typing.NamedTuple):
    """The second system less the first, on one measure or pair of languages."""

    first: str
    second: str
    what: str
    difference: significance.Difference  # `queries`: questions, if of several pairs
    holm: float = math.nan  # of the randomisation's p-value
    hochberg: float = math.nan  # Benjamini and Hochberg's


class Case(typing.NamedTuple):
    """A system on a benchmark."""

    system: experiments.System
    benchmark: str

    @property
    def saved(self):
        return self.system.saved(self.benchmark)[0]

    def columns(self, setting: str, metric: str) -> np.ndarray:
        """[q p]: a column for each pair, or query language, of a setting; NaN: not of it."""
        saved = self.saved
        codes = range(len(saved.languages))
        if setting == 'multi':
            found = self.system.values(self.benchmark).pooled.get(metric)
            parts = [] if found is None else [(x, found) for x in codes]
        else:
            own = self.own(metric)
            chosen = [(x, c) for x in codes for c in codes if (x == c) == (setting == 'mono')]
            parts = [(x, own[:, c]) for x, c in chosen]
        masked = [np.where(saved.query_languages == x, value, np.nan) for x, value in parts]
        kept = [column for column in masked if not np.isnan(column).all()]
        return np.stack(kept, axis=1) if kept else np.zeros((len(saved.query_languages), 0))

    def own(self, metric: str) -> np.ndarray:
        """[q c]: of every corpus language alone. ValueError names a result that lacks it."""
        found = self.system.values(self.benchmark).per_language
        if metric not in found:
            raise ValueError(
                f'{self.saved.path}: expected values of {metric}, got {", ".join(found)} alone; '
                'evaluate again'
            )
        return found[metric]

    def mean(self, measure: Measure) -> float | None:
        numbers = self.system.numbers(self.benchmark)
        return numbers['metrics'].get(measure.setting, {}).get(measure.metric)


def pairs(case: Case) -> list[tuple[str, str]]:
    """Ordered pairs (query language, document language) that have queries."""
    known = case.system.numbers(case.benchmark)['pairs']
    names = case.saved.languages
    return [(x, c) for x in names for c in names if f'{x}-{c}' in known]


def interval(case: Case, measure: Measure) -> significance.Interval | None:
    """95 % interval over questions; None where the benchmark has no such number."""
    found = case.columns(measure.setting, measure.metric)
    return significance.bootstrap(found, case.saved.query_groups) if found.shape[1] else None


def overall(
    systems: Sequence[experiments.System], benchmark: str, measures: Sequence[Measure] = MAIN
) -> list[Test]:
    """Every two systems on each measure, corrected for the number of all these tests together."""
    cases = [Case(x, benchmark) for x in systems if x.saved(benchmark)]
    parts = {}
    for case, measure in itertools.product(cases, measures):
        found = case.columns(measure.setting, measure.metric)
        if found.shape[1]:
            part = significance.macro(found, case.saved.query_groups)
            parts[case.system.label, measure.name] = part
    labels = [case.system.label for case in cases]
    chosen = [
        (*both, measure.name)
        for both, measure in itertools.product(itertools.combinations(labels, 2), measures)
        if all((label, measure.name) in parts for label in both)
    ]
    if not chosen:
        return []
    first, second = (
        np.stack([parts[names[side], names[2]] for names in chosen], axis=1) for side in (0, 1)
    )
    found = significance.compare(first, second, np.arange(len(first)))
    return corrected([Test(*names, x) for names, x in zip(chosen, found, strict=True)])


def by_pair(
    first: experiments.System, second: experiments.System, benchmark: str, metric: str = 'map'
) -> list[Test]:
    """Two systems on every ordered pair of languages, corrected for the number of pairs."""
    case = Case(first, benchmark)
    saved, known = case.saved, pairs(case)
    codes = {name: i for i, name in enumerate(saved.languages)}
    sides = []
    for system in (first, second):
        own = Case(system, benchmark).own(metric)
        sides.append(
            np.stack(
                [
                    np.where(saved.query_languages == codes[x], own[:, codes[c]], np.nan)
                    for x, c in known
                ],
                1,
            )
        )
    found = significance.compare(*sides, saved.query_groups)
    names = [f'{x}-{c}' for x, c in known]
    return corrected([Test(first.label, second.label, *x) for x in zip(names, found, strict=True)])


def corrected(tests: list[Test]) -> list[Test]:
    chances = [test.difference.randomisation for test in tests]
    both = significance.holm(chances), significance.benjamini_hochberg(chances)
    return [
        test._replace(holm=holm, hochberg=hochberg)
        for test, holm, hochberg in zip(tests, *both, strict=True)
    ]
