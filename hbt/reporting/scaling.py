"""How numbers change with size, and from one domain to another.

Hides which runs belong on one curve: those that differ in nothing else but the seed.
Called by `report` and `figures`.
"""

import math
import statistics as plain
import typing
from collections.abc import Sequence

import numpy as np
from scipy import stats

from hbt.reporting import comparison, document, experiments


class Axis(typing.NamedTuple):
    """A size, and the settings that may differ along it; one with a dot at its end is a part."""

    name: str
    aside: tuple[str, ...]
    log: bool = True


class Curve(typing.NamedTuple):
    """Runs in the order of their size."""

    label: str
    sizes: list[float]
    runs: list[experiments.Run]


class Fit(typing.NamedTuple):
    """y = scale * x ** power, by least squares of the logarithms."""

    scale: float
    power: float
    error: float  # standard error of the power; nan for two points
    fitted: float  # R squared; nan for two points


class Shift(typing.NamedTuple):
    """A system's mean over the benchmarks of the domain, and over the others."""

    system: str
    measure: comparison.Measure
    inside: float
    outside: float


AXES = {
    'data': Axis(
        'training groups',
        ('data.groups', 'data.content', 'data.languages', 'data.root', 'data.sources'),
    ),
    'batch': Axis('batch size', ('batch_size',)),
    'model': Axis(
        'parameters',
        tuple(f'encoder.{x}' for x in ('init', 'hidden_dim', 'num_layers', 'num_heads', 'mlp_dim')),
    ),
    'steps': Axis('training steps', ('steps', 'evaluated step')),
    'alpha': Axis('alpha', ('sampler.alpha',), log=False),
}


NARROW = 1.1  # ratio of sizes
STEEP = 20.0


def size(run: experiments.Run, axis: str) -> float | None:
    """Where a run stands on an axis; None where that is not known."""
    direct = {'data': 'data.groups', 'batch': 'batch_size', 'steps': 'evaluated step'}
    if axis == 'model':
        return parameters(run)
    found = run.settings.get('sampler.alpha' if axis == 'alpha' else direct[axis])
    return None if found is None else float(found)


def parameters(run: experiments.Run) -> float | None:
    """How many numbers the model has; None where no result of the run says so."""
    counts = [x.numbers['manifest'].get('parameters') for x in run.results.values()]
    return next((float(x) for x in counts if x is not None), None)


def curves(found: Sequence[experiments.Run], axis: str) -> list[Curve]:
    """Groups of runs that differ along the axis alone, in at least two sizes."""
    groups = {}
    for run in found:
        x = size(run, axis)
        if x is not None and 'seed' in run.settings:
            groups.setdefault(experiments.key(run, AXES[axis].aside), []).append((x, run))
    kept = [group for group in groups.values() if len({x for x, _ in group}) > 1]
    names = [experiments.strategy(group[0][1]) for group in kept]
    if axis == 'alpha':
        names = ['mAP'] if len(kept) == 1 else [''] * len(kept)
    unique = all(names) and len(set(names)) == len(names)
    return [
        Curve(
            name if unique else group[0][1].name,
            [x for x, _ in sorted(group, key=lambda point: point[0])],
            [run for _, run in sorted(group, key=lambda point: point[0])],
        )
        for name, group in zip(names, kept, strict=True)
    ]


def points(curve: Curve, benchmark: str, measure: comparison.Measure) -> list[tuple]:
    """(size, number) of the runs that have the number."""
    found = []
    for x, run in zip(curve.sizes, curve.runs, strict=True):
        tree = run.results[benchmark].numbers['metrics'] if benchmark in run.results else {}
        value = tree.get(measure.setting, {}).get(measure.metric)
        if value is not None:
            found.append((x, value))
    return found


def law(found: Sequence[tuple], measure: comparison.Measure) -> Fit | None:
    """Power law of what is left to gain: 1 less the number, or the rank distance itself."""
    x = [point[0] for point in found]
    return fit(x, [gap(point[1], measure) for point in found]) if found else None


