"""The numbers of a benchmark equal trec_eval's on the same embeddings, whatever its files hold.

The judgements that trec_eval gets are made from the rows of the files, not from the benchmark.
"""

import collections

import numpy as np
import pytest

from hbt.evaluation import benchmarks, evaluator, metrics, trec
from tests.evaluation.benchmarks import formats_test as formats

MEASURES = {'map': 'map', 'mrr': 'recip_rank', 'ndcg@10': 'ndcg_cut_10', 'recall@10': 'recall_10'}
NUMBER = 24  # queries and documents of each case, so that little is compiled


def embed(benchmark):
    generator = np.random.default_rng(0)
    sides = (benchmark.queries, benchmark.documents)
    return [generator.standard_normal((len(x.ids), 8)).astype(np.float32) for x in sides]


def run_trec_eval(benchmark, qrels, own=(), languages=None):
    """{measure: {query: value}} in the documents of `languages`; `own` are left out: (q, d)."""
    pytrec_eval = pytest.importorskip('pytrec_eval')
    queries, documents = embed(benchmark)
    table = (queries @ documents.T).tolist()
    inside = [languages is None or x in languages for x in benchmark.documents.languages]
    run = {
        query: {
            document: score
            for document, score, kept in zip(benchmark.documents.ids, scores, inside, strict=True)
            if kept and (query, document) not in own
        }
        for query, scores in zip(benchmark.queries.ids, table, strict=True)
    }
    qrels = {query: grades for query, grades in qrels.items() if any(grades.values())}
    names = {'.'.join(x.rsplit('_', 1)) if x[-1].isdigit() else x for x in MEASURES.values()}
    rows = pytrec_eval.RelevanceEvaluator(qrels, names).evaluate(run)
    return {ours: {q: row[x] for q, row in rows.items()} for ours, x in MEASURES.items()}


def check_pooled(benchmark, qrels, own=()):
    """Every query's numbers in one corpus, and their mean."""
    result = evaluator.score_embeddings(benchmark, *embed(benchmark))
    for name, expected in run_trec_eval(benchmark, qrels, own).items():
        values = dict(
            zip(result.query_ids, result.query_metrics.pooled[name].tolist(), strict=True)
        )
        assert {q: x for q, x in values.items() if x == x} == pytest.approx(expected, abs=1e-6)
        mean = np.mean([*expected.values()])
        assert result.numbers['metrics']['multi'][name] == pytest.approx(mean, abs=1e-6)
    return result


def write_beir(folder, qrels, documents=NUMBER, **texts):
    """A set whose queries and documents are numbered from 0."""
    rows = [{'_id': str(i), 'text': texts.get(f'd{i}', f'text {i}')} for i in range(documents)]
    formats.write(folder / 'corpus.jsonl', formats.lines(*rows))
    rows = [{'_id': str(i), 'text': f'query {i}'} for i in range(NUMBER)]
    formats.write(folder / 'queries.jsonl', formats.lines(*rows))
    rows = [f'{q}\t{d}\t{grade}\n' for (q, d), grade in qrels.items()]
    formats.write(folder / 'qrels/test.tsv', 'query-id\tcorpus-id\tscore\n' + ''.join(rows))
    grades = collections.defaultdict(dict)
    for (q, d), grade in qrels.items():
        grades[f'q:{q}'][f'd:{d}'] = grade
    return benchmarks.load_benchmark('beir:', folder), grades


def test_a_relevant_document_of_the_querys_id_counts_and_another_one_is_left_out(tmp_path):
    """Queries below 16 are answered by the document of their number, the others by another one."""
    qrels = {(i, i if i < 16 else i - 16): 1 + i % 2 for i in range(NUMBER)}
    qrels |= {(i, i + 5): 1 for i in range(8)} | {(20, 20): 0}
    benchmark, grades = write_beir(tmp_path, qrels)
    own = {(f'q:{i}', f'd:{i}') for i in range(16, NUMBER)}
    result = check_pooled(benchmark, grades, own)
    assert [*result.ranking.top_k[0]].count(-1) == 0 and result.ranking.top_k[16].tolist()[-1] == -1


