"""Benchmarks in the files that their authors and the hub lay out."""

import gzip
import json
import tracemalloc

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub.utils import filter_repo_objects

from hbt.evaluation import benchmarks, evaluator, results
from hbt.evaluation.benchmarks import assembly


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    with (gzip.open if path.suffix == '.gz' else open)(path, 'wt', encoding='utf-8') as file:
        file.write(text)


def lines(*rows):
    return ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows)


def passages(*ids):
    return lines(*({'docid': id, 'title': f'T{id}', 'text': f'text {id}'} for id in ids))


def miracl(root, language='sw', qrels='7#0\t1'):
    folder = root / f'miracl-v1.0-{language}'
    ending = f'miracl-v1.0-{language}-dev.tsv'
    write(folder / f'topics/topics.{ending}', '12\tNani?\n9\tWapi?\n')
    write(folder / f'qrels/qrels.{ending}', f'12\tQ0\t{qrels}\n12\tQ0\t7#1\t0\n9\tQ0\t8#0\t1\n')
    for shard, ids in ((10, ['8#0']), (2, ['7#0', '7#1'])):
        write(root / f'miracl-corpus-v1.0-{language}/docs-{shard}.jsonl.gz', passages(*ids))


def answers(benchmark):
    ids = benchmark.documents.ids
    return {
        query: [ids[row] for row in rows if row >= 0]
        for query, rows in zip(benchmark.queries.ids, benchmark.relevant, strict=True)
    }


def score(benchmark):
    """The whole evaluation, with embeddings in which every relevant document is near."""
    generator = np.random.default_rng(0)
    documents = generator.standard_normal((len(benchmark.documents.ids), 16)).astype(np.float32)
    queries = np.stack([documents[rows[rows >= 0]].sum(axis=0) for rows in benchmark.relevant])
    return evaluator.score_embeddings(benchmark, queries, documents)


def test_miracl_is_read_as_the_hub_lays_it_out(tmp_path):
    miracl(tmp_path)
    benchmark = benchmarks.load_benchmark('miracl:sw', tmp_path)
    assert answers(benchmark) == {'q:sw:12': ['d:sw:7#0'], 'q:sw:9': ['d:sw:8#0']}
    assert [*benchmark.documents.texts] == ['T8#0 text 8#0', 'T7#1 text 7#1', 'T7#0 text 7#0']
    assert [path.name for path in benchmark.files][2:] == ['docs-2.jsonl.gz', 'docs-10.jsonl.gz']
    assert set(score(benchmark).numbers['metrics']) == {'mono', 'multi'}


def test_several_languages_of_miracl_are_one_corpus_and_each_is_answered_in_its_own(tmp_path):
    miracl(tmp_path, 'sw')
    miracl(tmp_path, 'yo')
    benchmark = benchmarks.load_benchmark('miracl', tmp_path)
    named = benchmarks.load_benchmark('miracl:sw+yo', tmp_path)
    assert results.hash_content(benchmark) == results.hash_content(named)
    assert benchmark.documents.ids == named.documents.ids
    numbers = score(benchmark).numbers
    assert set(numbers['metrics']) == {'mono', 'multi'}
    assert set(numbers['pairs']) == {'sw-sw', 'yo-yo'}
    assert 'own_share@1' in numbers['metrics']['multi']


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            lambda r: miracl(r, qrels='7#0 1\n12\tQ0\t7#0\t2'),
            "2: expected one grade of '7#0' for .*1 and 2",
        ),
        (
            lambda r: write(r / 'miracl-corpus-v1.0-sw/docs-3.jsonl.gz', passages('9#0', '7#1')),
            "docs-3.jsonl.gz:2: expected each id once, got 'd:sw:7#1' again",
        ),
        (
            lambda r: write(r / 'miracl-corpus-v1.0-sw/docs-3.jsonl.gz', passages('9 0')),
            "docs-3.jsonl.gz:1: expected an id without whitespace, got 'd:sw:9 0'",
        ),
        (
            lambda r: write(
                r / 'miracl-corpus-v1.0-sw/docs-3.jsonl.gz', '{"docid": "1", "docid": "2"}'
            ),
            "docs-3.jsonl.gz:1: expected a JSON object, got the field 'docid' twice",
        ),
        (lambda r: miracl(r, qrels='7#0\tx'), "dev.tsv:1: expected a whole number .* got 'x'"),
        (
            lambda r: write(r / 'miracl-corpus-v1.0-sw/docs-2.jsonl.gz', '{}\n'),
            'docs-2.jsonl.gz:1: expected docid, title and text',
        ),
        (lambda r: write(r / 'miracl-corpus-v1.0-sw/docs-3.jsonl.gz', '{\n'), 'gz:1: expected a J'),
        (lambda r: (r / 'miracl-corpus-v1.0-sw/docs-2.jsonl.gz').write_bytes(b'\x1f\x8b'), 'gzip'),
        (lambda r: write(r / 'x/topics.miracl-v1.0-sw-dev.tsv', ''), 'expected one file topics'),
        (
            lambda r: write(r / 'miracl-v1.0-sw/topics/topics.miracl-v1.0-sw-dev.tsv', 'a\n'),
            '2 col',
        ),
        (
            lambda r: write(r / 'miracl-v1.0-sw/qrels/qrels.miracl-v1.0-sw-dev.tsv', '1 0 d 1\n'),
            "'1'",
        ),
    ],
)
def test_what_is_wrong_with_miracls_files_is_named(tmp_path, change, message):
    miracl(tmp_path)
    change(tmp_path)
    with pytest.raises(ValueError, match=message):
        benchmarks.load_benchmark('miracl:sw', tmp_path)


