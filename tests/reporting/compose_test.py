import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from hbt.evaluation import samples
from hbt.reporting import (
    comparison,
    compose,
    embedding_space,
    experiments,
    figures,
    render,
    tables,
)
from tests import ROOT, fake_runs
from tests.reporting import render_test

MEASURES = [comparison.parse_measure(x) for x in ('mono.mrr@10', 'cross.recall@5')]


@pytest.fixture(scope='session')
def root(tmp_path_factory):
    """Two samplings, one with two seeds and with half of the data, on two benchmarks."""
    folder = tmp_path_factory.mktemp('runs')
    names = ('de', 'el', 'en', 'zh')
    cases = [fake_runs.make_benchmark(x, names) for x in ('xquad_r', 'cldr')]
    for name, alpha, seed, groups in (
        *(('xx', 1.0, 0, 60), ('hybrid', 0.5, 0, 60), ('again', 0.5, 1, 60)),
        ('half', 0.5, 0, 30),
    ):
        noise = 2.0 if alpha == 1 else 0.5 + 15 / groups
        fake_runs.make_run(folder / name, cases, noise, seed, alpha, groups)
    return folder


@pytest.fixture(scope='session')
def sections(root):
    return composed(root, ['cldr'])


def composed(root, *args):
    paths = [root / x for x in ('xx', 'hybrid', 'again', 'half')]
    return compose.compose_report(experiments.load_experiments(paths), *args)


def parts(sections):
    return {part.name: part for section in sections for part in section.parts}


def test_a_report_has_a_section_for_everything_that_the_runs_tell(sections):
    assert [section.title for section in sections] == [
        *('Conclusion', 'Runs', 'Comparison of the runs', 'Pairs of languages', 'Language bias'),
        *('Languages, scripts and resources', 'Beside the paper', 'Training', 'Scaling'),
        *('Domain shift', 'Origin of the numbers'),
    ]
    by_name = parts(sections)
    assert {'xquad_r-tests', 'xquad_r-pair-maps', 'xquad_r-differences', 'fit-data'} <= {*by_name}
    assert {'xquad_r-own-share', 'cldr-scaling-alpha', 'domain-shift', 'training'} <= {*by_name}
    names = [part.name for section in sections for part in section.parts]
    assert len(set(names)) == len(names), 'two parts would be one file'


def test_main_numbers_have_intervals_and_the_spread_of_seeds(sections):
    table = parts(sections)['xquad_r-overall']
    assert [*table.formats] == ['system', *(x.name for x in comparison.MAIN)]
    frame = table.frame.set_index('system')
    for name in [*table.formats][1:]:
        low, mean, high = frame.loc['xx', [f'{name} low', name, f'{name} high']]
        assert low < mean < high and np.isnan(frame.loc['xx', f'{name} spread'])
        assert frame.loc['hybrid ×2', f'{name} spread'] > 0


def test_the_spread_is_the_standard_deviation_between_seeds(root):
    loaded = experiments.load_experiments([root / 'hybrid', root / 'again'])

    def main_numbers(loaded):
        systems = experiments.group_by_seed(loaded)
        case = comparison.make_comparison(systems, 'xquad_r', comparison.MAIN[:1])
        return tables.main_numbers(case).frame

    (row,) = main_numbers(loaded).to_dict('records')
    seeds = [x.results['xquad_r'].numbers['metrics']['mono']['map'] for x in loaded]
    assert row['mono mAP'] == pytest.approx(np.mean(seeds), rel=1e-5)
    assert row['mono mAP spread'] == pytest.approx(np.std(seeds, ddof=1))
    assert 'mono mAP spread' not in main_numbers(loaded[:1])


def test_every_two_systems_are_tested_on_every_number_with_corrections(sections):
    table = parts(sections)['xquad_r-tests']
    assert len(table.frame) == 3 * len(comparison.MAIN)
    p, holm, fdr = (table.frame[x] for x in ('p, randomisation', 'Holm', 'Benjamini-Hochberg'))
    assert (p <= fdr + 1e-12).all() and (fdr <= holm + 1e-12).all()
    pairs = parts(sections)['xquad_r-pair-tests-1']
    assert len(pairs.frame) == 16 and 'Corrected for 16 pairs' in pairs.note


