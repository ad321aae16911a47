"""The tables of a report.

Hides which numbers of an evaluation go where. Called by `report`.
"""

import statistics as plain
from collections.abc import Sequence

from hbt import comparison, document, languages, results, runs, statistics
from hbt.document import Column, Table, Value


def name(benchmark: str, what: str) -> str:
    """Of the files of a table or figure."""
    return f'{results.stem(benchmark)}-{what}'


def of(systems: Sequence[runs.System], benchmark: str) -> list[runs.System]:
    """Those that were evaluated on it."""
    return [system for system in systems if system.saved(benchmark)]


def overview(found: Sequence[runs.Run], systems: Sequence[runs.System]) -> Table:
    """What each run is, and what it is called in the report."""
    called = {run.name: system.label for system in systems for run in system.runs}
    columns = ['run', 'called', 'sampling', 'seed', 'steps', 'evaluated at', 'benchmarks']
    rows = [
        [
            run.name,
            called[run.name],
            runs.strategy(run),
            *(str(run.settings.get(x, '')) for x in ('seed', 'steps', 'evaluated step')),
            ', '.join(run.results),
        ]
        for run in found
    ]
    return Table('runs', 'Runs', [Column(x) for x in columns], rows)


def settings(found: Sequence[runs.Run]) -> Table:
    """Settings in which the runs differ; all others are equal."""
    rows = [
        [setting, *(_setting(run, setting) for run in found)] for setting in runs.differing(found)
    ]
    note = '' if rows else 'None: as far as the runs tell, their settings are equal.'
    columns = [Column('setting'), *(Column(run.name) for run in found)]
    return Table('settings', 'Settings in which runs differ', columns, rows, note)


def _setting(run: runs.Run, setting: str) -> str:
    value = run.settings.get(setting, '')
    return ', '.join(map(str, value)) if isinstance(value, tuple) else str(value)


def overall(systems: Sequence[runs.System], benchmark: str) -> Table:
    """The main numbers: intervals over questions, spread over seeds."""
    chosen = _known(systems, benchmark, comparison.MAIN)
    rows = []
    for system in of(systems, benchmark):
        case, cells = comparison.Case(system, benchmark), []
        for measure in chosen:
            found = comparison.interval(case, measure)
            spread = statistics.spread(each(system, benchmark, measure))[1]
            cells.append(found and Value(*found, spread if spread == spread else None))
        rows.append([system.label, *cells])
    note = (
        'In brackets: 95 % bootstrap interval over questions, with all their translations. After '
        '±: standard deviation between seeds, where there are several.'
    )
    return _ranked(name(benchmark, 'overall'), f'{benchmark}: main numbers', chosen, rows, note)


def further(systems: Sequence[runs.System], benchmark: str) -> Table:
    """More metrics, without intervals."""
    chosen = _known(systems, benchmark, comparison.MORE)
    rows = [
        [system.label, *(comparison.Case(system, benchmark).mean(x) for x in chosen)]
        for system in of(systems, benchmark)
    ]
    return _ranked(name(benchmark, 'further'), f'{benchmark}: further metrics', chosen, rows)


def bias(systems: Sequence[runs.System], benchmark: str) -> Table:
    """Every measure of language bias."""
    chosen = _known(systems, benchmark, comparison.BIAS)
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


def _known(systems, benchmark: str, measures) -> list[comparison.Measure]:
    """Measures that the benchmark has."""
    cases = [comparison.Case(system, benchmark) for system in of(systems, benchmark)]
    return [x for x in measures if any(case.mean(x) is not None for case in cases)]


def _ranked(called: str, title: str, chosen, rows, note: str = '') -> Table:
    """Systems down, measures across; the best of every column stands out."""
    columns = [Column('system'), *(Column(x.name, x.form) for x in chosen)]
    table = Table(called, title, columns, rows, note)
    return document.best(
        table,
        [
            ([(i, j) for i in range(len(rows))], measure.highest)
            for j, measure in enumerate(chosen, 1)
            if measure.highest is not None
        ],
    )