def test_an_empty_corpus_and_a_missing_one_are_refused(tmp_path, shared_data):
    miracl(tmp_path)
    for shard in (2, 10):
        write(tmp_path / f'miracl-corpus-v1.0-sw/docs-{shard}.jsonl.gz', '')
    with pytest.raises(ValueError, match='expected passages of sw, got an empty corpus'):
        benchmarks.load_benchmark('miracl:sw', tmp_path)
    with pytest.raises(ValueError, match='expected the corpus miracl-corpus-v1.0-bn/docs'):
        benchmarks.load_benchmark('miracl:bn', shared_data)
    with pytest.raises(ValueError, match="expected one of ar, bn, .*, got 'xx'"):
        benchmarks.load_benchmark('miracl:xx', tmp_path)
    with pytest.raises(
        ValueError, match='topics.miracl-v1.0-<language>-dev.tsv: expected at least'
    ):
        benchmarks.load_benchmark('miracl', tmp_path / 'none')


def test_miracls_real_judgements_are_read_with_the_published_counts(tmp_path, shared_data):
    """482 queries with 1.89 relevant passages in Swahili (MTEB); the corpus is made up."""
    for kind in ('topics', 'qrels'):
        name = f'{kind}.miracl-v1.0-sw-dev.tsv'
        (tmp_path / name).write_text((shared_data / 'miracl' / name).read_text())
    rows = [x.split() for x in (tmp_path / 'qrels.miracl-v1.0-sw-dev.tsv').read_text().splitlines()]
    assert len(rows) == 5092
    judged = sorted({row[2] for row in rows})
    write(tmp_path / 'miracl-corpus-v1.0-sw/docs-0.jsonl.gz', passages(*judged))
    benchmark = benchmarks.load_benchmark('miracl:sw', tmp_path)
    counts = (benchmark.relevant >= 0).sum(axis=1)
    assert len(counts) == 482 and counts.min() == 1 and round(counts.mean(), 2) == 1.89


def test_mr_tydi_is_read_as_the_hub_lays_it_out(tmp_path):
    row = {'query_id': '3', 'query': 'Who?', 'negative_passages': []}
    row |= {'positive_passages': [{'docid': '5#1', 'title': 't', 'text': 'x'}]}
    write(tmp_path / 'mrtydi-v1.1-english/test.jsonl.gz', lines(row))
    write(tmp_path / 'mrtydi-v1.1-english/corpus.jsonl.gz', passages('5#0', '5#1'))
    benchmark = benchmarks.load_benchmark('mr_tydi:en', tmp_path)
    assert answers(benchmark) == {'q:en:3': ['d:en:5#1']}
    assert benchmarks.load_benchmark('mr_tydi', tmp_path).queries == benchmark.queries


def mtop(root):
    """The same three utterances in two languages; the first and the last of one intent."""
    for language, texts in (
        ('en', ['wake me', 'call mum', 'set alarm']),
        ('de', ['weck', 'ruf', 's']),
    ):
        write(
            root / 'mtop' / language / 'test.txt',
            ''.join(
                f'{id}\t{intent}\t\t{text}\talarm\t{language}_XX\t[{intent} ]\t{{}}\n'
                for id, intent, text in zip('123', ['IN:A', 'IN:C', 'IN:A'], texts, strict=True)
            ),
        )


