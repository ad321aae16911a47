"""Our numbers beside those of arXiv 2408.10536: its Tables 1 to 8, 12 and 13 (`paper.csv`)."""

import statistics
from collections.abc import Sequence
from importlib import resources

import pandas as pd

from hbt.reporting import comparison, experiments, render

NAMES = {'xquad_r': 'XQuAD-R', 'mlqa_r': 'MLQA-R'}


def load_paper() -> pd.DataFrame:
    """The published numbers in their order; only the headings of Tables 1 and 2 are models."""
    with resources.files('hbt.reporting').joinpath('paper.csv').open() as file:
        numbers = pd.read_csv(file, keep_default_na=False, dtype={'value': str})
    return numbers.astype({'value': float})  # of Python: to the last bit in all versions of pandas


def overall_tables(systems: Sequence[experiments.System]) -> list[render.Table]:
    """The paper's Tables 1 and 2, and the same numbers of ours; none without a benchmark."""
    paper = load_paper()
    ours = {name: _numbers(systems, name) for name in NAMES}
    labels = list(dict.fromkeys(label for numbers in ours.values() for label in numbers))
    if not labels:
        return []
    tables = []
    for number, form in ((1, 'thousandths'), (2, 'whole')):
        part = paper[paper.table == number]
        models = part.groupby(['heading', 'sampling'], sort=False)
        rows = [[f'paper: {" ".join(names)}', *x.value] for names, x in models]
        columns = part[['benchmark', 'setting', 'metric']].drop_duplicates().values.tolist()
        for label in labels:
            trees = {name: x[label]['metrics'] for name, x in ours.items() if label in x}
            cells = [
                comparison.Measure(setting, metric, '').get(trees.get(name, {}))
                for name, setting, metric in columns
            ]
            rows.append([label, *cells])
        formats = {('', 'system'): 'text'} if number == 1 else {'system': 'text'}
        for name, setting, _ in columns:
            formats[(NAMES[name], setting) if number == 1 else NAMES[name]] = form
        title = f'Table {number} of the paper: {part.title.iloc[0]}'
        tables.append(render.make_table(f'paper-{number}', title, formats, rows))
    return tables


def language_tables(systems: Sequence[experiments.System]) -> list[render.Table]:
    """The paper's Tables 3 to 8, 12 and 13, and ours beside, for benchmarks that we have."""
    paper, tables = load_paper(), []
    for (number, title), part in paper[paper.table > 2].groupby(['table', 'title'], sort=False):
        ours = _numbers(systems, part.benchmark.iloc[0])
        if ours:
            tables.append(_language_table(number, title, part, ours))
    return tables


def _numbers(systems: Sequence[experiments.System], benchmark: str) -> dict[str, dict]:
    """Label -> numbers of the paper's benchmark, whatever its languages (`miracl:sw+yo`)."""
    numbers = {}
    for system in systems:
        names = [x for x in system.numbers if x.partition(':')[0] == benchmark]
        for name in names:
            label = system.label if len(names) == 1 else f'{system.label}, {name}'
            numbers[label] = system.numbers[name]
    return numbers


def _language_table(number: int, title: str, part: pd.DataFrame, ours: dict) -> render.Table:
    """The published numbers of query languages, three samplings each, and ours."""
    languages = part.language.unique().tolist()
    columns, formats = {('', 'query language'): languages}, {('', 'query language'): 'text'}
    groups = dict(list(part.groupby(['heading', 'setting', 'metric'], sort=False)))
    measures = {(setting, metric): heading for heading, setting, metric in groups}  # the last one
    for (heading, setting, metric), group in groups.items():
        form = 'distance' if metric == 'rank_distance' else 'score'
        for sampling, numbers in group.groupby('sampling', sort=False):
            columns[f'{heading}, paper', sampling] = numbers.value.tolist()
            formats[f'{heading}, paper', sampling] = form
        if measures[setting, metric] != heading:
            continue
        own = f'{heading}, ours' if form == 'score' else 'ours'
        measure = comparison.Measure(setting, metric, '')
        for label, numbers in ours.items():
            cells = [measure.get(numbers['languages'].get(x, {})) for x in languages if x != 'Mean']
            cells.append(None if None in cells else statistics.fmean(cells))
            columns[own, label], formats[own, label] = cells, form
    name = f'paper-{number}' + '-recall' * title.endswith('recall')
    note = 'Our mean is over the same languages, and empty where one of them is missing.'
    title = f'Table {number} of the paper: {title}'
    return render.Table(name, title, pd.DataFrame(columns), formats, note)
