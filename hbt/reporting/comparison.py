"""Systems against each other on one benchmark: measures, intervals, paired tests."""

import itertools
import typing
from collections.abc import Sequence

import numpy as np

from hbt.evaluation import bias, metrics, results
from hbt.reporting import experiments, render, significance

LEVEL = 0.05  # of significance
VERDICTS = {'better in': 1, 'worse in': -1, 'changed': 0, 'no significant difference in': 0}
ABBREVIATIONS = {'map': 'mAP', 'mrr': 'MRR', 'ndcg': 'nDCG', 'recall': 'R', 'success': 'S'}


class Measure(typing.NamedTuple):
    """A macro-averaged number of an evaluation, and how it is shown."""

    setting: str
    metric: str
    name: str
    format: str = 'score'  # of `render.FORMATS`
    sign: int = 1  # 1: the largest is best; -1: the smallest; 0: neither

    def get(self, tree: dict[str, dict[str, float]]) -> float | None:
        """The number in {setting: {metric: number}}; None where it is missing."""
        return tree.get(self.setting, {}).get(self.metric)


class Test(typing.NamedTuple):
    """The second system less the first, on one measure or pair of languages."""

    first: str
    second: str
    subject: str  # name of the measure, or of the pair
    queries: int  # questions, if of a measure
    mean: float  # difference
    randomisation: float  # p-value
    t: float  # p-value
    holm: float  # the randomisation's p-value, corrected
    hochberg: float  # the same by Benjamini and Hochberg
    sign: int = 1  # of the measure: 1: a larger number is better

    @property
    def verdict(self) -> int:
        """1: the second system is significantly better; -1: worse; 0: neither can be said."""
        return int(np.sign(self.mean)) * self.sign if self.holm < LEVEL else 0


BIAS = (
    Measure('multi', 'rank_distance', 'rank distance', 'distance', -1),
    Measure('multi', f'peer@{bias.CUTOFF}', f'PEER@{bias.CUTOFF}'),
    Measure('multi', f'rank_correlation@{bias.CUTOFF}', f'rank correlation@{bias.CUTOFF}'),
    Measure('multi', 'preference', 'own language first', 'percent', 0),
    Measure('multi', 'own_share@10', 'own share@10', 'percent', 0),
)


def metric_name(metric: str) -> str:
    """R@10 for recall@10."""
    kind, mark, depth = metric.partition('@')
    return ABBREVIATIONS.get(kind, kind.replace('_', '-')) + mark + depth


def parse_measure(text: str) -> Measure:
    """The measure SETTING.METRIC, such as cross.map@10; ValueError for an unknown one."""
    pairs = itertools.product(('mono', 'cross', 'multi'), metrics.METRICS)
    measures = {
        f'{x.setting}.{x.metric}': x
        for x in (*BIAS, *(Measure(x, y, f'{x} {metric_name(y)}') for x, y in pairs))
    }
    if text not in measures:
        raise ValueError(f'--measure: expected one of {", ".join(measures)}, got {text!r}')
    return measures[text]


DEFAULTS = ('mono.map', 'cross.map', 'multi.map', 'multi.recall@10', 'multi.rank_distance')
MAIN = tuple(map(parse_measure, DEFAULTS))  # compared and tested by default


class Comparison(typing.NamedTuple):
    """Systems on one benchmark, and the measures that they are compared by."""

    benchmark: str
    systems: list[experiments.System]
    measures: list[Measure]  # that a system has

    @property
    def metric(self) -> str:
        """What pairs of languages are shown and tested by: the first metric that pairs have."""
        return next((x.metric for x in self.measures if x.setting != 'multi'), 'map')

    def trees(self, breakdown: str) -> dict[str, dict]:
        """Label -> a breakdown of the numbers, for every system."""
        return {x.label: x.numbers[self.benchmark][breakdown] for x in self.systems}

    def name_part(self, name: str, title: str) -> tuple[str, str]:
        """Name of the files, and title, of a table or figure of this benchmark."""
        return f'{results.file_stem(self.benchmark)}-{name}', f'{self.benchmark}: {title}'


