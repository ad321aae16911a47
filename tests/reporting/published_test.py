import numpy as np
import pytest

from hbt.reporting import experiments, paper, published
from tests import fake_runs


@pytest.mark.parametrize('table', paper.TABLES, ids=lambda x: f'{x.number} {x.title}')
def test_the_papers_means_are_those_of_its_rows(table):
    *rows, mean = table.rows.values()
    assert {len(row) for row in rows} == {3 * len(table.groups)} == {len(mean)}
    digits = 0.06 if table.groups[0].metric == 'rank_distance' else 0.00006
    np.testing.assert_allclose(np.mean(rows, axis=0), mean, rtol=0, atol=digits)


def test_the_papers_first_tables_are_its_others_rounded():
    rows = [[float(x) for x in line.split()[2:]] for line in paper.OVERALL.strip().split('\n')]
    means = {(x.number, x.groups): x.rows['Mean'] for x in paper.TABLES}
    for i, row in enumerate(rows):
        model, sampling = divmod(i, 3)
        for offset, number in ((0, 3 + 2 * model), (3, 4 + 2 * model)):
            theirs = [means[number, paper.MAP][3 * j + sampling] for j in range(3)]
            np.testing.assert_allclose(row[offset : offset + 3], theirs, rtol=0, atol=0.00151)
        distance = [means[x, paper.DISTANCE][i] for x in (7, 8)]
        np.testing.assert_allclose(row[6:], distance, rtol=0, atol=0.51)


@pytest.fixture(scope='module')
def systems(tmp_path_factory):
    root = tmp_path_factory.mktemp('runs')
    cases = [
        fake_runs.make_benchmark('xquad_r'),
        fake_runs.make_benchmark('miracl:sw+yo', names=('sw', 'yo')),
    ]
    fake_runs.make_run(root / 'one', cases)
    return experiments.systems(experiments.load_runs([root / 'one']))


def test_ours_stand_beside_theirs_in_every_setting(systems):
    tables = {x.name: x for x in published.by_language(systems)}
    assert list(tables) == [
        *('paper-3', 'paper-3-recall', 'paper-5', 'paper-5-recall', 'paper-7'),
        *('paper-12', 'paper-13'),
    ]
    (system,) = systems
    numbers = system.numbers('xquad_r')
    table = tables['paper-3-recall']
    assert [(x.group, x.name) for x in table.columns[1:5]] == [
        *(('mono R@1, paper', x) for x in paper.SAMPLINGS),
        ('mono R@1, ours', 'one'),
    ]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows['zh'][:3] == [0.7307, 0.6732, 0.7282]
    ours = [numbers['languages']['zh'][s] for s in ('mono', 'cross', 'multi')]
    metrics = ('recall@1', 'recall@1', 'recall@10')
    assert rows['zh'][3::4] == [x[m] for x, m in zip(ours, metrics, strict=True)]
    assert rows['Mean'][7] == pytest.approx(numbers['metrics']['cross']['recall@1'])
    distances = {row[0]: row[1:] for row in tables['paper-7'].rows}
    assert len(distances['ar']) == 7
    assert distances['Mean'][6] == pytest.approx(numbers['metrics']['multi']['rank_distance'])


def test_our_mean_is_empty_where_a_language_is_missing(systems):
    table = {x.name: x for x in published.by_language(systems)}['paper-12']
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows['sw'][3] is not None and rows['bn'][3] is None and rows['Mean'][3] is None


def test_the_overall_tables_have_the_papers_rows_and_ours(systems):
    first, second = published.overall(systems)
    assert [row[0] for row in first.rows] == [
        *(f'paper: {model} {x}' for model in ('XLM-R', 'LaBSE') for x in paper.SAMPLINGS),
        'one',
    ]
    metrics = systems[0].numbers('xquad_r')['metrics']
    assert first.rows[-1][1:4] == [metrics[x]['map'] for x in ('mono', 'cross', 'multi')]
    assert first.rows[-1][4:] == [None] * 3
    assert second.rows[-1][1:] == [metrics['multi']['rank_distance'], None]


def test_a_run_without_the_papers_benchmarks_has_none_of_its_tables(tmp_path):
    fake_runs.make_run(tmp_path / 'one', [fake_runs.make_benchmark('other', names=('de', 'en'))])
    systems = experiments.systems(experiments.load_runs([tmp_path / 'one']))
    assert published.overall(systems) == published.by_language(systems) == []
