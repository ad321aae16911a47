"""The figures of a report: which numbers go into which kind of picture."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from hbt.evaluation import bias
from hbt.reporting import breakdowns, comparison, experiments, plots, render, scaling, tables

LOGGED = {  # number in metrics.jsonl -> title
    'loss': 'loss',
    'loss/mono': 'loss, monolingual batches',
    'loss/cross': 'loss, cross-lingual batches',
    'accuracy': 'accuracy in the batch',
    'grad_norm': 'norm of the gradient',
    'lr': 'learning rate',
    'pairs_per_second': 'pairs per second',
}
Systems = Sequence[experiments.System]
Measures = Sequence[comparison.Measure]


def main_numbers(systems: Systems, benchmark: str, measures: Measures) -> render.Figure:
    """The main numbers with their intervals."""
    systems, panels = comparison.evaluated_on(systems, benchmark), []
    for measure in measures:
        intervals = [comparison.confidence_interval(x, benchmark, measure) for x in systems]
        if any(intervals):
            panels.append((measure.name, {'': [x and plots.Point(*x) for x in intervals]}))
    drawing = plots.draw_points(panels, [system.label for system in systems])
    note = 'Lines: 95 % bootstrap intervals over questions. Rank distance: lower is fairer.'
    name = tables.file_name(benchmark, 'main')
    return render.Figure(name, f'{benchmark}: main numbers with intervals', drawing, note)


def pair_heatmaps(systems: Systems, benchmark: str, metric: str) -> render.Figure | None:
    """The metric of every pair of languages, one map a system; None: all pairs are monolingual."""
    systems = comparison.evaluated_on(systems, benchmark)
    if not _is_crosslingual(systems[0], benchmark):
        return None
    rows, columns = _sides(systems[-1], benchmark)
    maps = []
    for system in systems:
        tree = system.numbers[benchmark]['pairs']
        values = {pair: row[metric] for pair, row in tree.items()}
        maps.append(plots.HeatMap(system.label, _grid(values, rows, columns)))
    shown = comparison.metric_name(metric)
    drawing = plots.draw_heatmaps(maps, rows, columns, shown)
    title = f'{benchmark}: {shown} of every pair of languages'
    return render.Figure(tables.file_name(benchmark, 'pair-maps'), title, drawing)


def pair_differences(
    tests: Sequence[Sequence[comparison.Test]], systems: Systems, benchmark: str, metric: str
) -> render.Figure | None:
    """Difference to the first system, of every pair; None where all pairs are monolingual."""
    first = comparison.evaluated_on(systems, benchmark)[0]
    if not _is_crosslingual(first, benchmark):
        return None
    rows, columns = _sides(first, benchmark)
    maps = []
    for compared in tests:
        values = _grid({x.subject: x.mean for x in compared}, rows, columns)
        p_values = _grid({x.subject: x.holm for x in compared}, rows, columns)
        title = f'{compared[0].second} − {compared[0].first}'
        maps.append(plots.HeatMap(title, values, p_values < comparison.LEVEL))
    difference = f'difference of {comparison.metric_name(metric)}'
    drawing = plots.draw_heatmaps(maps, rows, columns, difference, signed=True)
    note = (
        'Blue: better than the first system. Framed: significant at .05 by the randomisation test, '
        'corrected by Holm for the number of pairs.'
    )
    title = f'{benchmark}: {difference} to {first.label}'
    return render.Figure(tables.file_name(benchmark, 'differences'), title, drawing, note)


def _is_crosslingual(system: experiments.System, benchmark: str) -> bool:
    return any(x != y for x, y in system.pairs(benchmark))


def _sides(system: experiments.System, benchmark: str) -> tuple[list[str], list[str]]:
    """Languages of queries, and of documents, of the pairs that have queries."""
    pairs = system.pairs(benchmark)
    return list(dict.fromkeys(x for x, _ in pairs)), sorted({y for _, y in pairs})


def _grid(
    values: Mapping[str, float], rows: Sequence[str], columns: Sequence[str]
) -> Float[np.ndarray, 'r c']:
    return np.array([[values.get(f'{x}-{y}', np.nan) for y in columns] for x in rows], float)


def own_language_share(systems: Systems, benchmark: str) -> render.Figure | None:
    """Share of the query's own language in the first k; None where that was not measured."""
    systems, lines = comparison.evaluated_on(systems, benchmark), {}
    for system in systems:
        tree = system.numbers[benchmark]['metrics'].get('multi', {})
        depths = [k for k in bias.SHARE_CUTOFFS if f'own_share@{k}' in tree]
        if depths:
            shares = [100 * tree[f'own_share@{k}'] for k in depths]
            lines[system.label] = plots.Line([float(k) for k in depths], shares)
    if not lines:
        return None
    numbers = systems[0].evaluations(benchmark)[0].numbers
    documents = [numbers['manifest']['documents'].get(x, 0) for x in numbers['languages']]
    fair = 100 * float(np.mean([n / sum(documents) for n in documents]))
    depths = [k for line in lines.values() for k in line.x]
    guide = plots.Line([min(depths), max(depths)], [fair, fair], guide=True)
    lines['share of a language in the corpus'] = guide
    heading = 'documents in the language of the query'
    panel = plots.Curves(heading, lines, 'first k documents', '%', log_x=True)
    note = 'In the union of all corpora, mean over query languages. Above the line: own preferred.'
    name, title = tables.file_name(benchmark, 'own-share'), f'{benchmark}: own-language share'
    return render.Figure(name, title, plots.draw_curves([panel]), note)