def test_the_conclusion_has_a_sentence_for_every_comparison_of_systems(sections):
    text, by_name = sections[0].plain_text, parts(sections)
    assert text.startswith('On cldr, hybrid ×2 against xx: ')
    assert text.count(' against ') == compose.SENTENCES == 6 and 'more comparisons' not in text
    assert 'Of the variance of embeddings of cldr, the language explains ' in text
    table = by_name['verdicts'].frame.set_index(['benchmark', 'systems'])
    assert len(table) == 6
    for _, test in by_name['xquad_r-tests'].frame.iterrows():
        assert table.loc[('xquad_r', test['systems']), test['number']] == test['difference']


def made(second, subject, mean, p, sign=1):
    return comparison.Test('X-X', second, subject, 9, mean, p, p, p, p, sign)


TESTS = [
    made('hybrid', 'mono mAP', -0.25, 0.6),
    made('hybrid', 'cross mAP', 0.5, 0.0004),
    made('hybrid', 'rank distance', -3.5, 0.01, -1),
    made('X-Y', 'mono mAP', -0.25, 0.02),
    made('X-Y', 'rank distance', 3.5, 0.01, -1),
    made('X-Y', 'own language first', 0.5, 0.01, 0),
    made('X-Y', 'cross mAP', float('nan'), float('nan')),
]


def test_what_is_significant_is_good_or_bad_by_the_direction_of_its_measure():
    assert [x.verdict for x in TESTS] == [0, 1, 1, -1, -1, 0, 0]
    phrases = comparison.describe_tests('set', TESTS[:3]) + comparison.describe_tests(
        'set', TESTS[3:]
    )
    assert ''.join(x.text for x in phrases) == (
        'On set, hybrid against X-X: better in cross mAP (+0.5000, p < .001) and rank distance '
        '(-3.5000, p 0.010); no significant difference in mono mAP.\n'
        'On set, X-Y against X-X: worse in mono mAP (-0.2500, p 0.020) and rank distance (+3.5000, '
        'p 0.010); changed own language first (+0.5000, p 0.010); no significant difference in '
        'cross mAP.\n'
    )
    assert [x.tone for x in phrases if x.tone] == [1, -1]
    table = tables.verdicts({'set': TESTS})
    assert table.frame['systems'].tolist() == ['hybrid − X-X', 'X-Y − X-X']
    assert [*table.formats] == [*table.frame.columns] and table.frame['mono mAP'][1] == -0.25
    assert table.tone['rank distance'].tolist() == [1, -1]
    assert table.bold['own language first'].tolist() == [False, True]
    assert table.tone['own language first'].tolist() == [0, 0]


def test_many_systems_have_a_few_sentences_and_a_table_of_the_rest():
    tests = [made(f's{i}', 'mono mAP', 1.0, 0.01) for i in range(9)]
    text = ''.join(x.text for x in compose.conclude([], {'set': tests}, {}))
    assert text.count(' against ') == compose.SENTENCES
    assert text.endswith('The table has 3 more comparisons.\n')


def test_figures_call_the_systems_as_the_tables_do(sections, root):
    by_name = parts(sections)
    called = ['xx', 'hybrid, seed 0', 'hybrid, seed 1', 'half']
    assert by_name['runs'].frame['called'].tolist() == called
    legends = [x.get_text() for x in by_name['training'].drawing.legends[0].get_texts()]
    assert legends == called
    assert [*by_name['settings'].formats] == ['setting', *called]


def test_tables_of_p_values_are_folded(sections):
    for name, part in parts(sections).items():
        if isinstance(part, render.Table):
            assert part.folded == any('p, ' in str(x) for x in part.formats), name