def test_mtop_retrieves_translations_and_never_the_query_itself(tmp_path):
    mtop(tmp_path)
    benchmark = benchmarks.load_benchmark('mtop_translation', tmp_path)
    assert answers(benchmark)['q:en:2'] == ['d:de:2']
    ids = benchmark.documents.ids
    excluded = [ids[row] for row in benchmark.excluded[:, 0]]
    assert excluded == [f'd{query[1:]}' for query in benchmark.queries.ids]
    result = score(benchmark)
    assert set(result.numbers['metrics']) == {'cross', 'multi'}
    assert not (result.ranking.top_k == benchmark.excluded).any()
    assert result.numbers['metrics']['multi']['map'] == 1


def test_mtop_retrieves_utterances_of_the_same_intent(tmp_path):
    mtop(tmp_path)
    relevant = answers(benchmarks.load_benchmark('mtop_intent:de+en', tmp_path))
    assert relevant['q:en:1'] == ['d:en:3', 'd:de:3', 'd:de:1'] and relevant['q:de:2'] == ['d:en:2']
    assert set(score(benchmarks.load_benchmark('mtop_intent', tmp_path)).numbers['metrics']) == {
        'mono',
        'cross',
        'multi',
    }


def test_mtops_files_are_checked(tmp_path):
    with pytest.raises(ValueError, match='expected <language>/test.txt, got none'):
        benchmarks.load_benchmark('mtop_intent', tmp_path)
    write(tmp_path / 'en/test.txt', '1\tIN:A\n')
    with pytest.raises(
        ValueError, match=r'test.txt:1: expected 8 columns \(id, .*, tokens\), got 2'
    ):
        benchmarks.load_benchmark('mtop_intent', tmp_path)


def beir(folder, gz=''):
    corpus = [{'_id': 'a', 'title': 'A', 'text': 'one'}, {'_id': 'b', 'text': 'two'}]
    corpus.append({'_id': 'q1', 'text': 'the query itself'})
    write(folder / f'corpus.jsonl{gz}', lines(*corpus))
    queries = ({'_id': id, 'text': id} for id in ('q1', 'q2', 'unjudged'))
    write(folder / f'queries.jsonl{gz}', lines(*queries))
    judged = 'query-id\tcorpus-id\tscore\nq1\tb\t2\nq1\ta\t1\nq1\tq1\t0\nq2\ta\t1\n'
    write(folder / 'qrels/test.tsv', judged)


@pytest.mark.parametrize('gz', ['', '.gz'])
def test_a_beir_folder_is_read_with_its_grades_and_without_the_query_itself(tmp_path, gz):
    beir(tmp_path / 'sets/mine', gz)
    benchmark = benchmarks.load_benchmark('beir:mine', tmp_path / 'sets')
    assert answers(benchmark) == {'q:q1': ['d:b', 'd:a'], 'q:q2': ['d:a']}
    assert benchmark.grades.tolist() == [[2, 1], [1, 0]]
    assert benchmark.excluded.tolist() == [[0], [-1]] and benchmark.documents.ids[0] == 'd:q1'
    assert [*benchmark.documents.texts] == ['the query itself', 'two', 'A one']
    assert score(benchmark).numbers['pairs']['und-und']['queries'] == 2


def judge(folder, text):
    write(folder / 'qrels/test.tsv', text)
    return answers(benchmarks.load_benchmark('beir:', folder))


def test_a_document_of_the_querys_id_that_is_judged_relevant_is_ranked(tmp_path):
    beir(tmp_path)
    assert judge(tmp_path, 'q1\tb\t1\nq1\tq1\t1\n') == {'q:q1': ['d:q1', 'd:b']}
    assert benchmarks.load_benchmark('beir:', tmp_path).excluded is None


