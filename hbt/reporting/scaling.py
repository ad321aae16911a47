"""How numbers change with size, and from one domain to another."""

import math
import statistics
import typing
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from hbt.reporting import comparison, experiments, render, significance

MODEL = ('init', 'hidden_dim', 'num_layers', 'num_heads', 'mlp_dim')
DATA = ('groups', 'content', 'languages', 'root', 'sources')
NARROW = 1.1  # ratio of sizes below which no law is fitted
STEEP = 20.0  # power above which a law is none


class Axis(typing.NamedTuple):
    """A size of experiments."""

    name: str
    setting: str  # that has the size
    varying: tuple[str, ...]  # settings that may differ along it
    log: bool = True


AXES = {
    'data': Axis('training groups', 'data.groups', tuple(f'data.{x}' for x in DATA)),
    'batch': Axis('batch size', 'batch_size', ('batch_size',)),
    'model': Axis('parameters', '', tuple(f'encoder.{x}' for x in MODEL)),
    'steps': Axis('training steps', 'evaluated step', ('steps', 'evaluated step')),
    'alpha': Axis('alpha', 'sampler.alpha', ('sampler.alpha',), log=False),
}


class Curve(typing.NamedTuple):
    """Experiments in the order of their size."""

    label: str
    sizes: list[float]
    experiments: list[experiments.Experiment]


class Fit(typing.NamedTuple):
    """y = scale * x ** power, by least squares of the logarithms."""

    scale: float
    power: float
    error: float  # standard error of the power; NaN for two points
    r_squared: float  # NaN for two points


def count_parameters(experiment: experiments.Experiment) -> float | None:
    """The number of parameters of its model; None where no result has it."""
    counts = [x.numbers['manifest'].get('parameters') for x in experiment.results.values()]
    return next((float(x) for x in counts if x is not None), None)


def find_curves(loaded: Sequence[experiments.Experiment], axis: str) -> list[Curve]:
    """Groups that differ along the axis and in the seed alone, in at least two sizes."""
    groups = {}
    for x in loaded:
        size = count_parameters(x) if axis == 'model' else x.settings.get(AXES[axis].setting)
        if size is not None and 'seed' in x.settings:
            key = experiments.settings_key(x, AXES[axis].varying)
            groups.setdefault(key, []).append((float(size), x))
    groups = [group for group in groups.values() if len({size for size, _ in group}) > 1]
    names = [experiments.sampling_strategy(group[0][1]) for group in groups]
    if axis == 'alpha':
        names = ['mAP'] if len(groups) == 1 else [''] * len(groups)
    unique = all(names) and len({*names}) == len(names)
    curves = []
    for name, group in zip(names, groups, strict=True):
        sizes, members = zip(*sorted(group, key=lambda point: point[0]), strict=True)
        curves.append(Curve(name if unique else group[0][1].name, [*sizes], [*members]))
    return curves


def curve_points(curve: Curve, benchmark: str, measure: comparison.Measure) -> list[tuple]:
    """(size, number) of the experiments that have the number."""
    return [(size, number) for size, number, _ in _measured(curve, benchmark, measure)]


def _measured(curve: Curve, benchmark: str, measure: comparison.Measure) -> list[tuple]:
    """(size, number, experiment) of those that have the number."""
    points = [
        (size, measure.get(x.results[benchmark].numbers['metrics']), x)
        for size, x in zip(curve.sizes, curve.experiments, strict=True)
        if benchmark in x.results
    ]
    return [point for point in points if point[1] is not None]


def fit_points(points: Sequence[tuple], measure: comparison.Measure) -> Fit | None:
    """Power law of what is left to gain: 1 less the number, or the rank distance itself."""
    gaps = [1 - number if measure.sign > 0 else number for _, number in points]
    return fit_power_law([size for size, _ in points], gaps) if points else None


def fit_power_law(x: Sequence[float], y: Sequence[float]) -> Fit | None:
    """None where y is 0, x spans less than NARROW, or the power is beyond all sense (STEEP)."""
    if min(x) <= 0 or max(x) < NARROW * min(x) or min(y) <= 0:
        return None
    line = stats.linregress(np.log(x), np.log(y))
    if abs(line.slope) > STEEP:
        return None
    quality = (float(line.stderr), float(line.rvalue**2)) if len(x) > 2 else (math.nan, math.nan)
    return Fit(math.exp(line.intercept), float(line.slope), *quality)


