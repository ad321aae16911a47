import tracemalloc

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hbt.evaluation import benchmarks, bias, metrics, rank_counts, search, trec
from hbt.utils import sharding

MEASURES = {
    'map': metrics.average_precision,
    'map_cut_10': lambda ranks: metrics.average_precision(ranks, 10),
    'recip_rank': metrics.reciprocal_rank,
    'recall_1': lambda ranks: metrics.recall(ranks, 1),
    'recall_10': lambda ranks: metrics.recall(ranks, 10),
    'recall_100': lambda ranks: metrics.recall(ranks, 100),
    'ndcg_cut_10': lambda ranks: metrics.ndcg(ranks, 10),
    'Rprec': metrics.r_precision,
    'success_1': lambda ranks: metrics.success(ranks, 1),
}
ONES = np.ones((4, 3), np.float32)


def small(generator, *shape):
    """Small integers: dot products of them are exact in float32, and many are equal."""
    return generator.integers(-2, 3, shape).astype(np.float32)


def oracle(scores, relevant, excluded, languages, k):
    """(own, pooled, top) in plain Python, by sorting."""
    allowed = [i for i in range(len(scores)) if i not in excluded]
    order = sorted(allowed, key=lambda i: (-scores[i], i))
    own, pooled = [], []
    for target in relevant:
        same_language = [i for i in order if languages[i] == languages[target]]
        own.append(0 if target < 0 else 1 + same_language.index(target))
        pooled.append(0 if target < 0 else 1 + order.index(target))
    return own, pooled, (order + [-1])[:k]


def draw(generator, q, n, r):
    """Inputs of a search: rows of r relevant documents or fewer, then padding; one excluded."""
    relevant, excluded = np.full((q, r), -1, np.int32), np.full((q, 1), -1, np.int32)
    for row, other in zip(relevant, excluded, strict=True):
        chosen = generator.permutation(n)[: generator.integers(0, min(r, n - 1) + 1) + 1]
        row[: len(chosen) - 1] = sorted(chosen[1:])
        other[0] = generator.choice([-1, chosen[0]])
    languages = generator.integers(0, 3, n).astype(np.int32)
    return small(generator, q, 3), small(generator, n, 3), relevant, languages, excluded


def check_against_oracle(queries, documents, relevant, languages, excluded, k, mesh=None):
    result = search.search(queries, documents, relevant, languages, k, excluded, mesh)
    scores = (queries @ documents.T).tolist()
    for i, row in enumerate(scores):
        own, pooled, top = oracle(row, relevant[i].tolist(), set(excluded[i]), languages, k)
        assert (
            result.per_language_ranks[i].tolist() == own
            and result.pooled_ranks[i].tolist() == pooled
        )
        assert result.top_k[i].tolist() == top
        ranked = [d for d in top if d >= 0]
        assert result.scores[i, : len(ranked)].tolist() == [row[d] for d in ranked]


@hypothesis.given(st.integers(1, 7), st.integers(2, 12), st.integers(0, 4), st.randoms())
@hypothesis.settings(max_examples=20)
def test_a_search_is_that_of_sorting_with_ties_to_the_smaller_index(q, n, r, random):
    generator = np.random.default_rng(random.randrange(2**32))
    inputs = draw(generator, q, n, r)
    check_against_oracle(*inputs, k=int(generator.integers(0, n + 1)))


@pytest.mark.parametrize('devices', [1, 3, 8])
@pytest.mark.parametrize('size', [64, 2**15])
def test_blocks_and_devices_do_not_change_a_result(size, devices, monkeypatch):
    """Documents in one piece or streamed in many, queries too, on any number of devices."""
    generator = np.random.default_rng(0)
    mesh = sharding.make_mesh(jax.devices()[:devices])
    monkeypatch.setattr(search, 'DEVICE_DOCUMENTS', size)
    monkeypatch.setattr(search, 'DEVICE_SCORES', 64 * devices * 2)
    inputs = draw(generator, 41, 1700, 9)
    check_against_oracle(*inputs, k=70, mesh=mesh)