def test_the_first_line_of_beirs_judgements_may_be_one(tmp_path):
    """Grades such as 1.0 are whole numbers; a judgement that comes twice is one."""
    beir(tmp_path)
    expected = {'q:q1': ['d:a'], 'q:q2': ['d:b']}
    for grade in ('1', '1.0', '+1', '1.', '1 '):
        assert judge(tmp_path, f'q1\ta\t{grade}\nq2\tb\t1\nq1\ta\t1\n') == expected
    for header in ('query-id\tcorpus-id\tscore', 'qid\tdid\trelevance', 'q\td\t"score"'):
        assert judge(tmp_path, f'{header}\nq1\ta\t1\nq2\tb\t1.0\n') == expected


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('q1\ta\tyes\nq2\ta\t1\n', "test.tsv:1: expected a whole number as grade, got 'yes'"),
        ('q1\ta\t0.5\n', "test.tsv:1: expected a whole number as grade, got '0.5'"),
        ('q1\ta\t1\nq2\ta\tnan\n', "test.tsv:2: expected a whole number as grade, got 'nan'"),
        ('q1\ta\t' + '9' * 400, 'test.tsv:1: expected a whole number as grade, got .999'),
        (
            'q1\ta\t1\nq1\ta\t0\n',
            "test.tsv:2: expected one grade of 'a' for the query 'q1', got 1 and 0",
        ),
    ],
)
def test_grades_that_are_none_or_disagree_are_refused_with_their_line(tmp_path, text, message):
    beir(tmp_path)
    with pytest.raises(ValueError, match=message):
        judge(tmp_path, text)


def test_beir_folders_by_language_are_one_corpus(tmp_path):
    beir(tmp_path / 'de')
    beir(tmp_path / 'fr')
    benchmark = benchmarks.load_benchmark('beir:', tmp_path)
    assert benchmark.languages == ['de', 'fr']
    assert answers(benchmark)['q:fr:q2'] == ['d:fr:a']


def test_beirs_files_are_checked(tmp_path):
    beir(tmp_path)
    write(tmp_path / 'qrels/test.tsv', 'q1\ta\t1\nq9\ta\t1\n')
    with pytest.raises(ValueError, match="got 1 others, such as 'q9'"):
        benchmarks.load_benchmark('beir:', tmp_path)
    write(tmp_path / 'qrels/test.tsv', 'q1\ty\t1\nq2\tz\t1\n')
    with pytest.raises(
        ValueError, match="expected relevant documents, got none in the corpus, which lacks 'd:y'"
    ):
        benchmarks.load_benchmark('beir:', tmp_path)
    (tmp_path / 'qrels/test.tsv').unlink()
    with pytest.raises(ValueError, match='expected qrels/test.tsv, got none'):
        benchmarks.load_benchmark('beir:', tmp_path)


def test_a_file_in_the_training_format_is_a_held_out_set(tmp_path):
    """Equal passages of a language are one document, of all the groups that have it."""
    rows = [
        {'id': '1', 'query': {'en': 'a', 'de': 'b'}, 'passage': {'en': 'x', 'de': 'y'}},
        {'id': '2', 'query': {'en': 'c'}, 'passage': {'en': 'x', 'de': 'z'}},
        {'id': '3', 'query': {'en': 'a'}, 'passage': {'fr': 'w'}},
    ]
    write(tmp_path / 'held.jsonl.gz', lines(*rows))
    benchmark = benchmarks.load_benchmark('jsonl:held.jsonl.gz', tmp_path)
    texts = benchmark.documents.texts
    relevant = {
        (language, text): sorted(texts[row] for row in rows if row >= 0)
        for language, text, rows in zip(
            benchmark.queries.languages, benchmark.queries.texts, benchmark.relevant, strict=True
        )
    }
    assert relevant == {
        ('en', 'a'): ['w', 'x', 'y'],
        ('de', 'b'): ['x', 'y'],
        ('en', 'c'): ['x', 'z'],
    }
    assert sorted(texts) == ['w', 'x', 'y', 'z'] and benchmark.parallel.tolist() == [0, 0, 1]
    assert set(score(benchmark).numbers['metrics']) == {'mono', 'cross', 'multi'}
    assert benchmark.excluded is None
    write(tmp_path / 'twice.jsonl', lines(*rows, rows[1]))
    with pytest.raises(ValueError, match='twice.jsonl:4: id: .* got that of .*twice.jsonl:2'):
        benchmarks.load_benchmark('jsonl:twice.jsonl', tmp_path)
    with pytest.raises(ValueError, match='none.jsonl: expected a JSONL file'):
        benchmarks.load_benchmark('jsonl:none.jsonl', tmp_path)