def test_a_relevant_document_that_the_corpus_lacks_is_never_found(tmp_path):
    """Query 3 has a found one too, of a lower grade; query 5 has no other; 7 has none at all.

    The qrels that are written beside a run have them all.
    """
    qrels = {(i, (7 * i) % NUMBER): 1 for i in range(NUMBER) if i not in (5, 7)}
    qrels |= {(3, 'gone'): 2, (5, 'lost'): 1, (5, 'out'): 1, (7, 'away'): 0, (7, 1): 0, (9, 1): 2}
    benchmark, grades = write_beir(tmp_path, qrels, d2='', d4=' ')
    own = {(f'q:{i}', f'd:{i}') for i in range(NUMBER) if (i, i) not in qrels}
    result = check_pooled(benchmark, grades, own)
    position = result.query_ids.index('q:5')
    assert result.query_metrics.pooled['map'][position] == 0
    assert result.query_metrics.per_language['map'][position].tolist() == [0]
    assert benchmark.missing == ('d:gone', 'd:lost', 'd:out') and benchmark.empty == 2
    scores = evaluator.write_run(benchmark, result.ranking, tmp_path / 'run')
    written = trec.read_qrels(tmp_path / 'run.qrels')
    assert written == {
        q: {d: g for d, g in x.items() if g} for q, x in grades.items() if q != 'q:7'
    }
    ranks, _ = trec.rank_relevant(trec.read_run(tmp_path / 'run'), grades)
    mean = metrics.mean_defined(metrics.average_precision(ranks))
    assert scores['map'] == pytest.approx(mean, abs=1e-6)


def test_a_missing_document_of_an_unknown_language_counts_in_the_pool_alone():
    """Queries in German, documents in two other languages."""
    codes = ['en', 'fr'] * (NUMBER // 2)
    documents = [benchmarks.Entry(f'd:{i}', codes[i], 'x') for i in range(NUMBER)]
    queries = [benchmarks.Entry(f'q:{i}', 'de', 'y') for i in range(NUMBER)]
    qrels = {f'q:{i}': {f'd:{i}': 1} for i in range(NUMBER)}
    qrels['q:3']['d:gone'] = 1
    benchmark = benchmarks.assemble('x', benchmarks.Collection(queries, documents, qrels))
    result = check_pooled(benchmark, qrels)
    assert set(result.numbers['pairs']) == {'de-en', 'de-fr'}
    assert np.isnan(result.query_metrics.pooled['preference'][3])


def test_translation_pairs_are_scored_without_the_querys_own_text(tmp_path):
    """Every text is a query and a document; some passages differ from their query."""
    rows = []
    for i in range(8):
        texts = {x: f'{x} {i}' for x in ('de', 'en', 'fr')}
        rows.append(
            {
                'id': str(i),
                'query': texts,
                'passage': texts | {'en': f'en {i} more'} if i > 5 else texts,
            }
        )
    formats.write(tmp_path / 'pairs.jsonl', formats.lines(*rows))
    benchmark = benchmarks.load_benchmark('jsonl:pairs.jsonl', tmp_path)
    sides = (benchmark.queries, benchmark.documents)
    ids = [
        {(c, t): id for id, c, t in zip(x.ids, x.languages, x.texts, strict=True)} for x in sides
    ]
    qrels, own = collections.defaultdict(dict), set()
    for row in rows:
        for key in row['query'].items():
            for other in row['passage'].items():
                if key == other:
                    own.add((ids[0][key], ids[1][other]))
                else:
                    qrels[ids[0][key]][ids[1][other]] = 1
    result = check_pooled(benchmark, qrels, own)
    assert len(own) == 8 * 3 - 2
    codes = dict(zip(benchmark.documents.ids, benchmark.documents.languages, strict=True))
    for pair, numbers in result.numbers['pairs'].items():
        asked, answered = pair.split('-')
        inside = {
            q: {d: 1 for d in grades if codes[d] == answered}
            for q, grades in qrels.items()
            if q.startswith(f'q:{asked}:')
        }
        for name, values in run_trec_eval(benchmark, inside, own, (answered,)).items():
            assert numbers[name] == pytest.approx(np.mean([*values.values()]), abs=1e-6)
            assert numbers['queries'] == len(values)
    assert (
        result.numbers['pairs']['en-en']['queries'] == 2 and 'de-de' not in result.numbers['pairs']
    )
