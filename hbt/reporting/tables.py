"""The tables of a report.

Hides which numbers of an evaluation go where. Called by `report`.
"""

import statistics as plain
from collections.abc import Sequence

from hbt.evaluation import results
from hbt.reporting import comparison, document, experiments, significance


def name(benchmark: str, what: str) -> str:
    """Of the files of a table or figure."""
    return f'{results.file_stem(benchmark)}-{what}'


def of(systems: Sequence[experiments.System], benchmark: str) -> list[experiments.System]:
    """Those that were evaluated on it."""
    return [system for system in systems if system.saved(benchmark)]


def overview(
    found: Sequence[experiments.Run], systems: Sequence[experiments.System]
) -> document.Table:
    """What each run is, and what it is called in the report."""
    called = {run.name: system.label for system in systems for run in system.runs}
    columns = ['run', 'called', 'sampling', 'seed', 'steps', 'evaluated at', 'benchmarks']
    rows = [
        [
            run.name,
            called[run.name],
            experiments.strategy(run),
            *(str(run.settings.get(x, '')) for x in ('seed', 'steps', 'evaluated step')),
            ', '.join(run.results),
        ]
        for run in found
    ]
    return document.Table('runs', 'Runs', [document.Column(x) for x in columns], rows)


def settings(found: Sequence[experiments.Run]) -> document.Table:
    """Settings in which the runs differ; all others are equal."""
    rows = [
        [setting, *(_setting(run, setting) for run in found)]
        for setting in experiments.differing(found)
    ]
    note = '' if rows else 'None: as far as the runs tell, their settings are equal.'
    columns = [document.Column('setting'), *(document.Column(run.name) for run in found)]
    return document.Table('settings', 'Settings in which runs differ', columns, rows, note)


def _setting(run: experiments.Run, setting: str) -> str:
    value = run.settings.get(setting, '')
    return ', '.join(map(str, value)) if isinstance(value, tuple) else str(value)


def overall(
    systems: Sequence[experiments.System], benchmark: str, measures: Sequence[comparison.Measure]
) -> document.Table:
    """The main numbers: intervals over questions, spread over seeds."""
    chosen = known(systems, benchmark, measures)
    rows = []
    for system in of(systems, benchmark):
        case, cells = comparison.Case(system, benchmark), []
        for measure in chosen:
            found = comparison.interval(case, measure)
            spread = significance.spread(each(system, benchmark, measure))[1]
            cells.append(found and document.Value(*found, spread if spread == spread else None))
        rows.append([system.label, *cells])
    note = (
        'In brackets: 95 % bootstrap interval over questions, with all their translations. After '
        '±: standard deviation between seeds, where there are several.'
    )
    return _ranked(name(benchmark, 'overall'), f'{benchmark}: main numbers', chosen, rows, note)


def further(
    systems: Sequence[experiments.System], benchmark: str, measures: Sequence[comparison.Measure]
) -> document.Table:
    """More metrics, without intervals; `measures` are those that there are elsewhere."""
    chosen = known(systems, benchmark, [x for x in FURTHER if x not in measures])
    rows = [
        [system.label, *(comparison.Case(system, benchmark).mean(x) for x in chosen)]
        for system in of(systems, benchmark)
    ]
    return _ranked(name(benchmark, 'further'), f'{benchmark}: further metrics', chosen, rows)


FURTHER = tuple(
    comparison.measure(text)
    for text in (
        *('mono.map', 'mono.recall@1', 'mono.recall@5', 'mono.mrr@10', 'mono.ndcg@10'),
        *('mono.recall@100', 'cross.map', 'cross.recall@1', 'cross.recall@5', 'cross.ndcg@10'),
        *('multi.map', 'multi.recall@5', 'multi.recall@10', 'multi.ndcg@10'),
    )
)