def test_top_k_by_strips_keeps_ties_in_order():
    generator = np.random.default_rng(0)
    scores = generator.integers(-9, 10, (6, 4096)).astype(np.float32)
    scores[0] = 1
    best, index = rank_counts.select_top_k(jnp.asarray(scores), 3)
    expected = np.argsort(-scores, axis=1, kind='stable')[:, :3]
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_array_equal(best, np.take_along_axis(scores, expected, axis=1))


def test_zero_and_minus_zero_tie_and_nan_is_last():
    scores = jnp.array([[-0.0, 0.0, jnp.nan, -0.0, 1.0, -jnp.inf]])
    _, indices = rank_counts.select_top_k(scores, 4)
    assert indices.tolist() == [[4, 0, 1, 3]]


def test_documents_in_a_file_give_the_same_and_stay_out_of_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(search, 'DEVICE_DOCUMENTS', 128)
    generator = np.random.default_rng(0)
    queries, _, relevant, languages, excluded = draw(generator, 9, 40_000, 2)
    documents = small(generator, 40_000, 3)
    np.save(tmp_path / 'documents.npy', documents)
    expected = search.search(queries, documents, relevant, languages, 5, excluded)
    mapped = np.load(tmp_path / 'documents.npy', mmap_mode='r')
    tracemalloc.start()
    result = search.search(queries, mapped, relevant, languages, 5, excluded)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    for a, b in zip(result, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert peak < documents.nbytes
    part = search.search(queries, mapped[10:], np.zeros((9, 0), np.int32), languages[10:], 5)
    in_memory = search.search(
        queries, documents[10:], np.zeros((9, 0), np.int32), languages[10:], 5
    )
    np.testing.assert_array_equal(part.top_k, in_memory.top_k)


def test_the_score_of_a_document_does_not_depend_on_its_index(monkeypatch):
    """Copies tie exactly, wherever they are, so that the ids decide, as in trec_eval."""
    monkeypatch.setattr(search, 'DEVICE_DOCUMENTS', 256)
    generator = np.random.default_rng(0)
    queries = generator.standard_normal((37, 48)).astype(np.float32)
    documents = np.tile(generator.standard_normal((1, 48)).astype(np.float32), (3000, 1))
    relevant = np.sort(generator.permutation(3000)[:74].reshape(37, 2), axis=1).astype(np.int32)
    result = search.search(queries, documents, relevant, np.zeros(3000, np.int32), 7)
    np.testing.assert_array_equal(result.pooled_ranks, relevant + 1)
    np.testing.assert_array_equal(result.top_k, np.tile(np.arange(7), (37, 1)))


def replace_first(array, *values):
    array = array.copy()
    array[: len(values), 0] = values
    return array


@pytest.mark.parametrize(
    ('queries', 'documents', 'message'),
    [
        (
            replace_first(ONES, np.nan),
            ONES,
            r'queries: expected finite .* NaN .* first in row 0 of 4',
        ),
        (
            ONES,
            replace_first(ONES, 1, np.inf),
            r'documents: expected finite .*, first in row 1 of 4',
        ),
        (ONES, ONES[:, :2], 'expected embeddings of one dimension, got 3 and 2'),
        (ONES[:0], ONES, 'queries: expected at least one embedding, got none'),
        (ONES, ONES[:0], 'documents: expected at least one embedding, got none'),
        (
            replace_first(ONES, 2e19),
            ONES,
            r'queries: expected embeddings whose squares .* 2e\+19',
        ),
    ],
)
def test_embeddings_that_give_no_ranking_are_refused(queries, documents, message):
    relevant, languages = np.zeros((len(queries), 1), np.int32), np.zeros(len(documents), np.int32)
    with pytest.raises(ValueError, match=message):
        search.search(queries, documents, relevant, languages, 1)


@pytest.mark.parametrize(
    ('relevant', 'k', 'message'),
    [
        ([[0], [1], [2], [-2]], 1, 'relevant: expected document indices below 4, or -1, got -2'),
        ([[0], [1], [2], [4]], 1, 'relevant: expected document indices below 4, or -1'),
        ([[0], [1], [2]], 1, 'relevant: expected 4 rows, got 3'),
        ([[0, 1], [-1, 1], [0, 1], [0, 1]], 1, 'document indices of a row before its padding'),
        ([[0]] * 4, -1, r'k: expected 0 to 4 \(the documents\), got -1'),
        ([[0]] * 4, 5, r'k: expected 0 to 4 \(the documents\), got 5'),
    ],
)
def test_indices_and_depths_that_do_not_exist_are_refused(relevant, k, message):
    with pytest.raises(ValueError, match=message):
        search.search(ONES, ONES, np.array(relevant, np.int32), np.zeros(4, np.int32), k)


def search_benchmark(name, shared_data, depth, step=1):
    """A real benchmark with embeddings of many ties, near the answers, and what a search finds.

    Of every `step`-th query, on all documents.
    """
    benchmark = benchmarks.load_benchmark(name, shared_data)
    queries = benchmarks.TextColumns(*(column[::step] for column in benchmark.queries))
    codes, relevant = benchmark.query_languages[::step], benchmark.relevant[::step]
    benchmark = benchmark._replace(queries=queries, query_languages=codes, relevant=relevant)
    generator = np.random.default_rng(0)
    documents = small(generator, len(benchmark.documents.ids), 16)
    rows = np.arange(len(benchmark.relevant))
    answers = (benchmark.relevant >= 0).sum(axis=1)
    centres = documents[benchmark.relevant[rows, generator.integers(answers)]]
    queries = np.clip(centres + small(generator, *centres.shape), -2, 2)
    codes = benchmark.document_languages
    result = search.search(queries, documents, benchmark.relevant, codes, depth)
    return benchmark, queries, documents, result


@pytest.fixture(scope='module')
def xquad_r(shared_data):
    return search_benchmark('xquad_r', shared_data, 20, 31)


@pytest.fixture(scope='module')
def mlqa_r(shared_data):
    return search_benchmark('mlqa_r', shared_data, 20, 11)


def compare_with_trec_eval(case, rows, language=None):
    """These queries' metrics against trec_eval's on all scores; in one corpus, or in the union."""
    benchmark, _, _, result = case
    languages = np.array(benchmark.documents.languages)
    if language is None:
        ranks, corpus = result.pooled_ranks, np.arange(len(languages))
    else:
        inside = (languages[benchmark.relevant] == language) & (benchmark.relevant >= 0)
        ranks, corpus = (
            np.where(inside, result.per_language_ranks, 0),
            np.flatnonzero(languages == language),
        )
    rows = rows[(ranks[rows] > 0).any(axis=1)]
    chunks = np.array_split(rows, 1 + len(rows) // 200)  # a run of all scores fills gigabytes
    results = [row for chunk in chunks for row in run_trec_eval(case, chunk, corpus)]
    for measure, score in MEASURES.items():
        expected = np.array([row[measure] for row in results])
        values = np.asarray(score(ranks))[rows]
        np.testing.assert_allclose(values, expected, atol=1e-6, err_msg=measure)
        assert abs(metrics.mean_defined(values) - expected.mean()) < 1e-6
        assert expected.mean() > 0.001, measure


def run_trec_eval(case, rows, corpus):
    pytrec_eval = pytest.importorskip('pytrec_eval')
    benchmark, queries, documents, _ = case
    names = [benchmark.queries.ids[row] for row in rows]
    ids = [benchmark.documents.ids[row] for row in corpus]
    answers = [np.intersect1d(benchmark.relevant[row], corpus) for row in rows]
    qrels = {
        name: {benchmark.documents.ids[i]: 1 for i in answer}
        for name, answer in zip(names, answers, strict=True)
    }
    scores = (queries[rows] @ documents[corpus].T).tolist()
    run = {name: dict(zip(ids, row, strict=True)) for name, row in zip(names, scores, strict=True)}
    measures = {'map', 'map_cut.10', 'recip_rank', 'recall.1,10,100', 'ndcg_cut.10', 'Rprec'}
    results = pytrec_eval.RelevanceEvaluator(qrels, measures | {'success.1'}).evaluate(run)
    return [results[name] for name in names]


@pytest.mark.slow
@pytest.mark.parametrize('name', ['xquad_r', 'mlqa_r'])
def test_pooled_metrics_of_real_files_are_those_of_trec_eval_ties_included(name, request):
    case = request.getfixturevalue(name)
    compare_with_trec_eval(case, np.arange(0, len(case[1]), 4))


@pytest.mark.parametrize(('name', 'pair'), [('xquad_r', 'zh-ar'), ('mlqa_r', 'de-hi')])
def test_metrics_of_a_language_pair_are_those_of_trec_eval_ties_included(name, pair, request):
    case = request.getfixturevalue(name)
    query_language, language = pair.split('-')
    compare_with_trec_eval(
        case, np.flatnonzero(np.array(case[0].queries.languages) == query_language), language
    )


@pytest.mark.slow
def test_every_pooled_metric_of_every_query_is_that_of_trec_eval(shared_data):
    case = search_benchmark('mlqa_r', shared_data, 1)
    compare_with_trec_eval(case, np.arange(len(case[1])))


def score_by_ir_measures(case, folder, depth):
    """The written files of a whole benchmark: (measure -> mean) of ir_measures, and our ranks."""
    ir_measures = pytest.importorskip('ir_measures')
    benchmark, _, _, result = case
    ids = benchmark.queries.ids, benchmark.documents.ids
    trec.write_run(folder / 'run', *ids, result.top_k[:, :depth], 'hbt')
    trec.write_qrels(folder / 'qrels', *ids, benchmark.relevant)
    measures = [ir_measures.parse_measure(x) for x in OTHERS]
    run, qrels = (
        ir_measures.read_trec_run(str(folder / 'run')),
        ir_measures.read_trec_qrels(str(folder / 'qrels')),
    )
    theirs = ir_measures.calc_aggregate(measures, qrels, run)
    ranks = np.where(result.pooled_ranks > depth, metrics.UNRANKED, result.pooled_ranks)
    return {str(name): value for name, value in theirs.items()}, ranks


OTHERS = {
    'AP': metrics.average_precision,
    'AP@10': lambda ranks: metrics.average_precision(ranks, 10),
    'RR': metrics.reciprocal_rank,
    'nDCG@10': lambda ranks: metrics.ndcg(ranks, 10),
    'R@10': lambda ranks: metrics.recall(ranks, 10),
    'Rprec': metrics.r_precision,
    'Success@10': lambda ranks: metrics.success(ranks, 10),
}


def check_files(case, folder, depth):
    theirs, ranks = score_by_ir_measures(case, folder, depth)
    with jax.enable_x64(True):
        for other, score in OTHERS.items():
            assert abs(metrics.mean_defined(score(ranks)) - theirs[other]) < 1e-6, other
            assert theirs[other] > 0.001


@pytest.mark.parametrize('name', ['xquad_r', 'mlqa_r'])
def test_the_files_of_a_run_give_our_numbers_in_ir_measures(name, request, tmp_path):
    check_files(request.getfixturevalue(name), tmp_path, 20)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['xquad_r', 'mlqa_r'])
def test_the_files_of_a_whole_deep_run_give_our_numbers(name, shared_data, tmp_path):
    check_files(search_benchmark(name, shared_data, 1000), tmp_path, 1000)


def test_random_embeddings_have_the_rank_distance_that_chance_gives(xquad_r):
    benchmark = xquad_r[0]
    generator = np.random.default_rng(0)
    queries = generator.standard_normal((len(benchmark.relevant), 16), np.float32)
    documents = generator.standard_normal((len(benchmark.documents.ids), 16), np.float32)
    languages = np.zeros(len(documents), np.int32)
    result = search.search(queries, documents, benchmark.relevant, languages)
    assert abs(metrics.mean_defined(bias.rank_distance(result.pooled_ranks)) / 10846 - 1) < 0.03
