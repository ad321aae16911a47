"""The tables of a report: the runs, their numbers, tests of differences, where numbers are from."""

import statistics
from collections.abc import Mapping, Sequence

import pandas as pd

from hbt.evaluation import results
from hbt.reporting import comparison, experiments, render

Case = comparison.Comparison
Loaded = Sequence[experiments.Experiment]
NAMES = (
    'mono.map mono.recall@1 mono.recall@5 mono.mrr@10 mono.ndcg@10 mono.recall@100 cross.map '
    'cross.recall@1 cross.recall@5 cross.ndcg@10 multi.map multi.recall@5 multi.recall@10 '
    'multi.ndcg@10'
)
FURTHER = tuple(map(comparison.parse_measure, NAMES.split()))
CORRECTIONS = {'holm': 'Holm', 'hochberg': 'Benjamini-Hochberg'}  # field of a test -> its name
SIGNS = {'better': 1, 'worse': -1}
P_VALUES = {'randomisation': 'p, randomisation', **CORRECTIONS, 't': 'p, t'}


def overview(loaded: Loaded, labels: Mapping[str, str]) -> render.Table:
    """What each run is, and what it is called in the report."""
    columns = ['run', 'called', 'sampling', 'seed', 'steps', 'evaluated at', 'benchmarks']
    rows = []
    for x in loaded:
        values = [str(x.settings.get(name, '')) for name in ('seed', 'steps', 'evaluated step')]
        sampling, benchmarks = experiments.sampling_strategy(x), ', '.join(x.results)
        rows.append([x.name, labels[x.name], sampling, *values, benchmarks])
    return render.make_table('runs', 'Runs', dict.fromkeys(columns, 'text'), rows)


def differing_settings(loaded: Loaded, labels: Mapping[str, str]) -> render.Table:
    """Settings in which the runs differ; all others are equal."""
    rows = []
    for name in experiments.differing_settings(loaded):
        values = [x.settings.get(name, '') for x in loaded]
        cells = [', '.join(map(str, x)) if isinstance(x, tuple) else str(x) for x in values]
        rows.append([name, *cells])
    names = [labels[x.name] for x in loaded]
    columns = ['setting' if 'setting' not in names else 'setting:', *names]
    note = '' if rows else 'None: as far as the runs tell, their settings are equal.'
    formats = dict.fromkeys(columns, 'text')
    return render.make_table('settings', 'Settings in which runs differ', formats, rows, note)


def main_numbers(case: Case) -> render.Table:
    """The main numbers: intervals over questions, spread over seeds."""
    rows, parts = [], ('', ' low', ' high', ' spread')  # columns as `render.Table` names them
    for system in case.systems:
        row = {'system': system.label}
        for measure in case.measures:
            interval = comparison.confidence_interval(system, case.benchmark, measure)
            if interval is not None:
                trees = [x.numbers['metrics'] for x in system.evaluations(case.benchmark)]
                seeds = pd.Series([measure.get(tree) for tree in trees], dtype=float)
                names = [measure.name + part for part in parts]
                row |= zip(names, (*interval, seeds.std()), strict=True)
        rows.append(row)
    columns = ['system', *(x.name + part for x in case.measures for part in parts)]
    frame = pd.DataFrame(rows, columns=columns)
    unknown = [x for x in frame if x.endswith(' spread') and frame[x].isna().all()]
    note = (
        'In brackets: 95 % bootstrap interval over questions, with all their translations. After '
        '±: standard deviation between seeds, where there are several.'
    )
    return _rank_systems(case, 'overall', 'main numbers', frame.drop(columns=unknown), note)


def further_metrics(case: Case) -> render.Table:
    """More metrics than those that are compared, without intervals."""
    further = [x for x in FURTHER if x not in case.measures]
    return _measure_table(case, further, 'further', 'further metrics')


def language_bias(case: Case) -> render.Table:
    """Every measure of language bias."""
    note = (
        'Rank distance: last less first rank of the relevant documents of a query, lower is '
        'fairer. PEER: 1 is fair. Rank correlation: between the rankings of translated queries, 1 '
        'is fair. Own language first, own share: how often the first relevant document, and how '
        'much of the first ten, is in the language of the query.'
    )
    return _measure_table(case, comparison.BIAS, 'bias', 'language bias', note)