def each(system: runs.System, benchmark: str, measure: comparison.Measure) -> list[float]:
    """A number of every run of a system."""
    trees = [saved.numbers['metrics'] for saved in system.saved(benchmark)]
    found = [tree.get(measure.setting, {}).get(measure.metric) for tree in trees]
    return [x for x in found if x is not None]


def tests(systems: Sequence[runs.System], benchmark: str) -> Table:
    """Every two systems on the main numbers."""
    rows = []
    for test in comparison.overall(systems, benchmark):
        form = 'signed distance' if test.what == 'rank distance' else 'signed'
        mean = document.shown(test.difference.mean, form)
        rows.append([f'{test.second} − {test.first}', test.what, mean, *_chances(test)])
    columns = [Column(x) for x in ('systems', 'number')]
    columns += [Column('difference', 'right'), *CHANCES]
    strong = frozenset((i, 2) for i, row in enumerate(rows) if _significant(row[5]))
    note = (
        'Paired tests over questions: randomisation (10,000 flips) and t, two-sided. Holm and '
        'Benjamini-Hochberg correct the first for all tests of this table. Bold: Holm below .05. '
        'Systems of several seeds are compared by the mean of these for every query.'
    )
    title = f'{benchmark}: differences between systems'
    return Table(name(benchmark, 'tests'), title, columns, rows, note, strong)


CHANCES = [
    Column('questions', 'count'),
    Column('p, randomisation', 'p'),
    Column('Holm', 'p'),
    Column('Benjamini-Hochberg', 'p'),
    Column('p, t', 'p'),
]


def _chances(test: comparison.Test) -> list[float]:
    found = test.difference
    return [found.queries, found.randomisation, test.holm, test.hochberg, found.t]


def _significant(p: float) -> bool:
    return p < comparison.LEVEL


def pair_tests(found: Sequence[comparison.Test], benchmark: str, index: int) -> Table:
    """Two systems on every ordered pair of languages."""
    rows = [[test.what, test.difference.mean, *_chances(test)] for test in found]
    strong = frozenset((i, 1) for i, test in enumerate(found) if _significant(test.holm))
    columns = [Column('pair'), Column('difference of mAP', 'signed'), *CHANCES]
    columns[2] = Column('queries', 'count')
    title = f'{benchmark}: {found[0].second} − {found[0].first}, every pair of languages'
    note = f'Corrected for {len(found)} pairs. Bold: Holm below .05.'
    return Table(name(benchmark, f'pair-tests-{index}'), title, columns, rows, note, strong)


def pair_counts(found: Sequence[Sequence[comparison.Test]], benchmark: str) -> Table:
    """On how many pairs of languages a system is better and worse than the first."""
    rows = []
    for tests_ in found:
        for which, kept in (
            ('monolingual', [x for x in tests_ if _mono(x.what)]),
            ('cross-lingual', [x for x in tests_ if not _mono(x.what)]),
        ):
            if kept:
                rows.append([f'{tests_[0].second} − {tests_[0].first}', which, *_counts(kept)])
    columns = [Column('systems'), Column('pairs'), Column('pairs', 'count')]
    columns[1] = Column('setting')
    for how in ('Holm', 'Benjamini-Hochberg'):
        columns += [Column(x, 'count', how) for x in ('better', 'worse')]
    columns.append(Column('mean difference', 'signed'))
    title = f'{benchmark}: pairs of languages with a significant difference of mAP'
    note = 'At .05, by the randomisation test, corrected for the number of all pairs.'
    return Table(name(benchmark, 'pair-counts'), title, columns, rows, note)


def _mono(pair: str) -> bool:
    half = len(pair) // 2
    return pair[:half] == pair[half + 1 :]


def _counts(found: Sequence[comparison.Test]) -> list[int | float]:
    cells = [len(found)]
    for chance in ('holm', 'hochberg'):
        certain = [x.difference.mean for x in found if _significant(getattr(x, chance))]
        cells += [sum(x > 0 for x in certain), sum(x < 0 for x in certain)]
    return [*cells, plain.fmean(x.difference.mean for x in found)]


