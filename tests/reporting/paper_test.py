import numpy as np
import pytest

from hbt.reporting import experiments, paper
from tests import fake_runs

SAMPLINGS = ['X-X', 'X-Y', 'Hybrid']
PAPER = paper.load_paper()
TITLES = [*PAPER[PAPER.table > 2].groupby(['table', 'title'], sort=False).groups]


def columns(table, title):
    """Language -> the numbers of a table over languages, in the order of its columns."""
    part = PAPER[(PAPER.table == table) & (PAPER.title == title)]
    return {name: rows.value.tolist() for name, rows in part.groupby('language', sort=False)}


@pytest.mark.parametrize(('table', 'title'), TITLES)
def test_the_papers_means_are_those_of_its_rows(table, title):
    part = PAPER[(PAPER.table == table) & (PAPER.title == title)]
    rows = columns(table, title)
    *_, last = rows
    mean = rows.pop('Mean')
    headings = part[['heading', 'setting', 'metric']].drop_duplicates()
    assert last == 'Mean' and {len(row) for row in rows.values()} == {3 * len(headings)}
    assert part[part.language == 'Mean'].sampling.tolist() == SAMPLINGS * len(headings)
    digits = 0.06 if headings.metric.iloc[0] == 'rank_distance' else 0.00006
    np.testing.assert_allclose(np.mean([*rows.values()], axis=0), mean, rtol=0, atol=digits)


def test_the_papers_first_tables_are_its_others_rounded():
    assert len(PAPER) == 1080 and len(TITLES) == 12
    means = {x: columns(*x)['Mean'] for x in TITLES}
    overall = PAPER[PAPER.table < 3].groupby(['heading', 'sampling'], sort=False)
    assert [*overall.groups] == [(x, y) for x in ('XLM-R', 'LaBSE') for y in SAMPLINGS]
    for i, ((model, sampling), part) in enumerate(overall):
        row, j = part.value.tolist(), SAMPLINGS.index(sampling)
        for offset, name in ((0, 'XQuAD-R'), (3, 'MLQA-R')):
            (theirs,) = [x for (_, title), x in means.items() if title == f'{model}, {name}, mAP']
            np.testing.assert_allclose(row[offset : offset + 3], theirs[j::3], rtol=0, atol=0.00151)
        distance = [x[i] for (table, _), x in means.items() if table in (7, 8)]
        np.testing.assert_allclose(row[6:], distance, rtol=0, atol=0.51)


@pytest.fixture(scope='module')
def systems(tmp_path_factory):
    root = tmp_path_factory.mktemp('runs')
    cases = [
        fake_runs.make_benchmark('xquad_r'),
        fake_runs.make_benchmark('miracl:sw+yo', names=('sw', 'yo')),
    ]
    fake_runs.make_run(root / 'one', cases)
    return experiments.group_by_seed(experiments.load_experiments([root / 'one']))


def test_ours_stand_beside_theirs_in_every_setting(systems):
    tables = {x.name: x for x in paper.language_tables(systems)}
    assert list(tables) == [
        *('paper-3', 'paper-3-recall', 'paper-5', 'paper-5-recall', 'paper-7'),
        *('paper-12', 'paper-13'),
    ]
    (system,) = systems
    numbers = system.numbers['xquad_r']
    table = tables['paper-3-recall']
    assert table.frame.columns.tolist()[1:5] == [
        *(('mono R@1, paper', x) for x in SAMPLINGS),
        ('mono R@1, ours', 'one'),
    ]
    rows = {row[0]: row[1:] for row in table.frame.values.tolist()}
    assert rows['zh'][:3] == [0.7307, 0.6732, 0.7282]
    ours = [numbers['languages']['zh'][s] for s in ('mono', 'cross', 'multi')]
    metrics = ('recall@1', 'recall@1', 'recall@10')
    assert rows['zh'][3::4] == [x[m] for x, m in zip(ours, metrics, strict=True)]
    assert rows['Mean'][7] == pytest.approx(numbers['metrics']['cross']['recall@1'])
    distances = {row[0]: row[1:] for row in tables['paper-7'].frame.values.tolist()}
    assert len(distances['ar']) == 7
    assert distances['Mean'][6] == pytest.approx(numbers['metrics']['multi']['rank_distance'])


def test_our_mean_is_empty_where_a_language_is_missing(systems):
    table = {x.name: x for x in paper.language_tables(systems)}['paper-12']
    rows = {row[0]: row[1:] for row in table.frame.values.tolist()}
    assert rows['sw'][3] > 0 and np.isnan(rows['bn'][3]) and np.isnan(rows['Mean'][3])


def test_the_overall_tables_have_the_papers_rows_and_ours(systems):
    first, second = paper.overall_tables(systems)
    assert first.frame['', 'system'].tolist() == [
        *(f'paper: {model} {x}' for model in ('XLM-R', 'LaBSE') for x in SAMPLINGS),
        'one',
    ]
    metrics = systems[0].numbers['xquad_r']['metrics']
    row = first.frame.values[-1].tolist()
    assert row[1:4] == [metrics[x]['map'] for x in ('mono', 'cross', 'multi')]
    assert np.isnan(row[4:]).all() and len(row) == 7
    xquad_r, mlqa_r = second.frame.values[-1, 1:]
    assert xquad_r == metrics['multi']['rank_distance'] and np.isnan(mlqa_r)


def test_a_run_without_the_papers_benchmarks_has_none_of_its_tables(tmp_path):
    fake_runs.make_run(tmp_path / 'one', [fake_runs.make_benchmark('other', names=('de', 'en'))])
    systems = experiments.group_by_seed(experiments.load_experiments([tmp_path / 'one']))
    assert paper.overall_tables(systems) == paper.language_tables(systems) == []
