"""One object encodes, compares and searches, under the names of sentence-transformers and mteb."""

import doctest
import json
import subprocess
import sys

import numpy as np
import pytest

import hbt
from hbt.evaluation import debias, evaluator, metrics, trec
from hbt.serving import answers, dual_encoder, entries
from tests import FIXTURES, ROOT

LABSE = FIXTURES / 'labse'
TEXTS = [f'w{i} w{i + 1} w{(7 * i) % 40}' for i in range(30)]


@pytest.fixture(scope='session')
def model():
    return hbt.load(LABSE, batch_size=8)


def test_the_package_is_imported_without_jax():
    code = 'import sys, hbt; assert "jax" not in sys.modules and callable(hbt.load)'
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)


def test_a_text_gives_a_vector_and_a_list_a_matrix(model):
    matrix = model.encode(TEXTS[:2], prompt_name='query')
    assert matrix.shape == (2, model.dim) and matrix.dtype == np.float32
    np.testing.assert_allclose(model.encode_query(TEXTS[0]), matrix[0], atol=1e-6)
    np.testing.assert_array_equal(model.encode(tuple(TEXTS[:2]), 'query'), matrix)
    assert model.encode([]).shape == (0, model.dim)


def test_document_and_passage_are_one_prompt_and_none_is_another(model):
    document = model.encode_document(TEXTS[0])
    for name in ('document', 'passage'):
        np.testing.assert_array_equal(model.encode(TEXTS[0], prompt_name=name), document)
    assert not np.allclose(model.encode(TEXTS[0]), document, atol=1e-3)
    assert not np.allclose(model.encode_query(TEXTS[0]), document, atol=1e-3)


def test_dim_gives_the_first_dimensions_at_length_1(model):
    small = hbt.load(LABSE, batch_size=8, dim=6)
    for name in ('query', 'document', None):
        rows = model.encode(TEXTS, name)[:, :6]
        expected = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        np.testing.assert_allclose(small.encode(TEXTS, name), expected, atol=1e-6)
        np.testing.assert_allclose(model.encode(TEXTS, name, dim=6), expected, atol=1e-6)
    assert small.dim == 6 and small.encode([]).shape == model.encode([], dim=6).shape == (0, 6)
    assert small.encode_query('w1', dim=3).shape == model.encode_document('w1', dim=3).shape == (3,)
    np.testing.assert_array_equal(model.encode(TEXTS, dim=24), model.encode(TEXTS))
    hits = small.search('w3 w4', TEXTS, k=3)
    scores = small.similarity(small.encode_query('w3 w4'), small.encode_document(TEXTS))[0]
    assert [hit.index for hit in hits] == np.argsort(-scores, kind='stable')[:3].tolist()


@pytest.mark.parametrize('dim', [0, -1, 25])
def test_a_dim_that_the_embeddings_lack_is_named(model, dim):
    message = f'^dim: expected 1 to 24, the dimensions of the embeddings, got {dim}$'
    with pytest.raises(ValueError, match=message):
        hbt.load(LABSE, dim=dim)
    for encode in (model.encode, model.encode_query, model.encode_document):
        with pytest.raises(ValueError, match=message):
            encode('w1', dim=dim)


def test_there_is_a_progress_bar_only_if_asked_for(model, capsys):
    model.encode(TEXTS[:2])
    assert capsys.readouterr().err == ''
    model.encode(TEXTS[:2], 'query', progress=True)
    assert 'query' in capsys.readouterr().err


def test_similarity_is_the_cosine(model):
    one, two = np.array([[3.0, 4], [1, 0]]), np.array([[0.0, 2], [-1, 0]])
    np.testing.assert_allclose(model.similarity(one, two), [[0.8, -0.6], [0, -1]], atol=1e-6)
    np.testing.assert_allclose(model.similarity_pairwise(one, two), [0.8, -1], atol=1e-6)
    assert model.similarity(one[0], two).shape == (1, 2)
    np.testing.assert_array_equal(model.similarity(np.zeros(2), two), [[0, 0]])


def test_unknown_prompts_arguments_and_steps_are_named(model):
    message = "prompt_name: expected query, passage, document or None, got 'doc'"
    with pytest.raises(ValueError, match=message):
        model.encode('w1', prompt_name='doc')
    with pytest.raises(ValueError, match="encode: expected no argument 'normalize', got one"):
        model.encode('w1', normalize=True)
    with pytest.raises(ValueError, match="step: expected with .* training run only, got 'best'"):
        hbt.load(LABSE, step='best')


@pytest.mark.parametrize('texts', [None, 3, ['w1', None], ['w1', float('nan')], ['w1', '\ud800']])
def test_what_is_no_text_is_refused_with_its_place(model, texts):
    place = r'texts\[1\]' if isinstance(texts, list) else 'texts'
    for encode in (model.encode, model.encode_query, lambda x: model.search('w1', x)):
        with pytest.raises(ValueError, match=f'{place}: expected'):
            encode(texts)


