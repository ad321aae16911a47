import numpy as np
import pytest

from hbt.reporting import comparison, experiments, significance, tables
from tests import fake_runs


@pytest.fixture(scope='module')
def systems(tmp_path_factory):
    root = tmp_path_factory.mktemp('runs')
    case = fake_runs.make_benchmark(names=('de', 'en', 'zh'), questions=30)
    for name, noise, alpha in (('bad', 2.0, 1.0), ('good', 0.3, 0.5)):
        fake_runs.make_run(root / name, [case], noise=noise, alpha=alpha)
    return experiments.systems(experiments.load_runs([root / 'bad', root / 'good']))


def test_the_columns_of_a_setting_have_the_mean_of_the_evaluation(systems):
    case = comparison.Case(systems[0], 'xquad_r')
    for measure in (*comparison.MAIN, *tables.FURTHER, *comparison.BIAS):
        values = case.columns(measure.setting, measure.metric)
        assert values.shape[1] == {'mono': 3, 'cross': 6, 'multi': 3}[measure.setting]
        assert np.nanmean(values, axis=0).mean() == pytest.approx(case.mean(measure), rel=1e-5)
        parts = significance.macro(values, case.saved.query_groups)
        assert len(parts) == 30 and parts.mean() == pytest.approx(case.mean(measure), rel=1e-5)


def test_an_interval_holds_its_mean(systems):
    for measure in comparison.MAIN:
        found = comparison.interval(comparison.Case(systems[0], 'xquad_r'), measure)
        assert found.low < found.mean < found.high


def test_a_number_that_a_benchmark_lacks_has_no_interval(tmp_path):
    fake_runs.make_run(tmp_path / 'one', [fake_runs.make_benchmark('one', names=('de',))])
    (system,) = experiments.systems(experiments.load_runs([tmp_path / 'one']))
    case = comparison.Case(system, 'one')
    assert comparison.interval(case, comparison.MAIN[1]) is None
    assert case.mean(comparison.MAIN[1]) is None


def test_a_better_system_is_found_better_in_every_setting_after_correction(systems):
    tests = comparison.overall(systems, 'xquad_r')
    assert [x.what for x in tests] == [measure.name for measure in comparison.MAIN]
    assert all((x.first, x.second) == ('X-X', 'hybrid') for x in tests)
    assert all(x.difference.mean > 0 for x in tests[:-1]) and tests[-1].difference.mean < 0
    for test in tests:
        case = [comparison.Case(system, 'xquad_r') for system in systems]
        measure = next(x for x in comparison.MAIN if x.name == test.what)
        expected = case[1].mean(measure) - case[0].mean(measure)
        assert test.difference.mean == pytest.approx(expected, abs=1e-6)
        assert test.difference.queries == 30 and test.holm < comparison.LEVEL
        assert test.difference.randomisation - 1e-12 <= test.hochberg <= test.holm


def test_every_pair_is_tested_on_its_own_queries_and_corrected_for_their_number(systems):
    tests = comparison.by_pair(*systems, 'xquad_r')
    assert [x.what for x in tests] == [
        f'{x}-{c}' for x in ('de', 'en', 'zh') for c in ('de', 'en', 'zh')
    ]
    trees = [system.numbers('xquad_r')['pairs'] for system in systems]
    for test in tests:
        expected = trees[1][test.what]['map'] - trees[0][test.what]['map']
        assert test.difference.mean == pytest.approx(expected, abs=1e-6)
        assert test.difference.queries == 30
    chances = [x.difference.randomisation for x in tests]
    assert [x.holm for x in tests] == significance.holm(chances)
    assert [x.hochberg for x in tests] == significance.benjamini_hochberg(chances)


def test_a_system_does_not_differ_from_itself(systems):
    tests = comparison.overall([systems[0], systems[0]._replace(label='again')], 'xquad_r')
    assert all(x.difference.mean == 0 and x.holm == 1 for x in tests)


def test_a_measure_is_read_with_its_name_and_an_unknown_one_is_refused_with_those_known():
    assert comparison.measure('cross.recall@5')[:3] == ('cross', 'recall@5', 'cross R@5')
    assert comparison.measure('mono.map@10').name == 'mono mAP@10'
    assert comparison.measure('multi.rank_distance') == comparison.MAIN[-1]
    with pytest.raises(ValueError, match=r"--measure: expected one of .*mono.mrr@10.*got 'mrr'"):
        comparison.measure('mrr')


def test_the_metric_of_pairs_is_the_first_that_pairs_have():
    named = [comparison.measure(x) for x in ('multi.map', 'cross.mrr@10', 'mono.map@10')]
    assert comparison.of_pairs(named) == 'mrr@10' and comparison.of_pairs(named[:1]) == 'map'


def test_a_result_without_the_values_of_a_metric_is_named(systems):
    with pytest.raises(ValueError, match='xquad_r.json: expected values of map@7, got map, '):
        comparison.by_pair(*systems, 'xquad_r', 'map@7')
