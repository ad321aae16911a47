"""The figures of a report.

Hides which numbers of runs go into which kind of picture. Called by `report`.
"""

import math
from collections.abc import Sequence

import numpy as np

from hbt.evaluation import bias
from hbt.reporting import breakdowns, comparison, document, experiments, plots, scaling, tables

LOGGED = (  # line of metrics.jsonl -> title
    ('loss', 'loss'),
    ('loss/mono', 'loss, monolingual batches'),
    ('loss/cross', 'loss, cross-lingual batches'),
    ('accuracy', 'accuracy in the batch'),
    ('grad_norm', 'norm of the gradient'),
    ('lr', 'learning rate'),
    ('pairs_per_second', 'pairs per second'),
)


def main_numbers(
    systems: Sequence[experiments.System], benchmark: str, measures: Sequence[comparison.Measure]
) -> document.Figure:
    """The main numbers with their intervals."""
    chosen = [comparison.Case(x, benchmark) for x in tables.of(systems, benchmark)]
    panels = []
    for measure in measures:
        found = [comparison.interval(case, measure) for case in chosen]
        if any(found):
            panels.append((measure.name, {'': [x and plots.Point(*x) for x in found]}))
    drawing = plots.dots(panels, [case.system.label for case in chosen])
    note = 'Lines: 95 % bootstrap intervals over questions. Rank distance: lower is fairer.'
    called = tables.name(benchmark, 'main')
    return document.Figure(called, f'{benchmark}: main numbers with intervals', drawing, note)


def pair_maps(
    systems: Sequence[experiments.System], benchmark: str, metric: str
) -> document.Figure | None:
    """The metric of every pair of languages, one map a system; None: all pairs are monolingual."""
    grids, names, asked = [], [], []
    for system in tables.of(systems, benchmark):
        case = comparison.Case(system, benchmark)
        asked, names = sides(case)
        tree = system.numbers(benchmark)['pairs']
        values = {pair: row[metric] for pair, row in tree.items()}
        grids.append(plots.Grid(system.label, grid(values, asked, names)))
    if not _across(case):
        return None
    shown = comparison.short(metric)
    drawing = plots.heatmaps(grids, asked, names, shown)
    title = f'{benchmark}: {shown} of every pair of languages'
    return document.Figure(tables.name(benchmark, 'pair-maps'), title, drawing)


def _across(case: comparison.Case) -> bool:
    return any(x != c for x, c in comparison.pairs(case))


def sides(case: comparison.Case) -> tuple[list[str], list[str]]:
    """Languages of queries, and of documents, of the pairs that have queries."""
    found = comparison.pairs(case)
    return list(dict.fromkeys(x for x, _ in found)), sorted({c for _, c in found})


def grid(values: dict[str, float], rows: Sequence[str], columns: Sequence[str]) -> np.ndarray:
    return np.array([[values.get(f'{x}-{c}', np.nan) for c in columns] for x in rows], float)


def differences(
    found: Sequence[Sequence[comparison.Test]],
    systems: Sequence[experiments.System],
    benchmark: str,
    metric: str,
) -> document.Figure | None:
    """Difference to the first system, of every pair; None where all pairs are monolingual."""
    first = tables.of(systems, benchmark)[0]
    if not _across(comparison.Case(first, benchmark)):
        return None
    rows, columns = sides(comparison.Case(first, benchmark))
    grids = []
    for tests in found:
        values = {test.what: test.difference.mean for test in tests}
        chances = {test.what: test.holm for test in tests}
        marked = grid(chances, rows, columns) < comparison.LEVEL
        grids.append(
            plots.Grid(f'{tests[0].second} − {tests[0].first}', grid(values, rows, columns), marked)
        )
    drawing = plots.heatmaps(
        grids, rows, columns, f'difference of {comparison.short(metric)}', signed=True
    )
    note = (
        'Blue: better than the first system. Framed: significant at .05 by the randomisation test, '
        'corrected by Holm for the number of pairs.'
    )
    title = f'{benchmark}: difference of {comparison.short(metric)} to {first.label}'
    return document.Figure(tables.name(benchmark, 'differences'), title, drawing, note)


