"""The tables of a report: the runs, their numbers, tests of differences, where numbers are from."""

import statistics
from collections.abc import Sequence

import pandas as pd

from hbt.evaluation import results
from hbt.reporting import comparison, experiments, render

FURTHER = tuple(
    comparison.parse_measure(text)
    for text in (
        *('mono.map', 'mono.recall@1', 'mono.recall@5', 'mono.mrr@10', 'mono.ndcg@10'),
        *('mono.recall@100', 'cross.map', 'cross.recall@1', 'cross.recall@5', 'cross.ndcg@10'),
        *('multi.map', 'multi.recall@5', 'multi.recall@10', 'multi.ndcg@10'),
    )
)
P_VALUES = {  # field of a test -> its name in tables
    'randomisation': 'p, randomisation',
    'holm': 'Holm',
    'hochberg': 'Benjamini-Hochberg',
    't': 'p, t',
}


def file_name(benchmark: str, part: str) -> str:
    """Of the files of a table or figure."""
    return f'{results.file_stem(benchmark)}-{part}'


def overview(
    loaded: Sequence[experiments.Experiment], systems: Sequence[experiments.System]
) -> render.Table:
    """What each run is, and what it is called in the report."""
    labels = {x.name: system.label for system in systems for x in system.experiments}
    columns = ['run', 'called', 'sampling', 'seed', 'steps', 'evaluated at', 'benchmarks']
    rows = [
        [
            *(x.name, labels[x.name], experiments.sampling_strategy(x)),
            *(str(x.settings.get(name, '')) for name in ('seed', 'steps', 'evaluated step')),
            ', '.join(x.results),
        ]
        for x in loaded
    ]
    return render.make_table('runs', 'Runs', dict.fromkeys(columns, 'text'), rows)


def settings(loaded: Sequence[experiments.Experiment]) -> render.Table:
    """Settings in which the runs differ; all others are equal."""
    rows = [
        [name, *(_setting_text(x.settings.get(name, '')) for x in loaded)]
        for name in experiments.differing_settings(loaded)
    ]
    names = [x.name for x in loaded]
    columns = ['setting' if 'setting' not in names else 'setting:', *names]
    note = '' if rows else 'None: as far as the runs tell, their settings are equal.'
    formats = dict.fromkeys(columns, 'text')
    return render.make_table('settings', 'Settings in which runs differ', formats, rows, note)


def _setting_text(value: object) -> str:
    return ', '.join(map(str, value)) if isinstance(value, tuple) else str(value)


def main_numbers(
    systems: Sequence[experiments.System],
    benchmark: str,
    measures: Sequence[comparison.Measure],
) -> render.Table:
    """The main numbers: intervals over questions, spread over seeds."""
    rows = []
    for system in comparison.evaluated_on(systems, benchmark):
        row = {'system': system.label}
        for measure in measures:
            interval = comparison.confidence_interval(system, benchmark, measure)
            if interval is not None:
                trees = [x.numbers['metrics'] for x in system.evaluations(benchmark)]
                seeds = pd.Series([measure.get(tree) for tree in trees], dtype=float)
                row |= zip(_bounded(measure), (*interval, seeds.std()), strict=True)
        rows.append(row)
    frame = pd.DataFrame(rows, columns=['system', *(x for m in measures for x in _bounded(m))])
    unknown = [x for x in frame if x.endswith(' spread') and frame[x].isna().all()]
    note = (
        'In brackets: 95 % bootstrap interval over questions, with all their translations. After '
        '±: standard deviation between seeds, where there are several.'
    )
    name, title = file_name(benchmark, 'overall'), f'{benchmark}: main numbers'
    return _ranked(name, title, measures, frame.drop(columns=unknown), note)


def _bounded(measure: comparison.Measure) -> list[str]:
    """The columns of a number with its bounds, as `render.Table` names them."""
    return [measure.name, *(f'{measure.name} {x}' for x in ('low', 'high', 'spread'))]


