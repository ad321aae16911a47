"""The figures of a report: which numbers go into which kind of picture."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from hbt.evaluation import plots, result_plots
from hbt.reporting import breakdowns, comparison, embedding_space, experiments, render, scaling

Case = comparison.Comparison
Loaded = Sequence[experiments.Experiment]
Labels = Mapping[str, str]  # name of an experiment -> what the report calls it
LINKED = 3  # questions whose translations are joined on the map
LOGGED = {  # number in metrics.jsonl -> title
    'loss': 'loss',
    'loss/mono': 'loss, monolingual batches',
    'loss/cross': 'loss, cross-lingual batches',
    'validation/loss': 'loss, validation',
    'accuracy': 'accuracy in the batch',
    'grad_norm': 'norm of the gradient',
    'lr': 'learning rate',
    'pairs_per_second': 'pairs per second',
}


def main_numbers(case: Case, table: render.Table) -> render.Figure:
    """The numbers of `tables.main_numbers` with their intervals."""
    panels = []
    for name in (measure.name for measure in case.measures):
        rows = table.frame[[name, f'{name} low', f'{name} high']].to_numpy(float).tolist()
        points = [None if math.isnan(row[0]) else plots.Point(*row) for row in rows]
        if any(points):
            panels.append((name, {'': points}))
    drawing = plots.draw_points(panels, [system.label for system in case.systems])
    note = 'Lines: 95 % bootstrap intervals over questions. Rank distance: lower is fairer.'
    return render.Figure(*case.name_part('main', 'main numbers with intervals'), drawing, note)


def pair_heatmaps(case: Case) -> render.Figure:
    """The metric of every pair of languages, one map a system."""
    metric = comparison.metric_name(case.metric)
    pairs = case.systems[0].pairs(case.benchmark)
    drawing = result_plots.draw_pairs(case.trees('pairs'), pairs, case.metric, metric)
    name = case.name_part('pair-maps', f'{metric} of every pair of languages')
    return render.Figure(*name, drawing)


def pair_differences(case: Case, tests: Sequence[Sequence[comparison.Test]]) -> render.Figure:
    """Difference to the first system, of every pair."""
    rows, columns = result_plots.pair_sides(case.systems[0].pairs(case.benchmark))
    maps = []
    for pairs in tests:
        values = result_plots.make_grid({x.subject: x.mean for x in pairs}, rows, columns)
        p_values = result_plots.make_grid({x.subject: x.holm for x in pairs}, rows, columns)
        title = f'{pairs[0].second} − {pairs[0].first}'
        maps.append(plots.HeatMap(title, values, p_values < comparison.LEVEL))
    difference = f'difference of {comparison.metric_name(case.metric)}'
    drawing = plots.draw_heatmaps(maps, rows, columns, difference, signed=True)
    note = (
        'Green: better than the first system; pink: worse. Framed: significant at .05 by the '
        'randomisation test, corrected by Holm for the number of pairs.'
    )
    name = case.name_part('differences', f'{difference} to {case.systems[0].label}')
    return render.Figure(*name, drawing, note)


def own_language_share(case: Case) -> render.Figure | None:
    """Share of the query's own language in the first k; None where that was not measured."""
    numbers = case.systems[0].evaluations(case.benchmark)[0].numbers
    drawing = result_plots.draw_own_share(case.trees('metrics'), numbers)
    if drawing is None:
        return None
    note = 'In the union of all corpora, mean over query languages. Above the line: own preferred.'
    return render.Figure(*case.name_part('own-share', 'own-language share'), drawing, note)


def by_group(case: Case, breakdown: str) -> render.Figure | None:
    """Main numbers of every query language, script or class of resources; None of a single one."""
    drawing = _draw_groups(case, breakdown, case.measures)
    name = case.name_part(f'{breakdown}-figure', f'by {breakdowns.GROUPS[breakdown]}')
    return drawing and render.Figure(*name, drawing, breakdowns.SOURCES.get(breakdown, ''))


def language_bias(case: Case) -> render.Figure | None:
    """Measures of bias of every query language; None where documents are of one language."""
    drawing = _draw_groups(case, 'languages', comparison.BIAS)
    name = case.name_part('bias-figure', 'language bias by query language')
    return drawing and render.Figure(*name, drawing)


def _draw_groups(case: Case, breakdown: str, measures):
    trees, panels = case.trees(breakdown), []
    rows = [*trees[case.systems[0].label]]
    for measure in measures:
        points = {}
        for label, tree in trees.items():
            values = [measure.get(tree[row]) for row in rows]
            points[label] = [None if x is None else plots.Point(x) for x in values]
        if any(x is not None for column in points.values() for x in column):
            panels.append((measure.name, points))
    return plots.draw_points(panels, rows) if panels and len(rows) > 1 else None


