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
    return experiments.group_by_seed(experiments.load_experiments([root / 'bad', root / 'good']))


def test_the_columns_of_a_setting_have_the_mean_of_the_evaluation(systems):
    system = systems[0]
    groups = system.evaluations('xquad_r')[0].query_groups
    for measure in (*comparison.MAIN, *tables.FURTHER, *comparison.BIAS):
        values = system.setting_values('xquad_r', measure.setting, measure.metric)
        expected = measure.get(system.numbers['xquad_r']['metrics'])
        assert values.shape[1] == {'mono': 3, 'cross': 6, 'multi': 3}[measure.setting]
        assert np.nanmean(values, axis=0).mean() == pytest.approx(expected, rel=1e-5)
        parts = significance.question_parts(values, groups)
        assert len(parts) == 30 and parts.mean() == pytest.approx(expected, rel=1e-5)


def test_an_interval_holds_its_mean(systems):
    for measure in comparison.MAIN:
        interval = comparison.confidence_interval(systems[0], 'xquad_r', measure)
        assert interval.low < interval.mean < interval.high


def test_a_number_that_a_benchmark_lacks_has_no_interval(tmp_path):
    fake_runs.make_run(tmp_path / 'one', [fake_runs.make_benchmark('one', names=('de',))])
    (system,) = experiments.group_by_seed(experiments.load_experiments([tmp_path / 'one']))
    assert comparison.confidence_interval(system, 'one', comparison.MAIN[1]) is None
    assert comparison.MAIN[1].get(system.numbers['one']['metrics']) is None


def test_a_better_system_is_found_better_in_every_setting_after_correction(systems):
    tests = comparison.compare_systems(comparison.make_comparison(systems, 'xquad_r'))
    assert [x.subject for x in tests] == [measure.name for measure in comparison.MAIN]
    assert all((x.first, x.second) == ('X-X', 'hybrid') for x in tests)
    assert all(x.mean > 0 for x in tests[:-1]) and tests[-1].mean < 0
    for test in tests:
        measure = next(x for x in comparison.MAIN if x.name == test.subject)
        first, second = (measure.get(x.numbers['xquad_r']['metrics']) for x in systems)
        expected = second - first
        assert test.mean == pytest.approx(expected, abs=1e-6)
        assert test.queries == 30 and test.holm < comparison.LEVEL
        assert test.randomisation - 1e-12 <= test.hochberg <= test.holm


def test_every_pair_is_tested_on_its_own_queries_and_corrected_for_their_number(systems):
    tests = comparison.compare_pairs(*systems, 'xquad_r')
    assert [x.subject for x in tests] == [
        f'{x}-{c}' for x in ('de', 'en', 'zh') for c in ('de', 'en', 'zh')
    ]
    trees = [system.numbers['xquad_r']['pairs'] for system in systems]
    for test in tests:
        expected = trees[1][test.subject]['map'] - trees[0][test.subject]['map']
        assert test.mean == pytest.approx(expected, abs=1e-6)
        assert test.queries == 30
    chances = [x.randomisation for x in tests]
    assert [x.holm for x in tests] == significance.holm(chances)
    assert [x.hochberg for x in tests] == significance.benjamini_hochberg(chances)


def test_a_system_does_not_differ_from_itself(systems):
    same = [systems[0], systems[0]._replace(label='again')]
    tests = comparison.compare_systems(comparison.make_comparison(same, 'xquad_r'))
    assert all(x.mean == 0 and x.holm == 1 for x in tests)


def test_a_measure_is_read_with_its_name_and_an_unknown_one_is_refused_with_those_known():
    assert comparison.parse_measure('cross.recall@5')[:3] == ('cross', 'recall@5', 'cross R@5')
    assert comparison.parse_measure('mono.map@10').name == 'mono mAP@10'
    assert comparison.parse_measure('multi.rank_distance') == comparison.MAIN[-1]
    with pytest.raises(ValueError, match=r"--measure: expected one of .*mono.mrr@10.*got 'mrr'"):
        comparison.parse_measure('mrr')


def test_the_metric_of_pairs_is_the_first_that_pairs_have(systems):
    named = [comparison.parse_measure(x) for x in ('multi.map', 'cross.mrr@10', 'mono.map@10')]
    assert comparison.make_comparison(systems, 'xquad_r', named).metric == 'mrr@10'
    assert comparison.make_comparison(systems, 'xquad_r', named[:1]).metric == 'map'


def test_a_result_without_the_values_of_a_metric_is_named(systems):
    with pytest.raises(ValueError, match='xquad_r.json: expected values of map@7, got map, '):
        comparison.compare_pairs(*systems, 'xquad_r', 'map@7')