def pair_numbers(systems: Sequence[runs.System], benchmark: str) -> Table:
    """mAP, recall@1 and recall@10 of every ordered pair of languages."""
    chosen = of(systems, benchmark)
    trees = [system.numbers(benchmark)['pairs'] for system in chosen]
    metrics = (('map', 'mAP'), ('recall@1', 'R@1'), ('recall@10', 'R@10'))
    rows = [
        [pair, int(row['queries'])] + [tree[pair].get(m) for m, _ in metrics for tree in trees]
        for pair, row in trees[0].items()
    ]
    columns = [Column('pair'), Column('queries', 'count')]
    columns += [Column(x.label, 'score', short) for _, short in metrics for x in chosen]
    return Table(name(benchmark, 'pairs'), f'{benchmark}: every pair of languages', columns, rows)


GROUPS = {  # part of the tree -> words for it
    'languages': 'query language',
    'scripts': 'script of the query language',
    'resources': 'resource level of the query language',
}


def groups(systems: Sequence[runs.System], benchmark: str, kind: str) -> Table:
    """Main numbers of every query language, script, or class of resources."""
    chosen = of(systems, benchmark)
    trees = [system.numbers(benchmark) for system in chosen]
    measures = _known(systems, benchmark, comparison.MAIN)
    names = trees[0]['languages']
    kinds = {'languages': str, 'scripts': languages.script, 'resources': languages.resources}
    rows = []
    for group in trees[0][kind]:
        members = [x for x in names if kinds[kind](x) == group]
        head = [group] if kind == 'languages' else [group, ' '.join(members)]
        cells = [
            tree[kind][group].get(x.setting, {}).get(x.metric) for x in measures for tree in trees
        ]
        rows.append(head + cells)
    columns = [Column(kind.removesuffix('s'))] + [Column('languages')] * (kind != 'languages')
    first = len(columns)
    columns += [Column(s.label, x.form, x.name) for x in measures for s in chosen]
    note = SOURCES.get(kind, '')
    table = Table(name(benchmark, kind), f'{benchmark}: by {GROUPS[kind]}', columns, rows, note)
    return document.best(
        table,
        [
            ([(i, first + j * len(chosen) + k) for k in range(len(chosen))], x.highest)
            for i in range(len(rows))
            for j, x in enumerate(measures)
        ],
    )


SOURCES = {
    'scripts': 'Most likely script of a language, by the Unicode CLDR (ISO 15924 codes).',
    'resources': 'Classes of Joshi et al. (ACL 2020): 5 has the most resources, 0 none.',
}


def families(systems: Sequence[runs.System], benchmark: str) -> Table:
    """Cross-lingual numbers of pairs within one script, and of pairs across two."""
    rows = []
    for system in of(systems, benchmark):
        tree = system.numbers(benchmark)['pairs']
        found = comparison.pairs(comparison.Case(system, benchmark))
        cross = [(x, c) for x, c in found if x != c]
        same = [languages.script(x) == languages.script(c) for x, c in cross]
        sides = [
            [
                tree[f'{x}-{c}']['map']
                for (x, c), is_same in zip(cross, same, strict=True)
                if is_same == k
            ]
            for k in (True, False)
        ]
        within, across = (plain.fmean(side) if side else None for side in sides)
        both = within is not None and across is not None
        drop = within - across if both else None
        rows.append([system.label, len(sides[0]), within, len(sides[1]), across, drop])
    columns = [Column('system')]
    for heading in ('same script', 'different scripts'):
        columns += [Column('pairs', 'count', heading), Column('cross mAP', 'score', heading)]
    columns.append(Column('difference', 'signed'))
    title = f'{benchmark}: pairs of one script and of two'
    return Table(name(benchmark, 'script-pairs'), title, columns, rows, SOURCES['scripts'])


def origin(found: Sequence[runs.Run], benchmark: str) -> Table:
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
    columns = [Column('run'), *(Column(x, 'count') for x in counted)]
    columns += [Column(x, 'right', 'longest text') for x in ('query', 'document')]
    columns += [Column(x, 'right', 'texts that long') for x in ('query', 'document')]
    columns += [Column('SHA-256 of the data'), Column('versions')]
    return Table(name(benchmark, 'origin'), f'{benchmark}: origin of the numbers', columns, rows)