def further_metrics(
    systems: Sequence[experiments.System],
    benchmark: str,
    measures: Sequence[comparison.Measure],
) -> render.Table:
    """More metrics, without intervals; `measures` are those that there are elsewhere."""
    further = [x for x in FURTHER if x not in measures]
    return _measures(systems, benchmark, further, 'further', 'further metrics')


def language_bias(systems: Sequence[experiments.System], benchmark: str) -> render.Table:
    """Every measure of language bias."""
    note = (
        'Rank distance: last less first rank of the relevant documents of a query, lower is '
        'fairer. PEER: 1 is fair. Rank correlation: between the rankings of translated queries, 1 '
        'is fair. Own language first, own share: how often the first relevant document, and how '
        'much of the first ten, is in the language of the query.'
    )
    return _measures(systems, benchmark, comparison.BIAS, 'bias', 'language bias', note)


def _measures(systems, benchmark: str, measures, part: str, title: str, note: str = ''):
    """A system a row, a measure a column."""
    measures = comparison.available_measures(systems, benchmark, measures)
    rows = [
        [system.label, *(x.get(system.numbers[benchmark]['metrics']) for x in measures)]
        for system in comparison.evaluated_on(systems, benchmark)
    ]
    frame = pd.DataFrame(rows, columns=['system', *(x.name for x in measures)])
    return _ranked(file_name(benchmark, part), f'{benchmark}: {title}', measures, frame, note)


def _ranked(name: str, title: str, measures, frame: pd.DataFrame, note: str) -> render.Table:
    """A table in which the best system of every measure stands out."""
    formats = {'system': 'text'} | {x.name: x.format for x in measures}
    signs = {x.name: x.sign for x in measures if x.sign}
    bold = render.best_cells(frame[list(signs)].astype(float) * pd.Series(signs, dtype=float))
    return render.Table(name, title, frame, formats, note, bold)


def system_tests(
    systems: Sequence[experiments.System],
    benchmark: str,
    measures: Sequence[comparison.Measure],
) -> render.Table:
    """Every two systems on the main numbers."""
    tests = comparison.compare_systems(systems, benchmark, measures)
    name, title = file_name(benchmark, 'tests'), f'{benchmark}: differences between systems'
    columns = {'systems': 'systems', 'subject': 'number'}
    columns |= {'mean': 'difference', 'queries': 'questions'}
    note = (
        'Paired tests over questions: randomisation (10,000 flips) and t, two-sided. Holm and '
        'Benjamini-Hochberg correct the first for all tests of this table. Bold: Holm below .05. '
        'Systems of several seeds are compared by the mean of these for every query.'
    )
    return _tests(name, title, tests, columns, 'signed number', note)


def pair_tests(
    tests: Sequence[comparison.Test], benchmark: str, index: int, metric: str
) -> render.Table:
    """Two systems on every ordered pair of languages."""
    name = file_name(benchmark, f'pair-tests-{index}')
    title = f'{benchmark}: {tests[0].second} − {tests[0].first}, every pair of languages'
    difference = f'difference of {comparison.metric_name(metric)}'
    columns = {'subject': 'pair', 'mean': difference, 'queries': 'queries'}
    note = f'Corrected for {len(tests)} pairs. Bold: Holm below .05.'
    return _tests(name, title, tests, columns, 'signed', note)


def _tests(name: str, title: str, tests, columns: dict[str, str], form: str, note: str):
    """A table of these fields of tests and their p-values; significant differences stand out."""
    frame = pd.DataFrame(tests, columns=comparison.Test._fields)
    frame['systems'] = frame['second'] + ' − ' + frame['first']
    frame = frame.rename(columns=columns | P_VALUES)
    formats = dict.fromkeys(columns.values(), 'text')
    formats |= {columns['mean']: form, columns['queries']: 'count'}
    formats |= dict.fromkeys(P_VALUES.values(), 'p')
    bold = pd.DataFrame({columns['mean']: frame['Holm'] < comparison.LEVEL})
    return render.Table(name, title, frame[list(formats)], formats, note, bold)