def write_corpus(path):
    rows = [
        {'id': f'd{i}', 'text': text, 'language': ('de', 'en', 'fr')[i % 3]}
        for i, text in enumerate(TEXTS)
    ]
    path.write_text(''.join(json.dumps(x) + '\n' for x in rows))
    return path


@pytest.fixture(scope='session')
def built(model, tmp_path_factory):
    return model.build_index(write_corpus(tmp_path_factory.mktemp('corpus') / 'corpus.jsonl'))


def test_search_finds_the_documents_of_the_highest_similarity(model, built):
    queries = ['w3 w4', 'w20']
    scores = model.similarity(model.encode_query(queries), model.encode_document(TEXTS))
    order = np.argsort(-scores, axis=1, kind='stable')[:, :4]
    for corpus in (TEXTS, built):
        found = model.search(queries, corpus, k=4)
        assert [[hit.index for hit in hits] for hits in found] == order.tolist()
        assert [[hit.text for hit in hits] for hits in found] == [
            [TEXTS[i] for i in x] for x in order
        ]
        got = [[hit.score for hit in hits] for hits in found]
        np.testing.assert_allclose(got, np.take_along_axis(scores, order, axis=1), atol=1e-6)
    alone = model.search(queries[1], built, k=4)
    assert [hit._replace(score=0) for hit in alone] == [hit._replace(score=0) for hit in found[1]]
    np.testing.assert_allclose([x.score for x in alone], [x.score for x in found[1]], atol=1e-6)
    for texts in (TEXTS[:3], iter(TEXTS[:3])):
        assert len(model.search('w1', texts, k=9)) == 3
    assert model.search('w1', []) == model.search([], built) == []


def test_search_is_restricted_to_languages(model, built):
    hits = model.search('w3 w4', built, k=30, languages=['de', 'fr'])
    assert {hit.language for hit in hits} == {'de', 'fr'} and len(hits) == 20
    full = [x for x in model.search('w3 w4', built, k=30) if x.language != 'en']
    assert [hit.id for hit in hits] == [hit.id for hit in full]


def test_search_without_language_ranks_as_the_evaluation_without_language_does(model, built):
    generator = np.random.default_rng(0)
    means = generator.standard_normal((3, model.dim)).astype(np.float32) / 4
    directions = np.zeros((3, 0, model.dim), np.float32)
    removal = debias.Removal({}, ['de', 'en', 'fr'], means, directions)
    codes = [('de', 'en', 'fr')[i % 3] for i in range(len(TEXTS))]
    documents = debias.apply_removal(removal, model.encode_document(TEXTS), codes, True)
    query = debias.apply_removal(removal, model.encode_query(['w3 w4']), ['en'], True)
    hits = model.search('w3 w4', built.remove_language(removal), k=30, query_language='en')
    assert [x.index for x in hits] == np.argsort(-(query @ documents.T)[0], kind='stable').tolist()
    with pytest.raises(ValueError, match='query_language: expected the language of the queries'):
        model.search('w3', built.remove_language(removal))
    with pytest.raises(ValueError, match="query_language: expected none for this index, got 'en'"):
        model.search('w3', built, query_language='en')


def test_what_cannot_be_searched_is_named(model, built, tmp_path):
    with pytest.raises(ValueError, match='k: expected at least 1, got 0'):
        model.search('w1', built, k=0)
    with pytest.raises(ValueError, match="languages: expected de, en, fr, got 'ja'"):
        model.search('w1', built, languages=['de', 'ja'])
    with pytest.raises(ValueError, match="corpus: expected a list of texts, .* got 'corpus.jsonl'"):
        model.search('w1', 'corpus.jsonl')
    with pytest.raises(ValueError, match='nothing: expected a file of documents, got no such file'):
        model.build_index(tmp_path / 'nothing')


def test_an_index_is_embedded_once(model, built, monkeypatch):
    monkeypatch.setattr(model, '_embed', None)
    again = model.build_index(built.folder.with_suffix(''))
    assert len(again) == len(model.open_index(built.folder)) == 30


def test_a_changed_corpus_is_refused(model, tmp_path):
    path = write_corpus(tmp_path / 'corpus.jsonl')
    model.build_index(path)
    with path.open('a') as file:
        file.write('{"id": "new", "text": "w1"}\n')
    with pytest.raises(ValueError, match='corpus.jsonl.index: corpus: expected .*, got .*; delete'):
        model.build_index(path)


def test_an_index_of_another_dim_is_refused(model, built):
    small = hbt.load(LABSE, batch_size=8, dim=6)
    with pytest.raises(ValueError, match=r"index: model: expected '\w+', .* got '\w+'; delete it"):
        small.open_index(built.folder)
    assert hbt.load(LABSE, dim=24).fingerprint == model.fingerprint != small.fingerprint