def bias(systems: Sequence[experiments.System], benchmark: str) -> document.Table:
    """Every measure of language bias."""
    chosen = known(systems, benchmark, comparison.BIAS)
    rows = [
        [system.label, *(comparison.Case(system, benchmark).mean(x) for x in chosen)]
        for system in of(systems, benchmark)
    ]
    note = (
        'Rank distance: last less first rank of the relevant documents of a query, lower is '
        'fairer. PEER: 1 is fair. Rank correlation: between the rankings of translated queries, 1 '
        'is fair. Own language first, own share: how often the first relevant document, and how '
        'much of the first ten, is in the language of the query.'
    )
    return _ranked(name(benchmark, 'bias'), f'{benchmark}: language bias', chosen, rows, note)


def known(
    systems: Sequence[experiments.System], benchmark: str, measures: Sequence[comparison.Measure]
) -> list[comparison.Measure]:
    """Measures that the benchmark has."""
    cases = [comparison.Case(system, benchmark) for system in of(systems, benchmark)]
    return [x for x in measures if any(case.mean(x) is not None for case in cases)]


def _ranked(called: str, title: str, chosen, rows, note: str = '') -> document.Table:
    """Systems down, measures across; the best of every column stands out."""
    columns = [document.Column('system'), *(document.Column(x.name, x.form) for x in chosen)]
    table = document.Table(called, title, columns, rows, note)
    return document.best(
        table,
        [
            ([(i, j) for i in range(len(rows))], measure.highest)
            for j, measure in enumerate(chosen, 1)
            if measure.highest is not None
        ],
    )


def each(system: experiments.System, benchmark: str, measure: comparison.Measure) -> list[float]:
    """A number of every run of a system."""
    trees = [saved.numbers['metrics'] for saved in system.saved(benchmark)]
    found = [tree.get(measure.setting, {}).get(measure.metric) for tree in trees]
    return [x for x in found if x is not None]


def tests(
    systems: Sequence[experiments.System], benchmark: str, measures: Sequence[comparison.Measure]
) -> document.Table:
    """Every two systems on the main numbers."""
    rows = []
    for test in comparison.overall(systems, benchmark, measures):
        rows.append(
            [f'{test.second} − {test.first}', test.what, test.difference.mean, *_chances(test)]
        )
    columns = [document.Column(x) for x in ('systems', 'number')]
    columns += [document.Column('difference', 'signed number'), *CHANCES]
    strong = frozenset((i, 2) for i, row in enumerate(rows) if _significant(row[5]))
    note = (
        'Paired tests over questions: randomisation (10,000 flips) and t, two-sided. Holm and '
        'Benjamini-Hochberg correct the first for all tests of this table. Bold: Holm below .05. '
        'Systems of several seeds are compared by the mean of these for every query.'
    )
    title = f'{benchmark}: differences between systems'
    return document.Table(name(benchmark, 'tests'), title, columns, rows, note, strong)


CHANCES = [
    document.Column('questions', 'count'),
    document.Column('p, randomisation', 'p'),
    document.Column('Holm', 'p'),
    document.Column('Benjamini-Hochberg', 'p'),
    document.Column('p, t', 'p'),
]


def _chances(test: comparison.Test) -> list[int | float]:
    found = test.difference
    return [found.queries, found.randomisation, test.holm, test.hochberg, found.t]


def _significant(p: float) -> bool:
    return p < comparison.LEVEL


def pair_tests(
    found: Sequence[comparison.Test], benchmark: str, index: int, metric: str
) -> document.Table:
    """Two systems on every ordered pair of languages."""
    rows = [[test.what, test.difference.mean, *_chances(test)] for test in found]
    strong = frozenset((i, 1) for i, test in enumerate(found) if _significant(test.holm))
    columns = [
        document.Column('pair'),
        document.Column(f'difference of {comparison.short(metric)}', 'signed'),
        *CHANCES,
    ]
    columns[2] = document.Column('queries', 'count')
    title = f'{benchmark}: {found[0].second} − {found[0].first}, every pair of languages'
    note = f'Corrected for {len(found)} pairs. Bold: Holm below .05.'
    return document.Table(
        name(benchmark, f'pair-tests-{index}'), title, columns, rows, note, strong
    )