def _measure_table(case, measures, part: str, title: str, note: str = '') -> render.Table:
    """A system a row, a measure a column."""
    case = comparison.make_comparison(case.systems, case.benchmark, measures)
    trees = case.trees('metrics').items()
    rows = [[label, *(x.get(tree) for x in case.measures)] for label, tree in trees]
    frame = pd.DataFrame(rows, columns=['system', *(x.name for x in case.measures)])
    return _rank_systems(case, part, title, frame, note)


def _rank_systems(case, part: str, title: str, frame: pd.DataFrame, note: str) -> render.Table:
    """A table in which the best system of every measure stands out."""
    formats = {'system': 'text'} | {x.name: x.format for x in case.measures}
    signs = {x.name: x.sign for x in case.measures if x.sign}
    bold = render.best_cells(frame[list(signs)].astype(float) * pd.Series(signs, dtype=float))
    return render.Table(*case.name_part(part, title), frame, formats, note, bold)


def system_tests(case: Case, tests: Sequence[comparison.Test]) -> render.Table:
    """Every two systems on the main numbers."""
    name = case.name_part('tests', 'differences between systems')
    columns = {'systems': 'systems', 'subject': 'number'}
    columns |= {'mean': 'difference', 'queries': 'questions'}
    note = (
        'Paired tests over questions: randomisation (10,000 flips) and t, two-sided. Holm and '
        'Benjamini-Hochberg correct the first for all tests of this table. Bold: Holm below .05; '
        'green: better, red: worse. '
        'Systems of several seeds are compared by the mean of these for every query.'
    )
    return _test_table(name, tests, columns, 'signed number', note)


def verdicts(tests: Mapping[str, Sequence[comparison.Test]]) -> render.Table | None:
    """The difference of every two systems on every measure of a benchmark; None without tests."""
    rows = [
        [benchmark, f'{x.second} − {x.first}', x.subject, x.mean, x.verdict, x.holm]
        for benchmark, group in tests.items()
        for x in group
    ]
    frame = pd.DataFrame(rows, columns=['benchmark', 'systems', 'subject', 'mean', 'tone', 'holm'])
    if frame.empty:
        return None
    keys, measures = frame[['benchmark', 'systems']].drop_duplicates(), frame['subject'].unique()

    def spread(field: str) -> pd.DataFrame:
        wide = frame.pivot(index=[*keys], columns='subject', values=field)
        return wide.reindex(pd.MultiIndex.from_frame(keys)).reindex(columns=measures)

    bold = (spread('holm') < comparison.LEVEL).reset_index(drop=True)
    tone = spread('tone').fillna(0).astype(int).reset_index(drop=True)
    formats = dict.fromkeys(keys, 'text') | dict.fromkeys(measures, 'signed number')
    note = (
        'Bold: significant at .05, by the randomisation test over questions, corrected by Holm '
        'for all tests of a benchmark. Green: better; red: worse. Of a rank distance, less is '
        'better.'
    )
    shown = spread('mean').reset_index()
    return render.Table('verdicts', 'Differences between systems', shown, formats, note, bold, tone)


def pair_tests(case: Case, tests: Sequence[comparison.Test], index: int) -> render.Table:
    """Two systems on every ordered pair of languages."""
    systems = f'{tests[0].second} − {tests[0].first}'
    name = case.name_part(f'pair-tests-{index}', f'{systems}, every pair of languages')
    difference = f'difference of {comparison.metric_name(case.metric)}'
    columns = {'subject': 'pair', 'mean': difference, 'queries': 'queries'}
    note = f'Corrected for {len(tests)} pairs. Bold: Holm below .05; green: better, red: worse.'
    return _test_table(name, tests, columns, 'signed', note)


def _test_table(name: tuple[str, str], tests, columns: dict[str, str], form: str, note: str):
    """A folded table of these fields of tests and their p-values; significant ones stand out."""
    frame = pd.DataFrame(tests, columns=comparison.Test._fields)
    tone = pd.DataFrame({columns['mean']: [x.verdict for x in tests]}, dtype=int)
    frame['systems'] = frame['second'] + ' − ' + frame['first']
    frame = frame.rename(columns=columns | P_VALUES)
    formats = dict.fromkeys(columns.values(), 'text')
    formats |= {columns['mean']: form, columns['queries']: 'count'}
    formats |= dict.fromkeys(P_VALUES.values(), 'p')
    bold = pd.DataFrame({columns['mean']: frame['Holm'] < comparison.LEVEL})
    return render.Table(*name, frame[list(formats)], formats, note, bold, tone, folded=True)