def fit(x: Sequence[float], y: Sequence[float]) -> Fit | None:
    """The power law through points.

    None where y is 0, x spans less than NARROW, or the power is beyond all sense (STEEP).
    """
    if min(x) <= 0 or max(x) < NARROW * min(x) or min(y) <= 0:
        return None
    line = stats.linregress(np.log(x), np.log(y))
    if abs(line.slope) > STEEP:
        return None
    enough = len(x) > 2
    return Fit(
        math.exp(line.intercept),
        float(line.slope),
        float(line.stderr) if enough else math.nan,
        float(line.rvalue**2) if enough else math.nan,
    )


def gap(value: float, measure: comparison.Measure) -> float:
    return 1 - value if measure.highest else value


def fits(
    found: Sequence[experiments.Run],
    axis: str,
    names: Sequence[str],
    measures: Sequence[comparison.Measure],
) -> document.Table | None:
    """Every curve's fitted power law; None where no runs differ in this size alone."""
    rows = []
    for curve in curves(found, axis):
        for benchmark in names:
            for measure in measures:
                at = points(curve, benchmark, measure)
                found_law = law(at, measure)
                if found_law is not None:
                    what = f'1 − {measure.name}' if measure.highest else measure.name
                    head = [curve.label, benchmark, what, len(at)]
                    rows.append([*head, *found_law, 2**found_law.power])
    if not rows:
        return None
    columns = [document.Column(x) for x in ('runs', 'benchmark', 'y')] + [
        document.Column('points', 'count')
    ]
    columns += [
        document.Column(x, 'number')
        for x in ('c', 'p', 'standard error of p', 'R²', 'y when x doubles')
    ]
    columns[-1] = document.Column('factor when x doubles', 'number')
    note = (
        f'y = c · x^p for x = {AXES[axis].name}, by least squares of the logarithms over all runs.'
    )
    return document.Table(
        f'fit-{axis}', f'Scaling with {AXES[axis].name}: fits', columns, rows, note
    )


def shifts(
    systems: Sequence[experiments.System],
    names: Sequence[str],
    inside: Sequence[str],
    measures: Sequence[comparison.Measure],
) -> list[Shift]:
    """Means over benchmarks of each measure, in and out of the training domain.

    ValueError for an unknown benchmark, and where nothing is left outside.
    """
    for name in inside:
        if name not in names:
            raise ValueError(f'--in_domain: expected one of {", ".join(names)}, got {name!r}')
    outside = [name for name in names if name not in inside]
    if not outside:
        raise ValueError(
            f'--in_domain: expected a benchmark to be left, got all: {", ".join(names)}'
        )
    found = []
    for system in systems:
        if not all(system.saved(name) for name in names):
            continue
        for measure in (x for x in measures if x.form == 'score'):  # distances depend on the pool
            cases = {x: comparison.Case(system, x).mean(measure) for x in names}
            sides = [[cases[x] for x in some if cases[x] is not None] for some in (inside, outside)]
            if all(sides):
                found.append(Shift(system.label, measure, *map(plain.fmean, sides)))
    return found


def shift_table(
    found: Sequence[Shift], inside: Sequence[str], names: Sequence[str]
) -> document.Table:
    rows = [
        [
            x.system,
            x.measure.name,
            x.inside,
            x.outside,
            x.outside - x.inside,
            x.outside / x.inside if x.inside else None,
        ]
        for x in found
    ]
    columns = [document.Column('system'), document.Column('number')]
    columns += [document.Column(x, 'score') for x in ('in domain', 'out of domain')]
    columns += [document.Column('difference', 'signed'), document.Column('kept', 'percent')]
    outside = [x for x in names if x not in inside]
    note = (
        f'In domain: {", ".join(inside)}. Out of domain: {", ".join(outside)}. Means over '
        'benchmarks that have the number; systems without one of them are left out.'
    )
    return document.best(
        document.Table('domain-shift', 'Drop out of the training domain', columns, rows, note),
        [
            ([(i, 5) for i, x in enumerate(found) if x.measure == measure], True)
            for measure in dict.fromkeys(x.measure for x in found)
        ],
    )