def pair_counts(
    found: Sequence[Sequence[comparison.Test]], benchmark: str, metric: str
) -> document.Table:
    """On how many pairs of languages a system is better and worse than the first."""
    rows = []
    for tests_ in found:
        for which, kept in (
            ('monolingual', [x for x in tests_ if _mono(x.what)]),
            ('cross-lingual', [x for x in tests_ if not _mono(x.what)]),
        ):
            if kept:
                rows.append([f'{tests_[0].second} − {tests_[0].first}', which, *_counts(kept)])
    columns = [
        document.Column('systems'),
        document.Column('pairs'),
        document.Column('pairs', 'count'),
    ]
    columns[1] = document.Column('setting')
    for how in ('Holm', 'Benjamini-Hochberg'):
        columns += [document.Column(x, 'count', how) for x in ('better', 'worse')]
    columns.append(document.Column('mean difference', 'signed'))
    shown = comparison.short(metric)
    title = f'{benchmark}: pairs of languages with a significant difference of {shown}'
    note = 'At .05, by the randomisation test, corrected for the number of all pairs.'
    return document.Table(name(benchmark, 'pair-counts'), title, columns, rows, note)


def _mono(pair: str) -> bool:
    half = len(pair) // 2
    return pair[:half] == pair[half + 1 :]


def _counts(found: Sequence[comparison.Test]) -> list[int | float]:
    cells = [len(found)]
    for chance in ('holm', 'hochberg'):
        certain = [x.difference.mean for x in found if _significant(getattr(x, chance))]
        cells += [sum(x > 0 for x in certain), sum(x < 0 for x in certain)]
    return [*cells, plain.fmean(x.difference.mean for x in found)]


def pair_numbers(
    systems: Sequence[experiments.System], benchmark: str, metric: str
) -> document.Table:
    """The metric, recall@1 and recall@10 of every ordered pair of languages."""
    chosen = of(systems, benchmark)
    trees = [system.numbers(benchmark)['pairs'] for system in chosen]
    metrics = dict.fromkeys((metric, 'recall@1', 'recall@10'))
    rows = [
        [pair, int(row['queries'])] + [tree[pair].get(m) for m in metrics for tree in trees]
        for pair, row in trees[0].items()
    ]
    columns = [document.Column('pair'), document.Column('queries', 'count')]
    columns += [
        document.Column(x.label, 'score', comparison.short(m)) for m in metrics for x in chosen
    ]
    return document.Table(
        name(benchmark, 'pairs'), f'{benchmark}: every pair of languages', columns, rows
    )


def origin(found: Sequence[experiments.Run], benchmark: str) -> document.Table:
    """From which data and by which versions the numbers are."""
    rows = []
    for run in found:
        if benchmark in run.results:
            numbers = run.results[benchmark].numbers
            manifest = numbers['manifest']
            versions = manifest.get('versions', {})
            rows.append(
                [
                    run.name,
                    numbers.get('step'),
                    sum(manifest.get('queries', {}).values()),
                    sum(manifest.get('documents', {}).values()),
                    manifest.get('unanswerable'),
                    *(str(x) for x in manifest.get('lengths', ['', ''])),
                    *(f'{x:,}' for x in manifest.get('full', [])),
                    *[''] * (2 - len(manifest.get('full', []))),
                    str(manifest.get('content', ''))[:12],
                    ' '.join(f'{k} {versions[k]}' for k in ('hbt', 'jax') if k in versions),
                ]
            )
    counted = ('step', 'queries', 'documents', 'unanswerable')
    columns = [document.Column('run'), *(document.Column(x, 'count') for x in counted)]
    columns += [document.Column(x, 'right', 'longest text') for x in ('query', 'document')]
    columns += [document.Column(x, 'right', 'texts that long') for x in ('query', 'document')]
    columns += [document.Column('SHA-256 of the data'), document.Column('versions')]
    return document.Table(
        name(benchmark, 'origin'), f'{benchmark}: origin of the numbers', columns, rows
    )