def pair_counts(
    tests: Sequence[Sequence[comparison.Test]], benchmark: str, metric: str
) -> render.Table:
    """On how many pairs of languages a system is better and worse than the first."""
    rows = []
    for compared in tests:
        for setting in ('monolingual', 'cross-lingual'):
            is_mono = setting == 'monolingual'
            selected = [x for x in compared if _is_monolingual(x.subject) == is_mono]
            if selected:
                systems = f'{compared[0].second} − {compared[0].first}'
                rows.append([systems, setting, *_count_significant(selected)])
    formats = {('', 'systems'): 'text', ('', 'setting'): 'text', ('', 'pairs'): 'count'}
    for method in ('Holm', 'Benjamini-Hochberg'):
        formats |= {(method, x): 'count' for x in ('better', 'worse')}
    formats['', 'mean difference'] = 'signed'
    metric = comparison.metric_name(metric)
    title = f'{benchmark}: pairs of languages with a significant difference of {metric}'
    note = 'At .05, by the randomisation test, corrected for the number of all pairs.'
    return render.make_table(file_name(benchmark, 'pair-counts'), title, formats, rows, note)


def _is_monolingual(pair: str) -> bool:
    half = len(pair) // 2
    return pair[:half] == pair[half + 1 :]


def _count_significant(tests: Sequence[comparison.Test]) -> list[int | float]:
    cells = [len(tests)]
    for method in ('holm', 'hochberg'):
        means = [x.mean for x in tests if getattr(x, method) < comparison.LEVEL]
        cells += [sum(x > 0 for x in means), sum(x < 0 for x in means)]
    return [*cells, statistics.fmean(x.mean for x in tests)]


def pair_numbers(
    systems: Sequence[experiments.System], benchmark: str, metric: str
) -> render.Table:
    """The metric, recall@1 and recall@10 of every ordered pair of languages."""
    systems = comparison.evaluated_on(systems, benchmark)
    trees = [system.numbers[benchmark]['pairs'] for system in systems]
    metrics = dict.fromkeys((metric, 'recall@1', 'recall@10'))
    rows = [
        [pair, int(row['queries'])] + [tree[pair].get(x) for x in metrics for tree in trees]
        for pair, row in trees[0].items()
    ]
    formats = {('', 'pair'): 'text', ('', 'queries'): 'count'}
    formats |= {(comparison.metric_name(x), s.label): 'score' for x in metrics for s in systems}
    title = f'{benchmark}: every pair of languages'
    return render.make_table(file_name(benchmark, 'pairs'), title, formats, rows)


def provenance(loaded: Sequence[experiments.Experiment], benchmark: str) -> render.Table:
    """From which data and by which versions the numbers are."""
    rows = []
    for x in loaded:
        if benchmark not in x.results:
            continue
        numbers = x.results[benchmark].numbers
        manifest = numbers['manifest']
        versions = manifest.get('versions', {})
        longest = [f'{count:,}' for count in manifest.get('full', [])]
        rows.append(
            [
                *(x.name, numbers.get('step')),
                *(sum(manifest.get(side, {}).values()) for side in ('queries', 'documents')),
                manifest.get('unanswerable'),
                *(str(length) for length in manifest.get('lengths', ['', ''])),
                *(longest or ['', '']),
                str(manifest.get('content', ''))[:12],
                ' '.join(f'{name} {versions[name]}' for name in ('hbt', 'jax') if name in versions),
            ]
        )
    formats = {('', 'run'): 'text'}
    formats |= {('', x): 'count' for x in ('step', 'queries', 'documents', 'unanswerable')}
    for heading in ('longest text', 'texts that long'):
        formats |= {(heading, side): 'right' for side in ('query', 'document')}
    formats |= {('', 'SHA-256 of the data'): 'text', ('', 'versions'): 'text'}
    title = f'{benchmark}: origin of the numbers'
    return render.make_table(file_name(benchmark, 'origin'), title, formats, rows)