def make_comparison(
    systems: Sequence[experiments.System], benchmark: str, measures: Sequence[Measure] = MAIN
) -> Comparison:
    """The systems that were evaluated on the benchmark, with the measures that one of them has."""
    systems = [x for x in systems if benchmark in x.numbers]
    trees = [x.numbers[benchmark]['metrics'] for x in systems]
    available = [x for x in measures if any(x.get(tree) is not None for tree in trees)]
    return Comparison(benchmark, systems, available)


def confidence_interval(
    system: experiments.System, benchmark: str, measure: Measure
) -> significance.Interval | None:
    """95 % interval over questions; None where the benchmark has no such number."""
    values = system.setting_values(benchmark, measure.setting, measure.metric)
    groups = system.evaluations(benchmark)[0].query_groups
    return significance.bootstrap(values, groups) if values.shape[1] else None


def compare_systems(case: Comparison) -> list[Test]:
    """Every two systems on each measure, corrected for the number of all these tests together."""
    parts = {}
    for system, measure in itertools.product(case.systems, case.measures):
        values = system.setting_values(case.benchmark, measure.setting, measure.metric)
        if values.shape[1]:
            groups = system.evaluations(case.benchmark)[0].query_groups
            parts[system.label, measure.name] = significance.question_parts(values, groups)
    tested = [
        (first.label, second.label, measure.name)
        for first, second in itertools.combinations(case.systems, 2)
        for measure in case.measures
        if {(first.label, measure.name), (second.label, measure.name)} <= parts.keys()
    ]
    if not tested:
        return []
    first = np.stack([parts[name, subject] for name, _, subject in tested], axis=1)
    second = np.stack([parts[name, subject] for _, name, subject in tested], axis=1)
    tests = _correct(tested, significance.compare(first, second, np.arange(len(first))))
    signs = {x.name: x.sign for x in case.measures}
    return [x._replace(sign=signs[x.subject]) for x in tests]


def describe_tests(benchmark: str, tests: Sequence[Test]) -> list[render.Phrase]:
    """A sentence on what the second of two systems does better and worse than the first."""
    groups = {name: [] for name in VERDICTS}
    for test in tests:
        subject, kind = test.subject, [*VERDICTS][-1]
        if test.holm < LEVEL:
            difference = render.FORMATS['signed number'](test.mean)
            subject += f' ({difference}, p {render.FORMATS["p"](test.holm)})'
            kind = next(name for name, tone in VERDICTS.items() if tone == test.verdict)
        groups[kind].append(subject)
    phrases = [render.Phrase(f'On {benchmark}, {tests[0].second} against {tests[0].first}: ')]
    for name, subjects in groups.items():
        if subjects:
            phrases.append(render.Phrase(f'{name} {join_words(subjects)}', VERDICTS[name]))
            phrases.append(render.Phrase('; '))
    return [*phrases[:-1], render.Phrase('.\n')]


def describe_numbers(case: Comparison) -> str:
    """The measures of the systems in words, where there are none to compare."""
    words = []
    for system in case.systems:
        tree = system.numbers[case.benchmark]['metrics']
        values = [(x, x.get(tree)) for x in case.measures]
        numbers = [f'{x.name} {render.FORMATS[x.format](y)}' for x, y in values if y is not None]
        words.append(f'On {case.benchmark}, {system.label} has {join_words(numbers)}.\n')
    return ''.join(words)


def join_words(words: Sequence[str]) -> str:
    """a, b and c."""
    return ' and '.join(filter(None, [', '.join(words[:-1]), words[-1]]))


def compare_pairs(
    first: experiments.System, second: experiments.System, benchmark: str, metric: str = 'map'
) -> list[Test]:
    """Two systems on every ordered pair of languages, corrected for the number of pairs."""
    pairs = first.pairs(benchmark)
    values = [system.pair_values(benchmark, metric, pairs) for system in (first, second)]
    groups = first.evaluations(benchmark)[0].query_groups
    tested = [(first.label, second.label, f'{x}-{y}') for x, y in pairs]
    return _correct(tested, significance.compare(*values, groups))


def _correct(tested: list[tuple[str, str, str]], differences) -> list[Test]:
    """The tests with their p-values corrected for their number."""
    p = [x.randomisation for x in differences]
    corrected = zip(significance.holm(p), significance.benjamini_hochberg(p), strict=True)
    parts = zip(tested, differences, corrected, strict=True)
    return [Test(*names, *difference, *both) for names, difference, both in parts]