def test_the_embedding_space_is_shown_before_and_after_training(tmp_path):
    case = fake_runs.make_benchmark('cldr', ('de', 'el', 'en', 'zh'))
    for name, alpha in (('xx', 1.0), ('hybrid', 0.5)):
        fake_runs.make_run(tmp_path / name, [case], alpha=alpha)
        fake_runs.save_result(tmp_path / name / 'results' / '0', case, noise=3.0, step=0)
    loaded = experiments.load_experiments([tmp_path / 'xx', tmp_path / 'hybrid'])
    case = comparison.make_comparison(experiments.group_by_seed(loaded), 'cldr')
    views = embedding_space.view_systems(case)
    table = embedding_space.variance_table(case, views).frame
    assert table['', 'at'].tolist() == ['before training', 'step 6'] * 2
    assert table['', 'texts'].tolist() == [48] * 4 and table['', 'system'][2] == 'hybrid'
    sample = samples.load_sample(tmp_path / 'xx/results/6/samples/cldr.npz')
    share = samples.explained_share(sample.vectors, sample.languages)
    assert table['language explains', 'measured'][1] == pytest.approx(share)
    assert table['language explains', 'by chance'][1] == pytest.approx(3 / 47)
    assert table['question explains', 'by chance'][1] == pytest.approx(5 / 23)
    questions = table['question explains', 'measured']
    assert 0 < questions[0] < questions[1] < 1, 'less noise: translations are nearer'
    text = embedding_space.describe_views(case, views)
    assert f'{100 * share:.1f} % for X-X (' in text and ' % before training) and ' in text
    drawing = figures.embedding_map(case, views).drawing
    panels = [x for x in drawing.axes if x.get_visible()]
    assert all(len(x.lines) == figures.LINKED * 4 for x in panels)
    assert len(panels) == 4 and panels[0].get_title().startswith('X-X, before training\nlangu')


def test_a_result_of_a_version_without_samples_has_no_map(root, tmp_path):
    shutil.copytree(root / 'xx', tmp_path / 'xx')
    shutil.rmtree(tmp_path / 'xx/results/6/samples')
    loaded = experiments.load_experiments([tmp_path / 'xx', root / 'hybrid'])
    case = comparison.make_comparison(experiments.group_by_seed(loaded), 'cldr')
    views = embedding_space.view_systems(case)
    assert [x.system for x in views] == ['hybrid']
    assert embedding_space.describe_views(case, []) == ''


def test_a_single_system_is_described_by_its_numbers(root):
    systems = experiments.group_by_seed(experiments.load_experiments([root / 'xx']))
    case = comparison.make_comparison(systems, 'cldr', MEASURES)
    ((text, tone),) = compose.conclude([case], {'cldr': []}, {'cldr': []})
    assert text.startswith('On cldr, xx has mono MRR@10 0.') and ' and cross R@5 0.' in text


def test_the_numbers_asked_for_are_those_compared(root):
    by_name = parts(composed(root, [], MEASURES))
    assert [*by_name['cldr-overall'].formats][1:] == ['mono MRR@10', 'cross R@5']
    assert 'mono mAP' in by_name['cldr-further'].formats
    assert [*by_name['cldr-pair-tests-1'].formats][1] == 'difference of MRR@10'
    assert {*by_name['fit-data'].frame['y']} == {'1 − mono MRR@10', '1 − cross R@5'}
    assert by_name['cldr-languages'].frame.columns[1][0] == 'mono MRR@10'


@pytest.mark.slow
def test_every_part_is_written_in_every_notation_and_an_older_report_is_replaced(
    sections, tmp_path
):
    sections = [section._replace(parts=section.parts[:4]) for section in sections]
    render.write_report(tmp_path / 'out', 'Title', sections)
    (tmp_path / 'out' / 'tables' / 'old.csv').write_text('')
    render.write_report(tmp_path / 'out', 'Title', sections)
    out = tmp_path / 'out'
    endings = {'tables': ('csv', 'tex'), 'figures': ('svg', 'pdf')}
    expected = {
        f'{kind}/{name}.{ending}'
        for name, part in parts(sections).items()
        for kind in ['tables' if isinstance(part, render.Table) else 'figures']
        for ending in endings[kind]
    }
    files = {str(x.relative_to(out)) for x in out.rglob('*/*') if x.is_file()}
    assert files == expected
    tags = render_test.read((out / 'index.html').read_text())
    assert all(x.startswith(('data:image/svg+xml;base64,', '#')) for x in tags.targets)
    assert {*parts(sections)} <= {*tags.ids}
    text, tex = ((out / f'report.{x}').read_text() for x in ('md', 'tex'))
    for name, part in parts(sections).items():
        is_table = isinstance(part, render.Table)
        assert f'### {part.title}' in text
        assert (f'tables/{name}}}' if is_table else f'figures/{name}.pdf') in tex
    assert tex.count(r'\begin') == tex.count(r'\end')
    rows = list(csv.reader((out / 'tables' / 'cldr-tests.csv').read_text().splitlines()))
    assert abs(float(rows[1][2])) > 0 and '+' not in rows[1][2]


