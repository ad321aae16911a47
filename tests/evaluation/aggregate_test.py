import json
import math

import numpy as np
import pytest

from hbt.evaluation import aggregate, benchmarks, metrics
from hbt.utils import languages
from tests import ROOT


def check(values, expected):
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def judged(languages, query_languages, document_languages, relevant, grades=None):
    """A benchmark without texts, of which metrics need none."""
    texts = benchmarks.TextColumns([], [], [])
    codes = query_languages, document_languages
    return benchmarks.Benchmark('judged', texts, texts, languages, *codes, relevant, grades)


def two_languages():
    """Queries de1 (answered in de and en), de2 (in de only), en1 (in de and en)."""
    case = judged(
        ['de', 'en'],
        query_languages=np.array([0, 0, 1], np.int32),
        document_languages=np.array([0, 1, 0], np.int32),
        relevant=np.array([[0, 1], [0, -1], [0, 1]], np.int32),
    )
    own = np.array([[1, 2], [4, 0], [5, 1]], np.int32)
    pooled = np.array([[1, 3], [6, 0], [9, 2]], np.int32)
    return case, aggregate.compute_query_metrics(case, own, pooled)


def test_a_query_without_an_answer_in_the_corpus_language_is_dropped_from_that_pair():
    pairs = aggregate.aggregate_metrics(*two_languages())['pairs']
    queries = {pair: row['queries'] for pair, row in pairs.items()}
    assert queries == {'de-de': 2, 'de-en': 1, 'en-de': 1, 'en-en': 1}
    assert pairs['de-en']['map'] == 1 / 2
    assert pairs['de-de']['map'] == (1 + 1 / 4) / 2


def test_mono_cross_and_multi_are_macro_averages_over_pairs_and_query_languages():
    tree = aggregate.aggregate_metrics(*two_languages())
    check(tree['metrics']['mono']['map'], ((1 + 1 / 4) / 2 + 1) / 2)
    check(tree['metrics']['cross']['map'], (1 / 2 + 1 / 5) / 2)
    x, y = ((1 + 2 / 3) / 2 + 1 / 6) / 2, (1 / 2 + 2 / 9) / 2
    check(tree['metrics']['multi']['map'], (x + y) / 2)
    check(tree['metrics']['multi']['rank_distance'], ((2 + 0) / 2 + 7) / 2)
    check(tree['metrics']['multi']['preference'], 1)  # de1 finds de first, en1 finds en first
    check(tree['languages']['de']['multi']['map'], x)
    check(tree['languages']['en']['cross']['map'], 1 / 5)
    assert set(tree['languages']['de']['mono']) == set(metrics.METRICS)
    assert tree['scripts']['Latn'] == tree['metrics']
    assert tree['resources'] == {'5': tree['metrics']}
    assert tree['families'] == {'European-European': tree['metrics']['cross']}


def test_a_single_language_has_no_cross():
    case = judged(['de'], *(np.zeros(1, np.int32),) * 2, np.zeros((1, 1), np.int32))
    one = np.ones((1, 1), np.int32)
    tree = aggregate.aggregate_metrics(case, aggregate.compute_query_metrics(case, one, one))
    assert set(tree['metrics']) == set(tree['languages']['de']) == {'mono', 'multi'}
    assert list(tree['pairs']) == ['de-de'] and tree['families'] == {}


def test_what_no_query_can_answer_is_left_out_not_nan():
    each = np.array([0, 1], np.int32)
    case = judged(['de', 'en'], each, each, np.full((2, 1), -1, np.int32))
    none = np.zeros((2, 1), np.int32)
    tree = aggregate.aggregate_metrics(case, aggregate.compute_query_metrics(case, none, none))
    assert set(map(len, tree.values())) == {0}
    # The only query in German is answered in English; the one in English is not at all.
    case = case._replace(relevant=np.array([[1], [-1]], np.int32))
    one = np.array([[3], [0]], np.int32)
    tree = aggregate.aggregate_metrics(case, aggregate.compute_query_metrics(case, one, one))
    assert list(tree['pairs']) == ['de-en'] and list(tree['languages']) == ['de']
    assert set(tree['metrics']) == {'cross', 'multi'}
    json.dumps(tree, allow_nan=False)


