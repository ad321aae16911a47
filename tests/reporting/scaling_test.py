import numpy as np
import pytest

from hbt.reporting import comparison, experiments, scaling, significance
from tests import fake_runs

CROSS = comparison.MAIN[1]


@pytest.fixture(scope='module')
def loaded(tmp_path_factory):
    root = tmp_path_factory.mktemp('runs')
    names = ('de', 'en')
    cases = [
        fake_runs.make_benchmark('inside', names=names),
        fake_runs.make_benchmark('outside', names, 5),
    ]
    for groups, noise in ((100, 2.0), (200, 1.0), (400, 0.6)):
        fake_runs.make_run(root / f'g{groups}', cases, noise, groups=groups)
    fake_runs.make_run(root / 'seed', cases, 0.6, groups=400, seed=1)
    fake_runs.make_run(root / 'xx', cases, 2.0, groups=400, alpha=1.0)
    fake_runs.make_run(root / 'large', cases, 0.5, groups=400, batch_size=64)
    names = ('g400', 'g100', 'g200', 'seed', 'xx', 'large')
    return experiments.load_experiments([root / name for name in names])


def named(curves):
    return [(curve.sizes, [x.name for x in curve.experiments]) for curve in curves]


def test_a_curve_has_the_runs_that_differ_in_its_size_and_seed_alone(loaded):
    data = scaling.find_curves(loaded, 'data')
    assert named(data) == [([100, 200, 400, 400], ['g100', 'g200', 'g400', 'seed'])]
    assert [curve.label for curve in data] == ['hybrid']
    assert named(scaling.find_curves(loaded, 'batch')) == [
        ([16, 16, 64], ['g400', 'seed', 'large'])
    ]
    assert named(scaling.find_curves(loaded, 'alpha')) == [
        ([0.5, 0.5, 1.0], ['g400', 'seed', 'xx'])
    ]
    assert scaling.find_curves(loaded, 'model') == scaling.find_curves(loaded, 'steps') == []


def test_the_size_of_a_model_is_the_number_of_its_parameters(loaded):
    d, f, layers = 32, 64, 2
    attention = 4 * (d * d + d) + 2 * d
    feed_forward = d * f + f + f * d + d + 2 * d
    embeddings = (800 + 130 + 1 + 2) * d
    assert scaling.count_parameters(loaded[0]) == embeddings + layers * (attention + feed_forward)
    assert scaling.count_parameters(loaded[0]._replace(results={})) is None


def test_fits_are_of_what_is_left_to_gain(loaded):
    cases = [comparison.make_comparison(experiments.group_by_seed(loaded), 'inside')]
    table = scaling.fit_table(cases, loaded, 'data')
    row = table.frame[table.frame.y == '1 − cross mAP'].values[0].tolist()
    (curve,) = scaling.find_curves(loaded, 'data')
    at = scaling.curve_points(curve, 'inside', CROSS)
    x, y = np.log([p[0] for p in at]), np.log([1 - p[1] for p in at])
    power, constant = np.polyfit(x, y, 1)
    assert row[:4] == ['hybrid', 'inside', '1 − cross mAP', 4]
    np.testing.assert_allclose(row[4:6], [np.exp(constant), power])
    assert row[10] == pytest.approx(2**power) and power < 0
    assert scaling.fit_table(cases, loaded, 'model') is None


def test_the_interval_of_a_power_is_that_of_the_same_questions_drawn_for_every_run(loaded):
    cases = [comparison.make_comparison(experiments.group_by_seed(loaded), 'inside')]
    frame = scaling.fit_table(cases, loaded, 'data').frame.set_index('y')
    (curve,) = scaling.find_curves(loaded, 'data')
    means = [
        significance.resample_means(
            experiments.group_by_seed([x])[0].setting_values('inside', 'multi', 'rank_distance'),
            x.results['inside'].query_groups,
        )
        for x in curve.experiments
    ]
    powers = [scaling.fit_power_law(curve.sizes, y).power for y in zip(*means, strict=True)]
    low, power, high = frame.loc['rank distance', ['p low', 'p', 'p high']]
    np.testing.assert_allclose([low, high], np.quantile(powers, [0.025, 0.975]))
    assert low < power < high
    # Of six questions some draws have only those that are answered: nothing is left to gain.
    assert frame.loc['1 − cross mAP', ['p low', 'p high']].isna().all()


def test_the_drop_is_between_the_means_in_and_out_of_the_domain(loaded):
    systems = experiments.group_by_seed(loaded)
    names = ['inside', 'outside']
    table = scaling.domain_shift_table(systems, names, ['inside'], comparison.MAIN)
    frame = table.frame
    assert len(frame) == 4 * len(systems)
    row = frame[(frame.system == systems[0].label) & (frame.number == CROSS.name)].iloc[0]
    for name, column in (('inside', 'in domain'), ('outside', 'out of domain')):
        assert row[column] == CROSS.get(systems[0].numbers[name]['metrics'])
    assert row['difference'] == pytest.approx(row['out of domain'] - row['in domain'])
    assert row['kept'] == pytest.approx(row['out of domain'] / row['in domain'])
    best = frame[table.bold['kept'].reindex(frame.index)]
    assert best.kept.tolist() == [frame[frame.number == x].kept.max() for x in best.number]
    assert {*best.number} == {*frame.number}


def test_a_domain_that_cannot_be_is_refused(loaded):
    systems, names = experiments.group_by_seed(loaded), ['inside', 'outside']
    with pytest.raises(ValueError, match="--in_domain: expected one of inside, outside, got 'x'"):
        scaling.domain_shift_table(systems, names, ['x'], comparison.MAIN)
    with pytest.raises(ValueError, match='--in_domain: expected a benchmark to be left, got all'):
        scaling.domain_shift_table(systems, names, names, comparison.MAIN)


def test_a_power_law_is_recovered():
    x = [1.0, 2.0, 4.0, 8.0]
    fit = scaling.fit_power_law(x, [3 * value**-0.5 for value in x])
    np.testing.assert_allclose(fit[:2], [3, -0.5], rtol=1e-9)
    assert fit.r_squared == pytest.approx(1) and fit.error < 1e-9
    assert np.isnan(scaling.fit_power_law([1.0, 2.0], [1.0, 3.0]).error)
    assert scaling.fit_power_law([2.0, 2.0], [1.0, 3.0]) is None
    assert scaling.fit_power_law([1.0, 2.0], [0.0, 3.0]) is None
    assert scaling.fit_power_law([1.0, 1.01], [1.0, 3.0]) is None
    assert scaling.fit_power_law([1.0, 2.0], [1e-12, 1.0]) is None