def by_group(
    systems: Systems, benchmark: str, breakdown: str, measures: Measures
) -> render.Figure | None:
    """Main numbers of every query language, script or class of resources; None of a single one."""
    name = tables.file_name(benchmark, f'{breakdown}-figure')
    title = f'{benchmark}: by {breakdowns.GROUPS[breakdown]}'
    drawing = _draw_groups(systems, benchmark, breakdown, measures)
    note = breakdowns.SOURCES.get(breakdown, '')
    return drawing and render.Figure(name, title, drawing, note)


def language_bias(systems: Systems, benchmark: str) -> render.Figure | None:
    """Measures of bias of every query language; None where documents are of one language."""
    name = tables.file_name(benchmark, 'bias-figure')
    title = f'{benchmark}: language bias by query language'
    drawing = _draw_groups(systems, benchmark, 'languages', comparison.BIAS)
    return drawing and render.Figure(name, title, drawing)


def _draw_groups(systems: Systems, benchmark: str, breakdown: str, measures: Measures):
    trees = {
        system.label: system.numbers[benchmark][breakdown]
        for system in comparison.evaluated_on(systems, benchmark)
    }
    rows = list(next(iter(trees.values())))
    panels = []
    for measure in measures:
        points = {
            label: [_point(measure.get(tree[row])) for row in rows] for label, tree in trees.items()
        }
        if any(x is not None for column in points.values() for x in column):
            panels.append((measure.name, points))
    return plots.draw_points(panels, rows) if panels and len(rows) > 1 else None


def _point(value: float | None) -> plots.Point | None:
    return None if value is None else plots.Point(value)


def script_families(systems: Systems, benchmark: str, metric: str) -> render.Figure | None:
    """Cross-lingual numbers between families of scripts; None where there is only one."""
    systems = comparison.evaluated_on(systems, benchmark)
    trees = [system.numbers[benchmark]['families'] for system in systems]
    rows, columns = (sorted({pair.split('-')[i] for pair in trees[0]}) for i in (0, 1))
    if len(rows) < 2:
        return None
    maps = []
    for system, tree in zip(systems, trees, strict=True):
        values = {pair: row[metric] for pair, row in tree.items()}
        maps.append(plots.HeatMap(system.label, _grid(values, rows, columns)))
    labels = ('script of the query', 'script of the document')
    shown = f'cross {comparison.metric_name(metric)}'
    drawing = plots.draw_heatmaps(maps, rows, columns, shown, axis_labels=labels)
    note = 'Families of scripts as in The Unicode Standard. Mean over the pairs of two languages.'
    title = f'{benchmark}: {shown} between families of scripts'
    return render.Figure(tables.file_name(benchmark, 'families'), title, drawing, note)