def test_a_perfect_pooled_ranking_reaches_a_recall_at_10_of_10_in_11():
    names = 'ar de el en es hi ru th tr vi zh'.split()
    each = np.arange(11, dtype=np.int32)
    relevant = np.tile(each, (11, 1))
    case = judged(names, each, each, relevant)
    values = aggregate.compute_query_metrics(case, np.ones_like(relevant), relevant + 1)
    tree = aggregate.aggregate_metrics(case, values)
    check(tree['metrics']['multi']['recall@10'], 10 / 11)
    assert tree['metrics']['multi']['map'] == tree['metrics']['cross']['recall@1'] == 1
    assert len(tree['pairs']) == 121
    assert set(tree['scripts']) == {'Arab', 'Cyrl', 'Deva', 'Grek', 'Hans', 'Latn', 'Thai'}
    assert set(tree['resources']) == {'3', '4', '5'}


def test_blocks_of_queries_do_not_change_a_value(monkeypatch):
    chance = np.random.default_rng(0)
    relevant = np.sort(chance.integers(0, 50, (37, 4)), axis=1).astype(np.int32)
    case = judged(
        ['de', 'en', 'zh'],
        chance.integers(0, 3, 37).astype(np.int32),
        chance.integers(0, 3, 50).astype(np.int32),
        relevant,
        chance.integers(1, 4, relevant.shape).astype(np.int32),
    )
    ranks = chance.integers(1, 60, (2, 37, 4)).astype(np.int32)
    expected = aggregate.compute_query_metrics(case, *ranks)
    monkeypatch.setattr(aggregate, 'BLOCK_RANKS', 40)
    blocks = aggregate.compute_query_metrics(case, *ranks)
    for a, b in ((expected.per_language, blocks.per_language), (expected.pooled, blocks.pooled)):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    unjudged = aggregate.compute_query_metrics(case._replace(grades=None), *ranks)
    assert (expected.pooled['ndcg@10'] != unjudged.pooled['ndcg@10']).any()


def test_a_query_language_needs_no_documents_of_its_own():
    """Questions in Swahili over English documents: cross-lingual and pooled, not monolingual."""
    case = judged(
        ['en', 'sw'], np.ones(2, np.int32), np.zeros(3, np.int32), np.array([[0], [2]], np.int32)
    )
    ranks = np.array([[1], [2]], np.int32)
    tree = aggregate.aggregate_metrics(case, aggregate.compute_query_metrics(case, ranks, ranks))
    assert list(tree['pairs']) == ['sw-en'] and set(tree['metrics']) == {'cross', 'multi'}
    assert math.isclose(tree['metrics']['multi']['mrr'], 3 / 4)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['xquad_r', 'mlqa_r'])
def test_the_best_possible_run_on_real_files_has_the_known_ceilings(name, shared_data):
    benchmark = benchmarks.load_benchmark(name, shared_data)
    pooled = np.where(benchmark.relevant >= 0, np.arange(benchmark.relevant.shape[1]) + 1, 0)
    pooled = pooled.astype(np.int32)
    own = (pooled > 0).astype(np.int32)
    tree = aggregate.aggregate_metrics(
        benchmark, aggregate.compute_query_metrics(benchmark, own, pooled)
    )
    assert tree['metrics']['multi']['map'] == tree['metrics']['mono']['map'] == 1
    check(tree['metrics']['multi']['recall@10'], 10 / 11 if name == 'xquad_r' else 1)
    check(tree['metrics']['multi']['rank_distance'], 10) if name == 'xquad_r' else None
    if name == 'mlqa_r':
        usable = {pair: row['queries'] for pair, row in tree['pairs'].items()}
        assert usable['ar-de'] == 207 and usable['en-en'] == 1148 and usable['zh-vi'] == 184


def test_scripts_families_and_resources_of_the_benchmarks_languages():
    assert [languages.script(x) for x in 'ar en ru el hi th zh ja ko'.split()] == (
        'Arab Latn Cyrl Grek Deva Thai Hans Jpan Kore'.split()
    )
    assert languages.script('zh-Hant') == 'Hant' and languages.script('pt_BR') == 'Latn'
    assert languages.script('sr-Latn') == 'Latn' and languages.script('und') == 'Latn'
    families = {
        languages.script_family(x) for x in 'ar bn en fa hi ja ko ru sw te th yo zh'.split()
    }
    assert families == {
        'European',
        'Middle Eastern',
        'South Asian',
        'Southeast Asian',
        'East Asian',
    }
    expected = dict(en='5', zh='5', vi='4', th='3', id='3', sw='2', yo='2', te='1', tlh='unknown')
    assert {x: languages.resource_class(x) for x in expected} == expected
    lines = (ROOT / 'hbt/utils/languages.csv').read_text().splitlines()
    listed = [line.split(',')[0] for line in lines]
    assert len(listed) == len(set(listed))
