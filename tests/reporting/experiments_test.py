import json
import shutil

import pytest

from hbt.reporting import experiments
from tests import fake_runs


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('runs')
    case = fake_runs.make_benchmark(names=('de', 'en', 'zh'))
    for alpha, name in ((1.0, 'xx'), (0.0, 'xy'), (0.5, 'hybrid')):
        for seed in (0, 1):
            fake_runs.make_run(root / f'{name}{seed}', [case], alpha=alpha, seed=seed)
    return root


def load(folder, *names):
    return experiments.load_experiments([folder / name for name in names])


def test_runs_that_differ_in_the_seed_alone_are_one_system_named_by_its_sampling(folder):
    loaded = load(folder, 'hybrid0', 'xx0', 'hybrid1', 'xy0')
    systems = experiments.group_by_seed(loaded)
    assert [x.label for x in systems] == ['hybrid ×2', 'X-X', 'X-Y']
    assert [run.name for run in systems[0].experiments] == ['hybrid0', 'hybrid1']
    assert experiments.differing_settings(loaded) == ['seed', 'sampler.alpha']


def test_the_numbers_of_a_system_are_the_means_of_its_runs(folder):
    first, second = loaded = load(folder, 'xx0', 'xx1')
    (system,) = experiments.group_by_seed(loaded)
    each = [run.results['xquad_r'] for run in (first, second)]
    mean = sum(x.numbers['pairs']['de-en']['map'] for x in each) / 2
    assert system.numbers['xquad_r']['pairs']['de-en']['map'] == pytest.approx(mean)
    values = system.query_values('xquad_r', 'pooled', 'rank_distance')
    assert values[3] == sum(x.query_metrics.pooled['rank_distance'][3] for x in each) / 2


def test_runs_of_one_seed_are_no_seeds_of_one_system(folder, tmp_path):
    copy = shutil.copytree(folder / 'xx0', tmp_path / 'copy')
    loaded = experiments.load_experiments([folder / 'xx0', copy, folder / 'xx1'])
    assert [[run.name for run in x.experiments] for x in experiments.group_by_seed(loaded)] == [
        ['xx0', 'xx1'],
        ['copy'],
    ]


def test_one_sampling_does_not_name_two_systems(folder, tmp_path):
    fake_runs.make_run(
        tmp_path / 'large', [fake_runs.make_benchmark(names=('de', 'en', 'zh'))], batch_size=32
    )
    loaded = experiments.load_experiments([folder / 'hybrid0', tmp_path / 'large'])
    assert [x.label for x in experiments.group_by_seed(loaded)] == ['hybrid0', 'large']
    assert experiments.differing_settings(loaded) == ['batch_size']


def test_samplings_have_the_papers_names(folder):
    (run,) = load(folder, 'xx0')

    def called(**settings):
        return experiments.sampling_strategy(run._replace(settings=run.settings | settings))

    assert called() == 'X-X'
    assert called(**{'sampler.alpha': 0.25}) == 'hybrid α=0.25'
    assert experiments.sampling_strategy(run._replace(settings={})) == ''


def test_the_newest_step_counts_unless_a_step_is_given(folder, tmp_path):
    copy = shutil.copytree(folder / 'xx0', tmp_path / 'xx0')
    fake_runs.save_result(
        copy / 'results' / '20', fake_runs.make_benchmark(names=('de', 'en', 'zh')), step=20
    )
    newest, older = experiments.load_experiments([copy, copy / 'results' / '6'])
    assert newest.results['xquad_r'].numbers['step'] == 20
    assert older.results['xquad_r'].numbers['step'] == 6
    assert older.name == 'xx0@6' and older.settings['sampler.alpha'] == 1.0
    assert experiments.differing_settings([newest, older]) == ['evaluated step']
    assert newest.lines and not older.lines


def test_results_of_a_model_without_a_run_are_a_system_of_their_own(folder, tmp_path):
    fake_runs.save_result(tmp_path / 'model', fake_runs.make_benchmark(names=('de', 'en', 'zh')))
    bare, run = loaded = experiments.load_experiments([tmp_path / 'model', folder / 'xx0'])
    assert bare.settings['data.query_length'] == 16 and 'seed' not in bare.settings
    assert [x.label for x in experiments.group_by_seed(loaded)] == ['model', 'xx0']


def test_names_are_as_long_as_it_takes_to_tell_them_apart(folder, tmp_path):
    copy = shutil.copytree(folder / 'xx0', tmp_path / 'b' / 'xx0')
    other = shutil.copytree(folder / 'xx0', tmp_path / 'c' / 'xx0')
    names = [run.name for run in experiments.load_experiments([copy, other, folder / 'xy0'])]
    assert names == ['b/xx0', 'c/xx0', 'xy0']


def test_runs_on_other_queries_are_refused_with_the_reason(folder, tmp_path):
    case = fake_runs.make_benchmark(names=('de', 'en', 'zh'), word='other')
    fake_runs.make_run(tmp_path / 'other', [case])
    with pytest.raises(
        ValueError, match='other/results/6/xquad_r.json: content: expected .* as in'
    ):
        experiments.load_experiments([folder / 'xx0', tmp_path / 'other'])


def test_what_is_no_run_is_named(folder, tmp_path):
    with pytest.raises(
        ValueError, match='none: expected the directory of a run or of results, got'
    ):
        load(folder, 'none')
    with pytest.raises(ValueError, match='expected every run once, got it twice'):
        load(folder, 'xx0', 'xx0')
    with pytest.raises(ValueError, match='expected what hbt.evaluate writes, <benchmark>.json'):
        experiments.load_experiments([tmp_path])
    copy = shutil.copytree(folder / 'xx0', tmp_path / 'xx0')
    (copy / 'metrics.jsonl').write_text('{"step": 1}\nnonsense\n')
    with pytest.raises(
        ValueError, match='metrics.jsonl: expected a JSON object with a step a line'
    ):
        experiments.load_experiments([copy])
    shutil.rmtree(copy / 'results')
    with pytest.raises(ValueError, match='xx0/results/STEP: expected what hbt.evaluate writes'):
        experiments.load_experiments([copy])


def test_a_result_without_a_manifest_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder / 'xx0', tmp_path / 'xx0')
    path = copy / 'results' / '6' / 'xquad_r.json'
    numbers = json.loads(path.read_text())
    del numbers['manifest']
    path.write_text(json.dumps(numbers))
    with pytest.raises(ValueError, match='xquad_r.json: expected the result of an evaluation'):
        experiments.load_experiments([copy])