def training_curves(loaded: Sequence[experiments.Experiment]) -> render.Figure | None:
    """What was logged during training; None where nothing was."""
    panels = [_logged_panel(loaded, key, title, 1) for key, title in LOGGED.items()]
    panels = [panel for panel in panels if panel.lines]
    if not panels:
        return None
    drawing = plots.draw_curves(panels, markers=False)
    return render.Figure('training', 'Training', drawing, 'As logged in metrics.jsonl.')


def evaluation_curves(
    loaded: Sequence[experiments.Experiment], measures: Measures
) -> list[render.Figure]:
    """Evaluations during training, for benchmarks with several of them."""
    figures = []
    for benchmark in experiments.list_benchmarks(loaded):
        keys = {f'{benchmark}/{x.setting}.{x.metric}': x.name for x in measures}
        panels = [_logged_panel(loaded, key, title, 2) for key, title in keys.items()]
        panels = [panel for panel in panels if panel.lines]
        if panels:
            name = tables.file_name(benchmark, 'during-training')
            title = f'{benchmark}: evaluations during training'
            figures.append(render.Figure(name, title, plots.draw_curves(panels)))
    return figures


def _logged_panel(
    loaded: Sequence[experiments.Experiment], key: str, title: str, least: int
) -> plots.Curves:
    """A line for every experiment that logged a number so often at least."""
    lines = {}
    for x in loaded:
        points = [(float(line['step']), float(line[key])) for line in x.lines if key in line]
        if len(points) >= least:
            lines[x.name] = plots.Line(*zip(*points, strict=True))
    return plots.Curves(title, lines, 'step')


def scaling_curves(
    loaded: Sequence[experiments.Experiment], axis: str, benchmark: str, measures: Measures
) -> render.Figure | None:
    """Main numbers against a size, with fitted power laws; None where no runs differ in it."""
    size, panels = scaling.AXES[axis], []
    for measure in measures:
        lines = {}
        for curve in scaling.find_curves(loaded, axis):
            points = scaling.curve_points(curve, benchmark, measure)
            if points:
                lines[curve.label] = _scaling_line(points, measure, size.log)
        if lines:
            panels.append(plots.Curves(measure.name, lines, size.name, log_x=size.log))
    if not panels:
        return None
    note = 'Dashed: fitted power law of 1 less the number, or of the rank distance.' * size.log
    name, title = (
        tables.file_name(benchmark, f'scaling-{axis}'),
        f'{benchmark}: against {size.name}',
    )
    return render.Figure(name, title, plots.draw_curves(panels), note)


def _scaling_line(
    points: Sequence[tuple[float, float]], measure: comparison.Measure, log: bool
) -> plots.Line:
    x, y = zip(*points, strict=True)
    fit = scaling.fit_points(points, measure) if log else None
    if fit is None:
        return plots.Line(x, y)
    between = np.geomspace(min(x), max(x), 40)
    curve = np.exp(math.log(fit.scale) + fit.power * np.log(between))
    curve = 1 - curve if measure.sign > 0 else curve
    return plots.Line(x, y, fit=(between.tolist(), curve.tolist()), joined=False)


def domain_shift(shifts: Sequence[scaling.Shift]) -> render.Figure:
    """Each system's numbers in and out of the training domain."""
    systems = list(dict.fromkeys(x.system for x in shifts))
    panels = []
    for measure in dict.fromkeys(x.measure for x in shifts):
        by_system = {x.system: x for x in shifts if x.measure == measure}
        points = {
            name: [_point(getattr(by_system.get(system), field, None)) for system in systems]
            for name, field in (('in domain', 'inside'), ('out of domain', 'outside'))
        }
        panels.append((measure.name, points))
    drawing = plots.draw_points(panels, systems)
    return render.Figure('domain-shift-figure', 'In and out of the training domain', drawing)
