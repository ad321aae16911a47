import os
import pathlib

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from hbt import benchmarks, metrics, search

DATA = pathlib.Path(os.environ.get('HBT_DATA', pathlib.Path(__file__).parents[2] / 'shared/data'))
MEASURES = {
    'map': metrics.average_precision,
    'map_cut_10': lambda ranks: metrics.average_precision(ranks, 10),
    'recip_rank': metrics.reciprocal_rank,
    'recall_1': lambda ranks: metrics.recall(ranks, 1),
    'recall_10': lambda ranks: metrics.recall(ranks, 10),
    'recall_100': lambda ranks: metrics.recall(ranks, 100),
    'ndcg_cut_10': lambda ranks: metrics.ndcg(ranks, 10),
}
ONES = np.ones((4, 3), np.float32)


def small(generator, *shape):
    """Small integers: dot products of them are exact in float32, and many are equal."""
    return generator.integers(-2, 3, shape).astype(np.float32)


def oracle(scores, relevant, corpus):
    """(own, pooled) ranks in plain Python, by sorting."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    for target in relevant:
        if target < 0:
            yield 0, 0
        else:
            alone = [i for i in order if corpus[i] == corpus[target]]
            yield 1 + alone.index(target), 1 + order.index(target)


@hypothesis.given(st.integers(1, 7), st.integers(1, 12), st.integers(1, 4), st.randoms())
@hypothesis.settings(max_examples=30, deadline=None)
def test_ranks_are_those_of_sorting_with_ties_to_the_smaller_index(q, n, r, random):
    generator = np.random.default_rng(random.randrange(2**32))
    queries, documents = small(generator, q, 3), small(generator, n, 3)
    relevant, corpus = generator.integers(-1, n, (q, r)), generator.integers(0, 3, n)
    found = np.stack(search.ranks(queries, documents, relevant, corpus), axis=-1)  # q r 2
    scores = (queries @ documents.T).tolist()
    assert found.tolist() == [
        [list(pair) for pair in oracle(*row, corpus)] for row in zip(scores, relevant, strict=True)
    ]


def test_blocks_do_not_change_a_result(monkeypatch):
    generator = np.random.default_rng(0)
    inputs = small(generator, 25, 4), small(generator, 40, 4)
    relevant, corpus = generator.integers(-1, 40, (25, 3)), generator.integers(0, 3, 40)
    whole = [*search.ranks(*inputs, relevant, corpus), *search.top_k(*inputs, 7)]
    monkeypatch.setattr(search, 'QUERIES_HELD', 10)
    clear_caches()
    blocks = [*search.ranks(*inputs, relevant, corpus), *search.top_k(*inputs, 7)]
    clear_caches()
    for a, b in zip(whole, blocks, strict=True):
        np.testing.assert_array_equal(a, b)


def clear_caches():
    search._ranks.clear_cache()
    search._top_k.clear_cache()


def test_top_k_gives_the_best_first_and_ties_to_the_smaller_index():
    generator = np.random.default_rng(0)
    queries, documents = small(generator, 50, 3), small(generator, 300, 3)
    scores, indices = search.top_k(queries, documents, 20)
    exact = queries @ documents.T
    expected = np.argsort(-exact, axis=1, kind='stable')[:, :20]
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(scores, np.take_along_axis(exact, expected, axis=1))


def test_zero_and_minus_zero_are_a_tie(monkeypatch):
    scores = jnp.array([[-0.0, 0.0, -0.0, 1.0]])
    monkeypatch.setattr(search, '_scores', lambda queries, documents: scores)
    clear_caches()
    _, indices = search.top_k(ONES[:1], ONES, 4)
    clear_caches()
    assert indices.tolist() == [[3, 0, 1, 2]]


def test_top_k_and_ranks_agree():
    generator = np.random.default_rng(1)
    queries, documents = small(generator, 30, 4), small(generator, 90, 4)
    _, indices = search.top_k(queries, documents, 90)
    relevant = generator.integers(0, 90, (30, 2))
    _, pooled = search.ranks(queries, documents, relevant, np.zeros(90, np.int32))
    np.testing.assert_array_equal(np.take_along_axis(indices, pooled - 1, axis=1), relevant)


def bad(array, *values):
    array = array.copy()
    array[: len(values), 0] = values
    return array


@pytest.mark.parametrize(
    ('queries', 'documents', 'message'),
    [
        (bad(ONES, np.nan), ONES, r'queries: expected finite embeddings, .* in 1 of 4'),
        (ONES, bad(ONES, np.nan, np.inf), r'documents: expected finite embeddings, .* in 2 of 4'),
        (ONES, ONES[:, :2], 'expected embeddings of one dimension, got 3 and 2'),
        (ONES[:0], ONES, 'queries: expected at least one embedding, got none'),
        (ONES * 2e19, bad(ONES, 2e19), 'scores: expected finite dot products, got 4 beyond'),
    ],
)
def test_embeddings_that_give_no_ranking_are_refused(queries, documents, message):
    relevant, corpus = np.zeros((len(queries), 1), np.int32), np.zeros(len(documents), np.int32)
    with pytest.raises(ValueError, match=message):
        search.ranks(queries, documents, relevant, corpus)
    with pytest.raises(ValueError, match=message):
        search.top_k(queries, documents, 1)


@pytest.mark.parametrize('row', [-2, 4])
def test_a_relevant_document_that_is_none_is_refused(row):
    relevant = np.array([[0], [1], [2], [row]])
    with pytest.raises(ValueError, match='relevant: expected document indices below 4, or -1'):
        search.ranks(ONES, ONES, relevant, np.zeros(4, np.int32))


@pytest.mark.parametrize('k', [0, 5])
def test_more_documents_than_there_are_cannot_be_listed(k):
    with pytest.raises(ValueError, match=rf'k: expected 1 to 4 \(the documents\), got {k}'):
        search.top_k(ONES, ONES, k)


@pytest.fixture(scope='module')
def xquad_r():
    """XQuAD-R with random embeddings of many ties, and the ranks that they give."""
    if not (DATA / 'xquad-r').is_dir():
        pytest.skip(f'no {DATA}/xquad-r; HBT_DATA names the directory that holds it')
    benchmark = benchmarks.load('xquad_r', DATA)
    generator = np.random.default_rng(0)
    documents = small(generator, len(benchmark.documents.ids), 16)
    rows = np.arange(len(benchmark.relevant))
    # Near one of its answers, so that the metrics are far from 0.
    centres = documents[benchmark.relevant[rows, generator.integers(11, size=len(rows))]]
    queries = np.clip(centres + small(generator, *centres.shape), -2, 2)
    codes = np.unique(benchmark.documents.languages, return_inverse=True)[1]
    return (
        benchmark,
        queries,
        documents,
        search.ranks(queries, documents, benchmark.relevant, codes),
    )


def compare(xquad_r, rows, language=None):
    """These queries' metrics against trec_eval's on all scores; in one corpus, or in the union."""
    benchmark, _, _, (own, pooled) = xquad_r
    languages = np.array(benchmark.documents.languages)
    if language is None:
        ranks, corpus = pooled, np.arange(len(languages))
    else:
        ranks = np.where(languages[benchmark.relevant] == language, own, 0)
        corpus = np.flatnonzero(languages == language)
    chunks = np.array_split(rows, 1 + len(rows) // 200)  # a run of all scores fills gigabytes
    results = [row for chunk in chunks for row in run_trec_eval(xquad_r, chunk, corpus)]
    for measure, score in MEASURES.items():
        expected = np.array([row[measure] for row in results])
        found = np.asarray(score(ranks))[rows]
        np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=measure)
        assert abs(metrics.mean(found) - expected.mean()) < 1e-6
        assert expected.mean() > 0.001, measure


def run_trec_eval(xquad_r, rows, corpus):
    pytrec_eval = pytest.importorskip('pytrec_eval')
    benchmark, queries, documents, _ = xquad_r
    names = [benchmark.queries.ids[row] for row in rows]
    ids = [benchmark.documents.ids[row] for row in corpus]
    answers = [np.intersect1d(benchmark.relevant[row], corpus) for row in rows]
    qrels = {
        name: {benchmark.documents.ids[i]: 1 for i in answer}
        for name, answer in zip(names, answers, strict=True)
    }
    scores = (queries[rows] @ documents[corpus].T).tolist()
    run = {name: dict(zip(ids, row, strict=True)) for name, row in zip(names, scores, strict=True)}
    wanted = {'map', 'map_cut.10', 'recip_rank', 'recall.1,10,100', 'ndcg_cut.10'}
    results = pytrec_eval.RelevanceEvaluator(qrels, wanted).evaluate(run)
    return [results[name] for name in names]


def test_the_pooled_metrics_of_xquad_r_are_those_of_trec_eval_ties_included(xquad_r):
    compare(xquad_r, np.arange(0, len(xquad_r[1]), 20))


@pytest.mark.parametrize('pair', ['en-en', 'de-th', 'zh-ar'])
def test_the_metrics_of_a_language_pair_are_those_of_trec_eval_ties_included(xquad_r, pair):
    asked, language = pair.split('-')
    rows = np.flatnonzero(np.array(xquad_r[0].queries.languages) == asked)
    compare(xquad_r, rows, language)


@pytest.mark.slow
def test_every_pooled_metric_of_all_xquad_r_queries_is_that_of_trec_eval(xquad_r):
    compare(xquad_r, np.arange(len(xquad_r[1])))


def test_random_embeddings_have_the_rank_distance_that_chance_gives(xquad_r):
    benchmark = xquad_r[0]
    generator = np.random.default_rng(0)
    queries = generator.standard_normal((1000, 16), np.float32)
    documents = generator.standard_normal((len(benchmark.documents.ids), 16), np.float32)
    corpus = np.zeros(len(documents), np.int32)
    _, pooled = search.ranks(queries, documents, benchmark.relevant[::13][:1000], corpus)
    found = metrics.mean(metrics.rank_distance(pooled))
    assert abs(found / 10846 - 1) < 0.02


def test_a_written_run_keeps_the_pooled_ranks_in_trec_eval(xquad_r, tmp_path):
    pytrec_eval = pytest.importorskip('pytrec_eval')
    benchmark, queries, documents, (_, pooled) = xquad_r
    rows = np.arange(0, len(queries), 100)
    part = benchmark._replace(
        queries=benchmarks.Texts(*([column[i] for i in rows] for column in benchmark.queries)),
        relevant=benchmark.relevant[rows],
    )
    _, top = search.top_k(queries[rows], documents, 100)
    benchmarks.write_run(tmp_path / 'run', part, np.asarray(top), 'hbt')
    benchmarks.write_qrels(tmp_path / 'qrels', part)
    with open(tmp_path / 'run') as run, open(tmp_path / 'qrels') as qrels:
        evaluator = pytrec_eval.RelevanceEvaluator(pytrec_eval.parse_qrel(qrels), {'map_cut.100'})
        results = evaluator.evaluate(pytrec_eval.parse_run(run))
    expected = [results[name]['map_cut_100'] for name in part.queries.ids]
    found = metrics.average_precision(pooled, 100)[rows]
    np.testing.assert_allclose(found, expected, atol=1e-6)