def own_share(systems: Sequence[experiments.System], benchmark: str) -> document.Figure | None:
    """Share of the query's own language in the first k; None where that was not measured."""
    lines = {}
    for system in tables.of(systems, benchmark):
        tree = system.numbers(benchmark)['metrics'].get('multi', {})
        at = [float(k) for k in bias.SHARE_CUTOFFS if f'own_share@{k}' in tree]
        if at:
            lines[system.label] = plots.Line(at, [100 * tree[f'own_share@{k:g}'] for k in at])
    if not lines:
        return None
    documents = systems_documents(systems, benchmark)
    fair = 100 * float(np.mean([n / sum(documents.values()) for n in documents.values()]))
    at = [k for line in lines.values() for k in line.x]
    chance = 'share of a language in the corpus'
    lines[chance] = plots.Line([min(at), max(at)], [fair, fair], guide=True)
    axes = plots.Axes('documents in the language of the query', 'first k documents', '%', 'x')
    drawing = plots.curves([(axes, lines)])
    note = 'In the union of all corpora, mean over query languages. Above the line: own preferred.'
    title = f'{benchmark}: own-language share'
    return document.Figure(tables.name(benchmark, 'own-share'), title, drawing, note)


def systems_documents(systems: Sequence[experiments.System], benchmark: str) -> dict[str, int]:
    """Documents of every query language, from the manifest."""
    saved = tables.of(systems, benchmark)[0].saved(benchmark)[0]
    manifest = saved.numbers['manifest']
    return {x: manifest['documents'].get(x, 0) for x in saved.numbers['languages']}


def by_group(
    systems: Sequence[experiments.System],
    benchmark: str,
    kind: str,
    measures: Sequence[comparison.Measure],
) -> document.Figure | None:
    """Main numbers of every query language, script or class of resources; None of a single one."""
    title = f'{benchmark}: by {breakdowns.GROUPS[kind]}'
    drawing = _grouped(systems, benchmark, kind, measures)
    note = breakdowns.SOURCES.get(kind, '')
    return drawing and document.Figure(
        tables.name(benchmark, f'{kind}-figure'), title, drawing, note
    )


def bias_by_language(
    systems: Sequence[experiments.System], benchmark: str
) -> document.Figure | None:
    """Measures of bias of every query language; None where documents are of one language."""
    drawing = _grouped(systems, benchmark, 'languages', comparison.BIAS)
    title = f'{benchmark}: language bias by query language'
    return drawing and document.Figure(tables.name(benchmark, 'bias-figure'), title, drawing)


def _grouped(systems, benchmark: str, kind: str, chosen: Sequence[comparison.Measure]):
    called = tables.of(systems, benchmark)
    trees = {system.label: system.numbers(benchmark)[kind] for system in called}
    rows = list(next(iter(trees.values())))
    panels = []
    for measure in chosen:
        found = {
            label: [_point(tree[row].get(measure.setting, {}).get(measure.metric)) for row in rows]
            for label, tree in trees.items()
        }
        if any(x is not None for points in found.values() for x in points):
            panels.append((measure.name, found))
    return plots.dots(panels, rows) if panels and len(rows) > 1 else None


def _point(value: float | None) -> plots.Point | None:
    return None if value is None else plots.Point(value)


def families(
    systems: Sequence[experiments.System], benchmark: str, metric: str
) -> document.Figure | None:
    """Cross-lingual numbers between families of scripts; None where there is only one."""
    called = tables.of(systems, benchmark)
    trees = [system.numbers(benchmark)['families'] for system in called]
    rows = sorted({pair.split('-')[0] for pair in trees[0]})
    columns = sorted({pair.split('-')[1] for pair in trees[0]})
    if len(rows) < 2:
        return None
    grids = [
        plots.Grid(system.label, grid({k: row[metric] for k, row in tree.items()}, rows, columns))
        for system, tree in zip(called, trees, strict=True)
    ]
    axes = ('script of the query', 'script of the document')
    shown = f'cross {comparison.short(metric)}'
    drawing = plots.heatmaps(grids, rows, columns, shown, axes=axes)
    note = 'Families of scripts as in The Unicode Standard. Mean over the pairs of two languages.'
    title = f'{benchmark}: {shown} between families of scripts'
    return document.Figure(tables.name(benchmark, 'families'), title, drawing, note)