def test_the_example_of_the_docstring_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'models').mkdir()
    (tmp_path / 'models/mine').symlink_to(LABSE)
    text = dual_encoder.DualEncoder.__doc__
    example = doctest.DocTestParser().get_doctest(text, {}, 'DualEncoder', None, 0)
    assert len(example.examples) > 6
    assert doctest.DocTestRunner().run(example).failed == 0


def write_beir(folder):
    """Queries with one to three relevant documents, as a folder of BEIR."""
    (folder / 'qrels').mkdir(parents=True)
    generator = np.random.default_rng(0)
    texts = [' '.join(f'w{x}' for x in generator.integers(0, 40, 6)) for _ in range(200)]
    documents = [{'_id': f'd{i}', 'title': '', 'text': text} for i, text in enumerate(texts)]
    queries, qrels = [], []
    for i in range(40):
        queries.append({'_id': f'q{i}', 'text': ' '.join(texts[i].split()[:3])})
        qrels += [f'q{i}\td{(i + 50 * j) % 200}\t1' for j in range(1 + i % 3)]
    for name, rows in (('corpus', documents), ('queries', queries)):
        text = ''.join(json.dumps(x) + '\n' for x in rows)
        (folder / f'{name}.jsonl').write_text(text)
    (folder / 'qrels/test.tsv').write_text('\n'.join(['query-id\tcorpus-id\tscore', *qrels]) + '\n')
    return documents, queries, qrels


def evaluate(model, root):
    """Metrics of hbt's own evaluation on the folder of BEIR `root/words`."""
    suite = [evaluator.benchmarks.load_benchmark('beir:words', root)]
    evaluator.evaluate_model(model.model, suite, root / 'out', 0, 'model')
    (path,) = (root / 'out').glob('*.json')
    return json.loads(path.read_text())['metrics']['multi']


@pytest.mark.slow
def test_the_run_of_a_search_scores_as_the_evaluation_does(model, tmp_path):
    folder = tmp_path / 'words'
    _, queries, qrels = write_beir(folder)
    index = model.build_index(folder / 'corpus.jsonl', tmp_path / 'index')
    texts = [x.text for x in entries.iter_entries(folder / 'queries.jsonl')]
    ids = [x['_id'] for x in queries]
    answers.write_run(tmp_path / 'run', ids, model.search(texts, index, k=200))
    judged = {}
    for query, document, grade in (line.split('\t') for line in qrels):
        judged.setdefault(query, {})[document] = int(grade)
    ranks, _ = trec.rank_relevant(trec.read_run(tmp_path / 'run'), judged)
    ours = evaluate(model, tmp_path)
    assert abs(metrics.mean_defined(metrics.average_precision(ranks)) - ours['map']) < 1e-6


def make_task(mteb, folder, per_query):
    """A retrieval task of mteb from local files; `per_query` gets the scores before rounding."""
    import datasets
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    documents, queries, qrels = write_beir(folder)
    relevant = {}
    for query, document, grade in (line.split('\t') for line in qrels):
        relevant.setdefault(query, {})[document] = int(grade)

    class LocalTask(AbsTaskRetrieval):
        metadata = mteb.TaskMetadata(
            name='Local',
            description='documents of random words',
            dataset={'path': 'local/words', 'revision': '1'},
            type='Retrieval',
            eval_splits=['test'],
            eval_langs=['eng-Latn'],
            main_score='ndcg_at_10',
        )

        def load_data(self, **_):
            rows = [
                [{'id': x['_id'], 'text': x['text']} for x in side] for side in (documents, queries)
            ]
            split = {
                'corpus': datasets.Dataset.from_list(rows[0]),
                'queries': datasets.Dataset.from_list(rows[1]),
                'relevant_docs': relevant,
                'top_ranked': None,
            }
            self.dataset = {'default': {'test': split}}
            self.data_loaded = True

        def task_specific_scores(self, scores, *_args, **_options):
            per_query.update(scores)
            return {}

    return LocalTask()


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')  # of mteb and of what it imports
def test_mteb_scores_the_model_as_hbt_does(model, tmp_path):
    mteb = pytest.importorskip('mteb')
    per_query = {}
    task = make_task(mteb, tmp_path / 'words', per_query)
    (result,) = mteb.evaluate(model, task, cache=None, co2_tracker=False).task_results
    (theirs,) = result.scores['test']
    ours = evaluate(model, tmp_path)
    for name, rounded, exact in (
        ('map', 'map_at_1000', 'map_cut_1000'),
        ('ndcg@10', 'ndcg_at_10', 'ndcg_cut_10'),
        ('recall@10', 'recall_at_10', 'recall_10'),
    ):
        assert 0.01 < ours[name] < 0.99
        assert abs(theirs[rounded] - round(ours[name], 5)) < 1e-6, name
        mean = np.mean([scores[exact] for scores in per_query.values()])
        assert abs(mean - ours[name]) < 1e-6, name
    assert model.mteb_model_meta.revision == model.fingerprint