def script_families(case: Case) -> render.Figure | None:
    """Cross-lingual numbers between families of scripts; None where there is only one."""
    pairs = [pair.split('-') for pair in case.systems[0].numbers[case.benchmark]['families']]
    rows, columns = (sorted({pair[i] for pair in pairs}) for i in (0, 1))
    if len(rows) < 2:
        return None
    maps = result_plots.make_heatmaps(case.trees('families'), case.metric, rows, columns)
    labels = ('script of the query', 'script of the document')
    metric = f'cross {comparison.metric_name(case.metric)}'
    drawing = plots.draw_heatmaps(maps, rows, columns, metric, axis_labels=labels)
    note = 'Families of scripts as in The Unicode Standard. Mean over the pairs of two languages.'
    name = case.name_part('families', f'{metric} between families of scripts')
    return render.Figure(*name, drawing, note)


def embedding_map(case: Case, views: Sequence[embedding_space.View]) -> render.Figure:
    """Questions and answers on a plane, by language, before and after training."""
    clouds = []
    for view in views:
        groups = view.sample.groups
        linked = dict.fromkeys(groups[view.sample.translated].tolist())
        shares = f'language explains {100 * view.language:.1f} %'
        if view.question is not None:
            shares += f', question {100 * view.question:.1f} %'
        cloud = plots.Cloud(
            f'{view.system}, {view.when}\n{shares}',
            f'{100 * view.shown:.0f} % of the variance is on this plane',
            view.points,
            view.sample.languages,
            np.where(view.sample.is_document, 'answer', 'question').tolist(),
            [np.flatnonzero(groups == x).tolist() for x in [*linked][:LINKED]],
        )
        clouds.append(cloud)
    name = case.name_part('embedding-map', 'map of the embedding space')
    note = (
        'The same questions and their answers in every language. Each panel has the first two '
        'principal components of its own embeddings. Languages that lie apart are language bias: a '
        'text is near others of its language, whatever they mean. Lines join the translations of a '
        f'question, for {LINKED} of the questions.'
    )
    return render.Figure(*name, plots.draw_clouds(clouds), note)


def training_curves(loaded: Loaded, labels: Labels) -> render.Figure | None:
    """What was logged during training; None where nothing was."""
    panels = _logged_panels(loaded, labels, LOGGED, 1)
    if not panels:
        return None
    drawing = plots.draw_curves(panels, markers=False)
    return render.Figure('training', 'Training', drawing, 'As logged in metrics.jsonl.')


def evaluation_curves(case: Case, loaded: Loaded, labels: Labels) -> render.Figure | None:
    """Evaluations during training; None where there was one at most."""
    keys = {f'{case.benchmark}/{x.setting}.{x.metric}': x.name for x in case.measures}
    panels = _logged_panels(loaded, labels, keys, 2)
    name = case.name_part('during-training', 'evaluations during training')
    return render.Figure(*name, plots.draw_curves(panels)) if panels else None


def _logged_panels(loaded, labels: Labels, titles: Mapping[str, str], least: int):
    """The logged numbers, with a line for every experiment that logged it so often at least."""
    panels = []
    for key, title in titles.items():
        lines = {}
        for x in loaded:
            points = [(float(line['step']), float(line[key])) for line in x.lines if key in line]
            if len(points) >= least:
                lines[labels[x.name]] = plots.Line(*zip(*points, strict=True))
        if lines:
            panels.append(plots.Curves(title, lines, 'step'))
    return panels


def scaling_curves(case: Case, loaded: Loaded, axis: str) -> render.Figure | None:
    """Main numbers against a size, with fitted power laws; None where no runs differ in it."""
    size, curves, panels = scaling.AXES[axis], scaling.find_curves(loaded, axis), []
    for measure in case.measures:
        points = {x.label: scaling.curve_points(x, case.benchmark, measure) for x in curves}
        lines = {x: _scaling_line(y, measure, size.log) for x, y in points.items() if y}
        if lines:
            panels.append(plots.Curves(measure.name, lines, size.name, log_x=size.log))
    if not panels:
        return None
    note = 'Dashed: fitted power law of 1 less the number, or of the rank distance.' * size.log
    name = case.name_part(f'scaling-{axis}', f'against {size.name}')
    return render.Figure(*name, plots.draw_curves(panels), note)


def _scaling_line(points, measure: comparison.Measure, log: bool) -> plots.Line:
    x, y = zip(*points, strict=True)
    fit = scaling.fit_points(points, measure) if log else None
    if fit is None:
        return plots.Line(x, y)
    between = np.geomspace(min(x), max(x), 40)
    curve = np.exp(math.log(fit.scale) + fit.power * np.log(between))
    curve = 1 - curve if measure.sign > 0 else curve
    return plots.Line(x, y, fit=(between.tolist(), curve.tolist()))


def domain_shift(table: render.Table) -> render.Figure:
    """The numbers of `scaling.domain_shift_table`."""
    systems = table.frame['system'].unique().tolist()
    panels = []
    for number, rows in table.frame.groupby('number', sort=False):
        rows, points = rows.set_index('system').reindex(systems), {}
        for name in ('in domain', 'out of domain'):
            points[name] = [None if math.isnan(x) else plots.Point(x) for x in rows[name]]
        panels.append((number, points))
    drawing = plots.draw_points(panels, systems)
    return render.Figure('domain-shift-figure', 'In and out of the training domain', drawing)