def pair_counts(case: Case, tests: Sequence[Sequence[comparison.Test]]) -> render.Table:
    """On how many pairs of languages a system is better and worse than the first."""
    rows = []
    for compared in tests:
        systems, halves = f'{compared[0].second} − {compared[0].first}', ([], [])
        for test in compared:
            middle = len(test.subject) // 2
            halves[test.subject[:middle] != test.subject[middle + 1 :]].append(test)
        for setting, half in zip(('monolingual', 'cross-lingual'), halves, strict=True):
            if half:
                rows.append([systems, setting, *_count_significant(half)])
    formats = {('', 'systems'): 'text', ('', 'setting'): 'text', ('', 'pairs'): 'count'}
    for method in CORRECTIONS.values():
        formats |= {(method, x): 'count' for x in SIGNS}
    formats['', 'mean difference'] = 'signed'
    metric = comparison.metric_name(case.metric)
    title = f'pairs of languages with a significant difference of {metric}'
    note = 'At .05, by the randomisation test, corrected for the number of all pairs.'
    table = render.make_table(*case.name_part('pair-counts', title), formats, rows, note)
    signs = {(x, word): sign for x in CORRECTIONS.values() for word, sign in SIGNS.items()}
    tone = pd.DataFrame({key: (table.frame[key] > 0) * sign for key, sign in signs.items()})
    return table._replace(tone=tone)


def _count_significant(tests: Sequence[comparison.Test]) -> list[int | float]:
    cells = [len(tests)]
    for method in CORRECTIONS:
        means = [x.mean for x in tests if getattr(x, method) < comparison.LEVEL]
        cells += [sum(x > 0 for x in means), sum(x < 0 for x in means)]
    return [*cells, statistics.fmean(x.mean for x in tests)]


def pair_numbers(case: Case) -> render.Table:
    """The metric, recall@1 and recall@10 of every ordered pair of languages."""
    trees = [*case.trees('pairs').values()]
    metrics = dict.fromkeys((case.metric, 'recall@1', 'recall@10'))
    rows = [
        [pair, int(row['queries'])] + [tree[pair].get(x) for x in metrics for tree in trees]
        for pair, row in trees[0].items()
    ]
    formats = {('', 'pair'): 'text', ('', 'queries'): 'count'}
    for metric in metrics:
        formats |= {(comparison.metric_name(metric), x.label): 'score' for x in case.systems}
    return render.make_table(*case.name_part('pairs', 'every pair of languages'), formats, rows)


def provenance(loaded: Loaded, labels: Mapping[str, str], benchmark: str) -> render.Table:
    """From which data and by which versions the numbers are."""
    rows = []
    for x in loaded:
        if benchmark not in x.results:
            continue
        numbers = x.results[benchmark].numbers
        manifest = numbers['manifest']
        versions = manifest.get('versions', {})
        sizes = [sum(manifest.get(side, {}).values()) for side in ('queries', 'documents')]
        lengths = [str(length) for length in manifest.get('lengths', ['', ''])]
        longest = [f'{count:,}' for count in manifest.get('full', [])] or ['', '']
        content = str(manifest.get('content', ''))[:12]
        software = ' '.join(f'{x} {versions[x]}' for x in ('hbt', 'jax') if x in versions)
        exceptions = [manifest.get(x) for x in ('unanswerable', *results.EXCEPTIONS)]
        head = [labels[x.name], numbers.get('step'), *sizes, *exceptions]
        rows.append([*head, *lengths, *longest, content, software])
    formats = {('', 'run'): 'text'}
    columns = ('step', 'queries', 'documents', 'unanswerable', *results.EXCEPTIONS)
    formats |= {('', x): 'count' for x in columns}
    for heading in ('longest text', 'texts that long'):
        formats |= {(heading, side): 'right' for side in ('query', 'document')}
    formats |= {('', 'SHA-256 of the data'): 'text', ('', 'versions'): 'text'}
    name, title = f'{results.file_stem(benchmark)}-origin', f'{benchmark}: origin of the numbers'
    return render.make_table(name, title, formats, rows)