def test_texts_of_a_held_out_set_are_equal_whatever_their_composition_and_white_space(tmp_path):
    composed, decomposed = 'caf\u00e9 noir', 'cafe\u0301  noir '
    rows = [
        {'id': '1', 'query': {'fr': composed}, 'passage': {'fr': decomposed, 'de': 'x'}},
        {'id': '2', 'query': {'fr': decomposed}, 'passage': {'en': 'y'}},
    ]
    write(tmp_path / 'held.jsonl', lines(*rows))
    benchmark = benchmarks.load_benchmark('jsonl:held.jsonl', tmp_path)
    assert benchmark.queries.texts == [composed]
    texts = benchmark.documents.texts
    assert [texts[i] for i in benchmark.excluded[0] if i >= 0] == [decomposed]
    assert sorted(texts[i] for i in benchmark.relevant[0] if i >= 0) == ['x', 'y']


def test_a_data_set_of_the_hub_is_read_from_its_cache(tmp_path, monkeypatch):
    """Two data sets, each in a snapshot of its own, with the files that match."""
    miracl(tmp_path / 'miracl/miracl')
    (tmp_path / 'miracl/miracl-corpus').mkdir()
    corpus = 'miracl-corpus-v1.0-sw'
    (tmp_path / 'miracl/miracl' / corpus).rename(tmp_path / 'miracl/miracl-corpus' / corpus)

    def snapshot(name, repo_type, allow_patterns):
        assert repo_type == 'dataset'
        paths = [str(x.relative_to(tmp_path / name)) for x in (tmp_path / name).rglob('*.*')]
        selected = filter_repo_objects(paths, allow_patterns=allow_patterns)
        assert {x for x in paths if (tmp_path / name / x).is_file()} == set(selected)
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, 'snapshot_download', snapshot)
    benchmark = benchmarks.load_benchmark('miracl:sw', 'hub')
    assert answers(benchmark) == {'q:sw:12': ['d:sw:7#0'], 'q:sw:9': ['d:sw:8#0']}


@pytest.mark.parametrize(
    ('name', 'repository'),
    [
        ('miracl:sw', 'miracl/miracl'),
        ('mr_tydi:sw', 'castorini/mr-tydi'),
        ('beir:BeIR/x', 'BeIR/x'),
    ],
)
def test_offline_a_data_set_that_is_not_cached_is_named_with_what_to_do(name, repository):
    with pytest.raises(ValueError, match=f'{repository}.*hf download --repo-type dataset'):
        benchmarks.load_benchmark(name, 'hub')


def test_ids_and_texts_are_checked(tmp_path):
    beir(tmp_path)
    for row, message in (
        ({'_id': 'a', 'text': 'again'}, "expected each id once, got 'd:a' again"),
        ({'_id': 'c d', 'text': 'x'}, "expected an id without whitespace, got 'd:c d'"),
        ({'_id': '', 'text': 'x'}, '_id: expected a non-empty text, got ""'),
        ({'_id': 5, 'text': 'x'}, '_id: expected a non-empty text, got 5'),
        ({'_id': 'e', 'text': ['x']}, "expected 'text' to be a str, got a list"),
        ({'_id': 'e', 'title': 'x'}, "expected a field 'text', got none"),
        ({'_id': 'e', 'text': '\ud800'}, "'d:e': expected Unicode text, got a lone surrogate"),
        ({'_id': 'e', 'text': 'x', 'lang': '!'}, 'd:e: expected a language code such as en'),
        ({'_id': 'e', 'text': 'x', 'lang': 1}, "expected 'lang' to be a str, got a int"),
        ({'_id': 'e', 'text': 'x', 'language': ['en']}, "expected 'language' to be a str, got a l"),
        ({'_id': 'e', 'text': 'x', 'language': 0}, "expected 'language' to be a str, got a int"),
        ({'_id': 'e', 'text': 'x', 'title': True}, "expected 'title' to be a str, got a bool"),
        ({'_id': 'e', 'text': 'x', 'title': []}, "expected 'title' to be a str, got a list"),
    ):
        write(
            tmp_path / 'corpus.jsonl',
            ''.join(
                json.dumps(x) + '\n'
                for x in ({'_id': 'a', 'text': 'A'}, {'_id': 'b', 'text': 'B'}, row)
            ),
        )
        with pytest.raises(ValueError, match=f'corpus.jsonl:3: {message}'):
            benchmarks.load_benchmark('beir:', tmp_path)