def test_runs_of_different_benchmarks_are_compared_where_they_meet(root, tmp_path):
    names = ('de', 'el', 'en', 'zh')
    fake_runs.make_run(tmp_path / 'less', [fake_runs.make_benchmark('cldr', names)], alpha=0.25)
    fake_runs.make_run(tmp_path / 'more', [fake_runs.make_benchmark('one', ('de',))], alpha=0.75)
    loaded = experiments.load_experiments([root / 'xx', tmp_path / 'less', tmp_path / 'more'])
    by_name = parts(compose.compose_report(loaded, ['cldr']))
    assert len(by_name['cldr-overall'].frame) == 2 and len(by_name['cldr-tests'].frame) == 5
    assert len(by_name['xquad_r-overall'].frame) == 1 and 'xquad_r-tests' not in by_name
    assert [*by_name['one-overall'].frame.system] == ['hybrid α=0.75']
    assert 'domain-shift' not in by_name, 'none has all benchmarks'


def test_a_folder_of_other_files_is_not_replaced(tmp_path):
    (tmp_path / 'notes.txt').write_text('')
    with pytest.raises(ValueError, match='--out: .*expected an empty folder or a report, got oth'):
        render.write_report(tmp_path, 'Title', [])
    with pytest.raises(ValueError, match='--out: .*expected a directory, got a file'):
        render.write_report(tmp_path / 'notes.txt', 'Title', [])


def test_measures_that_no_benchmark_has_are_refused(tmp_path):
    fake_runs.make_run(tmp_path / 'one', [fake_runs.make_benchmark('one', names=('de',))])
    with pytest.raises(ValueError, match='--measure: expected numbers that a benchmark has, got c'):
        compose.compose_report(experiments.load_experiments([tmp_path / 'one']), [], MEASURES[1:])


def program(*args):
    return subprocess.run(
        [sys.executable, '-m', 'hbt.report', *args], cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.slow
def test_the_program_writes_a_report_of_one_language(tmp_path):
    fake_runs.make_run(tmp_path / 'one', [fake_runs.make_benchmark('one', names=('de',))])
    done = program(str(tmp_path / 'one'), f'--out={tmp_path}/out', '--title=Só & <so>')
    assert done.returncode == 0, done.stderr
    assert '<h1>Só &amp; &lt;so&gt;</h1>' in (tmp_path / 'out' / 'index.html').read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['--out=o'], 'expected RUN_DIR ... --out=DIR, got no run directory'),
        (['{}', '--out=o', '--in_domain=x'], "--in_domain: expected one of one, got 'x'"),
    ],
)
def test_the_program_says_in_one_line_what_is_wrong(tmp_path, args, message):
    folder = fake_runs.make_run(tmp_path / 'one', [fake_runs.make_benchmark('one', names=('de',))])
    done = program(*(x.format(folder) for x in args))
    assert done.returncode == 2 and done.stderr.count('\n') == 1 and message in done.stderr


def test_a_run_whose_numbers_are_none_is_named_with_its_file(root, tmp_path):
    folder = fake_runs.make_run(
        tmp_path / 'one', [fake_runs.make_benchmark('one', names=('de', 'en'))]
    )
    path = folder / 'results' / '6' / 'one.json'
    numbers = json.loads(path.read_text())
    numbers['metrics']['multi']['map'] = float('nan')
    path.write_text(json.dumps(numbers))
    with pytest.raises(ValueError, match='6/one.json: metrics.multi.map: expected a finite number'):
        experiments.load_experiments([folder])