def fit_table(
    cases: Sequence[comparison.Comparison], loaded: Sequence[experiments.Experiment], axis: str
) -> render.Table | None:
    """Every curve's fitted power law; None where no experiments differ in this size alone."""
    rows = []
    for curve in find_curves(loaded, axis):
        for case, measure in ((y, x) for y in cases for x in y.measures):
            points = curve_points(curve, case.benchmark, measure)
            fit = fit_points(points, measure)
            if fit is not None:
                y = f'1 − {measure.name}' if measure.sign > 0 else measure.name
                bounds = power_interval(curve, case.benchmark, measure)
                names = curve.label, case.benchmark, y, len(points)
                rows.append([*names, *fit[:2], *bounds, *fit[2:], 2**fit.power])
    if not rows:
        return None
    formats = dict.fromkeys(('runs', 'benchmark', 'y'), 'text') | {'points': 'count'}
    numbers = ('c', 'p', 'standard error of p', 'R²', 'factor when x doubles')
    formats |= dict.fromkeys(numbers, 'number')
    columns = ['runs', 'benchmark', 'y', 'points', 'c', 'p', 'p low', 'p high', *numbers[2:]]
    note = (
        f'y = c · x^p for x = {AXES[axis].name}, by least squares of the logarithms over all runs. '
        'In brackets: 95 % bootstrap interval over questions, with all their translations.'
    )
    title = f'Scaling with {AXES[axis].name}: fits'
    return render.Table(f'fit-{axis}', title, pd.DataFrame(rows, columns=columns), formats, note)


def power_interval(
    curve: Curve, benchmark: str, measure: comparison.Measure
) -> tuple[float, float]:
    """Bounds of the fitted power over questions, of which all runs have the same in a draw.

    NaN where a draw leaves nothing to gain.
    """
    sizes, means = [], []
    for size, _, x in _measured(curve, benchmark, measure):
        (system,) = experiments.group_by_seed([x])
        values = system.setting_values(benchmark, measure.setting, measure.metric)
        means.append(significance.resample_means(values, x.results[benchmark].query_groups))
        sizes.append(size)
    gaps = np.stack([1 - x if measure.sign > 0 else x for x in means], axis=1)
    logs = np.log(gaps, out=np.full_like(gaps, np.nan), where=gaps > 0)
    offsets = np.log(sizes) - np.log(sizes).mean()
    low, high = np.quantile(logs @ offsets / np.square(offsets).sum(), [0.025, 0.975])
    return float(low), float(high)


def domain_shift_table(
    systems: Sequence[experiments.System],
    benchmarks: Sequence[str],
    in_domain: Sequence[str],
    measures: Sequence[comparison.Measure],
) -> render.Table | None:
    """Means over benchmarks in and out of the training domain; the best kept stands out.

    Raises ValueError where a benchmark is unknown, or none is left outside.
    """
    for name in in_domain:
        if name not in benchmarks:
            raise ValueError(f'--in_domain: expected one of {", ".join(benchmarks)}, got {name!r}')
    outside = [name for name in benchmarks if name not in in_domain]
    if not outside:
        names = ', '.join(benchmarks)
        raise ValueError(f'--in_domain: expected a benchmark to be left, got all: {names}')
    rows = []
    scores = [x for x in measures if x.format == 'score']  # distances depend on the pool
    for system in systems:
        if not system.numbers.keys() >= {*benchmarks}:
            continue
        trees = {name: system.numbers[name]['metrics'] for name in benchmarks}
        for measure in scores:
            sides = [[measure.get(trees[x]) for x in names] for names in (in_domain, outside)]
            sides = [[x for x in side if x is not None] for side in sides]
            if all(sides):
                means = [statistics.fmean(side) for side in sides]
                ratio = means[1] / means[0] if means[0] else None
                rows.append([system.label, measure.name, *means, means[1] - means[0], ratio])
    if not rows:
        return None
    formats = {'system': 'text', 'number': 'text', 'in domain': 'score', 'out of domain': 'score'}
    formats |= {'difference': 'signed', 'kept': 'percent'}
    note = (
        f'In domain: {", ".join(in_domain)}. Out of domain: {", ".join(outside)}. Means over '
        'benchmarks that have the number; systems without one of them are left out.'
    )
    title = 'Drop out of the training domain'
    table = render.make_table('domain-shift', title, formats, rows, note)
    groups = [group[['kept']] for _, group in table.frame.groupby('number')]
    return table._replace(bold=pd.concat(map(render.best_cells, groups)))