def test_documents_and_queries_without_text_are_read_and_counted(tmp_path):
    beir(tmp_path / 'b')
    texts = (
        {'_id': 'a', 'text': ''},
        {'_id': 'b', 'title': ' ', 'text': None},
        {'_id': 'c', 'text': 'c'},
    )
    write(tmp_path / 'b/corpus.jsonl', lines(*texts))
    write(
        tmp_path / 'b/queries.jsonl', lines({'_id': 'q1', 'text': ''}, {'_id': 'q2', 'text': 'x'})
    )
    read = [benchmarks.load_benchmark('beir:b', tmp_path)]
    miracl(tmp_path)
    row = {'docid': '8#0', 'title': '', 'text': ''}
    write(tmp_path / 'miracl-corpus-v1.0-sw/docs-10.jsonl.gz', lines(row))
    write(tmp_path / 'miracl-v1.0-sw/topics/topics.miracl-v1.0-sw-dev.tsv', '12\tNani?\n9\t\n')
    read.append(benchmarks.load_benchmark('miracl:sw', tmp_path))
    assert [x.empty for x in read] == [3, 2] and read[1].documents.texts[0] == ''
    manifest = results.make_manifest(read[0], {})
    assert [manifest[x] for x in results.EXCEPTIONS] == [0, 0, 3]


def test_a_missing_passage_of_miracl_is_of_the_querys_language(tmp_path):
    for language in ('sw', 'yo'):
        miracl(tmp_path, language, qrels='5#5\t1')
    for name, code in (('miracl:sw', 0), ('miracl:yo', 0), ('miracl', 1)):
        benchmark = benchmarks.load_benchmark(name, tmp_path)
        languages = benchmark.relevant_languages
        assert benchmark.relevant[-2].tolist() == [-2] and languages[-2:].tolist() == [[code]] * 2
        assert len(benchmark.missing) == len(benchmark.languages)


def test_the_manifest_counts_what_is_excluded_and_what_is_missing(tmp_path):
    beir(tmp_path)
    write(tmp_path / 'qrels/test.tsv', 'q1\ta\t1\nq1\tz\t2\nq1\ty\t1\nq2\tw\t1\nq2\tx\t0\n')
    benchmark = benchmarks.load_benchmark('beir:', tmp_path)
    assert benchmark.missing == ('d:y', 'd:z', 'd:w')
    assert benchmark.relevant.tolist() == [[2, -2, -2], [-2, -1, -1]]
    manifest = results.make_manifest(benchmark, {})
    assert {x: manifest[x] for x in (*results.EXCEPTIONS, 'unanswerable')} == {
        'excluded': 1,
        'missing': 3,
        'empty': 0,
        'unanswerable': 0,
    }
    numbers = {'benchmark': 'beir:', 'counts': {'queries': 2, 'documents': 3}, 'manifest': manifest}
    shown = evaluator.format_result(numbers | {'languages': {}, 'metrics': {}}, 3)
    assert shown.startswith('beir: at step 3: 2 queries, 3 documents, 1 excluded, 3 missing\n')


def test_texts_of_a_corpus_are_on_disk_and_come_in_any_order():
    texts = ['b\n', 'a', 'ü語', '\x00\r', 'last']
    on_disk = assembly.TextsOnDisk(iter(texts))
    assert [*on_disk] == texts and on_disk[-1] == 'last' and on_disk[1:3] == ['a', 'ü語']
    on_disk.order = np.array([3, 0])
    assert len(on_disk) == 2 and [*on_disk] == ['\x00\r', 'b\n']


@pytest.mark.slow
def test_a_corpus_takes_little_memory_however_long_its_texts(tmp_path):
    word = 'wort ' * 2000
    rows = [{'docid': f'{i}#0', 'title': '', 'text': word} for i in range(4000)]  # 40 MB
    write(tmp_path / 'topics.miracl-v1.0-sw-dev.tsv', '1\tnani\n')
    write(tmp_path / 'qrels.miracl-v1.0-sw-dev.tsv', '1 Q0 7#0 1\n')
    write(tmp_path / 'miracl-corpus-v1.0-sw/docs-0.jsonl.gz', lines(*rows))
    del rows
    tracemalloc.start()
    benchmark = benchmarks.load_benchmark('miracl:sw', tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert benchmark.documents.texts[-1] == word.strip() and len(benchmark.documents.texts) == 4000
    assert peak < 12e6  # a block of lines, and what becomes of it
