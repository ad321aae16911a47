import statistics

import pytest

from hbt import config
from hbt.reporting import breakdowns, comparison, experiments
from hbt.utils import languages
from tests import fake_runs

NAMES = ('ar', 'el', 'en', 'hi', 'ja', 'ru', 'sw', 'th')
HIGH, SIMILAR = breakdowns.DIVISIONS


@pytest.fixture(scope='module')
def systems(tmp_path_factory):
    """One run on English, Greek and Chinese, and results of a model of which nothing is known."""
    root = tmp_path_factory.mktemp('runs')
    case = fake_runs.make_benchmark(names=NAMES, questions=8)
    fake_runs.make_run(root / 'known', [case], noise=1.0)
    c = config.load(root / 'known' / 'config.json')
    c.sampler.languages = ('en', 'el', 'zh')
    config.save(c, root / 'known' / 'config.json')
    fake_runs.save_result(root / 'model', case, noise=1.0, seed=1)
    return experiments.group_by_seed(experiments.load_experiments([root / 'known', root / 'model']))


def cells(table, system, number):
    """Heading -> value of a row; two headings for every group."""
    frame = table.frame.set_axis([' '.join(x).strip() for x in table.frame.columns], axis=1)
    ((_, row),) = frame[(frame.system == system.label) & (frame.number == number)].iterrows()
    return row.to_dict()


def test_high_and_low_resources_are_means_over_their_languages_and_pairs(systems):
    table = breakdowns.group_gaps(comparison.make_comparison(systems, 'xquad_r'), HIGH)
    tree = systems[0].numbers['xquad_r']
    high = [x for x in NAMES if languages.resource_class(x) in ('4', '5')]
    assert high == ['ar', 'en', 'hi', 'ja', 'ru']
    for number, pairs in (
        ('mono mAP', [f'{x}-{x}' for x in high]),
        ('cross mAP', [f'{x}-{c}' for x in high for c in NAMES if x != c]),
    ):
        row = cells(table, systems[0], number)
        assert row['high languages'] == 5 and row['low languages'] == 3
        expected = statistics.fmean(tree['pairs'][pair]['map'] for pair in pairs)
        assert row['high mean'] == pytest.approx(expected)
        drop = row['low mean'] - row['high mean']
        assert row['last less first'] == pytest.approx(drop)
    distance = cells(table, systems[0], 'rank distance')
    low = [tree['languages'][x]['multi']['rank_distance'] for x in ('el', 'sw', 'th')]
    assert distance['low mean'] == pytest.approx(statistics.fmean(low))


def test_a_group_of_all_languages_has_the_mean_of_the_evaluation(systems):
    for measure in comparison.MAIN:
        tree = systems[0].numbers['xquad_r']
        expected = tree['metrics'][measure.setting][measure.metric]
        assert breakdowns.language_mean(tree, NAMES, measure) == pytest.approx(expected)


def test_languages_are_grouped_by_what_they_share_with_those_of_the_training(systems):
    """Swahili has the script of English, Japanese the family of Chinese, Russian that of Greek."""
    table = breakdowns.group_gaps(comparison.make_comparison(systems, 'xquad_r'), SIMILAR)
    assert {*table.frame['', 'system']} == {systems[0].label}
    row = cells(table, systems[0], 'mono mAP')
    counts = [row[f'{group} languages'] for group in breakdowns.SHARED]
    assert counts == [2, 1, 2, 3]
    tree = systems[0].numbers['xquad_r']['pairs']
    assert row['script mean'] == pytest.approx(tree['sw-sw']['map'])
    assert row['family of scripts mean'] == pytest.approx(
        (tree['ja-ja']['map'] + tree['ru-ru']['map']) / 2
    )


def test_one_group_is_no_breakdown(systems, tmp_path):
    fake_runs.make_run(tmp_path / 'one', [fake_runs.make_benchmark('one', names=('en', 'de'))])
    alone = experiments.group_by_seed(experiments.load_experiments([tmp_path / 'one']))
    assert breakdowns.group_gaps(comparison.make_comparison(alone, 'one'), HIGH) is None
    assert breakdowns.group_gaps(comparison.make_comparison(alone, 'one'), SIMILAR) is None


def test_pairs_of_one_script_and_of_two_are_apart(systems):
    table = breakdowns.script_pairs(comparison.make_comparison(systems, 'xquad_r'))
    tree = systems[0].numbers['xquad_r']['pairs']
    row = table.frame.values[0].tolist()
    within = [tree[pair]['map'] for pair in ('en-sw', 'sw-en')]
    assert row[1:3] == [2, pytest.approx(statistics.fmean(within))] and row[3] == 8 * 7 - 2
    across = [
        numbers['map']
        for pair, numbers in tree.items()
        if pair[:2] != pair[3:] and pair not in ('en-sw', 'sw-en')
    ]
    assert row[4] == pytest.approx(statistics.fmean(across))
    assert row[5] == pytest.approx(row[2] - row[4])


def test_every_script_has_the_numbers_of_the_evaluation(systems):
    table = breakdowns.by_group(comparison.make_comparison(systems, 'xquad_r'), 'scripts')
    tree = systems[0].numbers['xquad_r']['scripts']
    rows = {row[0]: row[1:] for row in table.frame.values.tolist()}
    assert rows['Latn'][:2] == ['en sw', tree['Latn']['mono']['map']]