def training(found: Sequence[experiments.Run]) -> document.Figure | None:
    """What the runs logged while they trained; None where they logged nothing."""
    panels = []
    for name, title in LOGGED:
        lines = {run.name: _line(run, name) for run in found}
        lines = {label: line for label, line in lines.items() if line.x}
        if lines:
            panels.append((plots.Axes(title, 'step'), lines))
    if not panels:
        return None
    drawing = plots.curves(panels, marks=False)
    return document.Figure('training', 'Training', drawing, 'As logged in metrics.jsonl.')


def evaluations(
    found: Sequence[experiments.Run], measures: Sequence[comparison.Measure]
) -> list[document.Figure]:
    """Evaluations during training, for benchmarks with several of them."""
    figures = []
    for benchmark in experiments.benchmarks(found):
        panels = []
        for measure in measures:
            key = f'{benchmark}/{measure.setting}.{measure.metric}'
            lines = {run.name: _line(run, key) for run in found}
            lines = {label: line for label, line in lines.items() if len(line.x) > 1}
            if lines:
                panels.append((plots.Axes(measure.name, 'step'), lines))
        if panels:
            title = f'{benchmark}: evaluations during training'
            called = tables.name(benchmark, 'during-training')
            figures.append(document.Figure(called, title, plots.curves(panels)))
    return figures


def _line(run: experiments.Run, name: str) -> plots.Line:
    at = [(line['step'], line[name]) for line in run.lines if name in line]
    return plots.Line([float(x) for x, _ in at], [float(y) for _, y in at])


def scaling_curves(
    found: Sequence[experiments.Run],
    axis: str,
    benchmark: str,
    measures: Sequence[comparison.Measure],
) -> document.Figure | None:
    """Main numbers against a size, with fitted power laws; None where no runs differ in it."""
    panels = []
    for measure in measures:
        lines = {}
        for curve in scaling.curves(found, axis):
            at = scaling.points(curve, benchmark, measure)
            if at:
                lines[curve.label] = _scaled(at, measure, axis)
        if lines:
            scale = 'x' if scaling.AXES[axis].log else ''
            panels.append((plots.Axes(measure.name, scaling.AXES[axis].name, log=scale), lines))
    if not panels:
        return None
    note = (
        'Dashed: fitted power law of 1 less the number, or of the rank distance.' if scale else ''
    )
    title = f'{benchmark}: against {scaling.AXES[axis].name}'
    called = tables.name(benchmark, f'scaling-{axis}')
    return document.Figure(called, title, plots.curves(panels), note)


def _scaled(at: Sequence[tuple], measure: comparison.Measure, axis: str) -> plots.Line:
    x, y = ([point[i] for point in at] for i in (0, 1))
    law = scaling.law(at, measure) if scaling.AXES[axis].log else None
    if law is None:
        return plots.Line(x, y)
    between = np.geomspace(min(x), max(x), 40)
    curve = np.exp(math.log(law.scale) + law.power * np.log(between))
    curve = 1 - curve if measure.highest else curve
    return plots.Line(x, y, fit=(between.tolist(), curve.tolist()), joined=False)


def domain_shift(found: Sequence[scaling.Shift]) -> document.Figure:
    """Each system's mAP in and out of the training domain."""
    systems = list(dict.fromkeys(x.system for x in found))
    panels = []
    for measure in dict.fromkeys(x.measure for x in found):
        at = {x.system: x for x in found if x.measure == measure}
        points = {
            'in domain': [_point(at[s].inside) if s in at else None for s in systems],
            'out of domain': [_point(at[s].outside) if s in at else None for s in systems],
        }
        panels.append((measure.name, points))
    return document.Figure(
        'domain-shift-figure', 'In and out of the training domain', plots.dots(panels, systems)
    )
