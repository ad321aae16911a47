import json
import os
import pathlib
import re

import numpy as np
import pytest

from hbt.evaluation import benchmarks, results
from tests import ROOT

DATA = pathlib.Path(os.environ.get('HBT_DATA', ROOT.parent / 'shared/data'))

CANDIDATES = {
    'xquad_r': dict(
        zip(
            'ar de el en es hi ru th tr vi zh'.split(),
            (1222, 1276, 1234, 1180, 1215, 1244, 1219, 852, 1167, 1209, 1196),
            strict=True,
        )
    ),
    'mlqa_r': dict(ar=2545, de=2362, en=6264, es=1787, hi=2426, vi=2828, zh=2322),
}
QUERIES = {
    'xquad_r': dict.fromkeys(CANDIDATES['xquad_r'], 1190),
    'mlqa_r': dict(ar=517, de=512, en=1148, es=500, hi=507, vi=511, zh=504),
}
# MLQA-R queries of a language (row) that are answered in a language (column).
USABLE = [
    [517, 207, 517, 161, 186, 163, 188],
    [207, 512, 512, 196, 163, 182, 190],
    [517, 512, 1148, 500, 507, 511, 504],
    [161, 196, 500, 500, 187, 189, 161],
    [186, 163, 507, 187, 507, 177, 189],
    [163, 182, 511, 189, 177, 511, 184],
    [188, 190, 504, 161, 189, 184, 504],
]


def load_real(name):
    folder = DATA / name.replace('_', '-')
    if not folder.is_dir():
        pytest.skip(f'no {folder}; HBT_DATA names the directory that holds it')
    return benchmarks.load_benchmark(name, DATA)


def paragraph(questions, sentences=('One fish. ', 'Two fish.')):
    """A paragraph, with questions as (id, text, answer_start)."""
    ends = np.cumsum([len(text) for text in sentences]).tolist()
    return {
        'context': ''.join(sentences),
        'sentences': list(sentences),
        'sentence_breaks': [[e - len(t), e] for t, e in zip(sentences, ends, strict=True)],
        'qas': [
            {'id': id, 'question': text, 'answers': [{'text': 'x', 'answer_start': at}]}
            for id, text, at in questions
        ],
    }


def write_json(folder, language, *paragraphs):
    folder.mkdir(exist_ok=True)
    content = {'data': [{'title': 't', 'paragraphs': list(paragraphs)}]}
    (folder / f'{language}.json').write_text(json.dumps(content), encoding='utf-8')


def make_two_languages(root):
    same = paragraph([('k1', 'How many?', 11), ('k2', 'Which first?', 0)])
    write_json(root / 'mlqa-r', 'en', same, same | {'qas': []})
    write_json(root / 'mlqa-r', 'de', paragraph([('k2', 'Welcher?', 9)], ('Ein Fisch.', 'Zwei.')))
    return benchmarks.load_benchmark('mlqa_r', root)


@pytest.mark.parametrize('name', ['xquad_r', 'mlqa_r'])
def test_the_real_files_give_the_published_counts(name):
    benchmark = load_real(name)
    assert count(benchmark.queries.languages) == QUERIES[name]
    assert count(benchmark.documents.languages) == CANDIDATES[name]
    totals = {'xquad_r': (13090, 13014), 'mlqa_r': (4199, 20534)}
    assert (len(benchmark.queries.ids), len(benchmark.documents.ids)) == totals[name]


def count(values):
    return {value: values.count(value) for value in set(values)}


def test_every_xquad_r_query_has_one_answer_in_each_of_its_11_languages():
    benchmark = load_real('xquad_r')
    relevant_languages = np.array(benchmark.documents.languages)[benchmark.relevant]
    assert benchmark.relevant.shape == (13090, 11) and benchmark.relevant.min() == 0
    assert (np.sort(relevant_languages, axis=1) == sorted(CANDIDATES['xquad_r'])).all()


def test_the_usable_mlqa_r_queries_of_every_language_pair_are_the_known_ones():
    benchmark = load_real('mlqa_r')
    relevant_languages = np.array(benchmark.documents.languages)[benchmark.relevant]
    query_languages = np.array(benchmark.queries.languages)
    languages = sorted(CANDIDATES['mlqa_r'])
    table = [
        [
            ((relevant_languages == c) & (benchmark.relevant >= 0))[query_languages == x]
            .any(axis=1)
            .sum()
            for c in languages
        ]
        for x in languages
    ]
    assert np.array_equal(table, USABLE)


@pytest.mark.parametrize('name', ['xquad_r', 'mlqa_r'])
def test_an_english_answer_is_in_its_relevant_sentence(name):
    benchmark = load_real(name)
    path = DATA / name.replace('_', '-') / 'en.json'
    rows = {id: row for row, id in enumerate(benchmark.queries.ids)}
    for article in json.loads(path.read_text())['data']:
        for entry in (e for p in article['paragraphs'] for e in p['qas']):
            relevant = benchmark.relevant[rows[f'q:en:{entry["id"]}']]
            own = [
                benchmark.documents.texts[d]
                for d in relevant
                if d >= 0 and benchmark.documents.languages[d] == 'en'
            ]
            assert len(own) == 1 and entry['answers'][0]['text'][:3] in own[0]


@pytest.mark.parametrize('name', ['xquad_r', 'mlqa_r'])
def test_ids_are_unique_ascii_without_whitespace_and_documents_descend(name):
    benchmark = load_real(name)
    ids = benchmark.queries.ids + benchmark.documents.ids
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch('[!-~]+', id) for id in ids)
    encoded = [id.encode() for id in benchmark.documents.ids]
    assert encoded == sorted(encoded, reverse=True)


def test_a_small_benchmark_is_read_as_written(tmp_path):
    benchmark = make_two_languages(tmp_path)
    assert benchmark.queries.ids == ['q:de:k2', 'q:en:k1', 'q:en:k2']
    assert benchmark.queries.texts == ['Welcher?', 'How many?', 'Which first?']
    assert benchmark.documents.ids == [
        'd:en:00001:0001',
        'd:en:00001:0000',
        'd:en:00000:0001',
        'd:en:00000:0000',
        'd:de:00000:0001',
        'd:de:00000:0000',
    ]
    assert benchmark.documents.texts[2:5] == ['Two fish.', 'One fish. ', 'Zwei.']
    assert benchmark.relevant.tolist() == [[3, 5], [2, -1], [3, 5]]


def test_the_root_may_be_the_directory_of_the_files_itself(tmp_path):
    outer = make_two_languages(tmp_path)
    inner = benchmarks.load_benchmark('mlqa_r', tmp_path / 'mlqa-r')
    assert results.hash_content(inner) == results.hash_content(outer)
    assert inner.queries == outer.queries and inner.documents.ids == outer.documents.ids


def test_sentences_and_questions_without_text_are_read_and_counted(tmp_path):
    write_json(tmp_path, 'de', paragraph([('k', '', 0)], ('One.', ' ')))
    benchmark = benchmarks.load_benchmark('xquad_r', tmp_path)
    assert benchmark.empty == 2 and [*benchmark.documents.texts] == [' ', 'One.']


def test_equal_sentences_of_two_paragraphs_stay_two_documents(tmp_path):
    texts = make_two_languages(tmp_path).documents.texts
    assert texts.count('One fish. ') == 2


def test_an_unknown_benchmark_lists_the_known(tmp_path):
    with pytest.raises(ValueError, match="one of xquad_r, mlqa_r.*, got 'xquad'"):
        benchmarks.load_benchmark('xquad', tmp_path)


@pytest.mark.parametrize('name', ['missing', '.'])
def test_a_missing_or_empty_directory_is_named(tmp_path, name):
    with pytest.raises(ValueError, match=r'expected <lang>.json files, or xquad-r/ with them'):
        benchmarks.load_benchmark('xquad_r', tmp_path / name)


GOOD = paragraph([('k', 'Which?', 0)])
QA = GOOD['qas'][0]
MALFORMED = {
    '{': r'xx.json: expected a JSON object, got Expecting',
    '[]': r'xx.json: expected a JSON object, got list',
    '{"data": {}}': "expected 'data' to be a list, got a dict",
    '{"data": []}': 'expected sentences and questions, got 0 and 0',
    '{"data": [{}]}': r"xx.json: data\[0\]: expected a field 'paragraphs', got none",
}
ODD = [
    ({'sentences': 'One'}, r"paragraphs\[0\]: expected 'sentences' to be a list, got a str"),
    ({'sentences': ['One', 1]}, r'sentences\[1\]: expected a text, got 1'),
    ({'sentences': ['One']}, r'expected 1 sentence_breaks, got 2'),
    ({'sentence_breaks': [[0, 9], [9]]}, r'sentence_breaks\[1\]: expected \[start, end\]'),
    ({'sentence_breaks': [[1, 9], [9, 19]]}, r'answer_start inside one sentence, got 0 inside 0'),
    ({'sentence_breaks': [[0, 9], [0, 19]]}, r'answer_start inside one sentence, got 0 inside 2'),
    ({'qas': [QA, QA]}, "expected each question id once, got 'k' again"),
    ({'qas': [QA | {'id': 'a b'}]}, r'qas\[0\]: expected an ASCII id without whitespace'),
    ({'qas': [QA | {'answers': []}]}, r'qas\[0\]: expected an answer, got none'),
    ({'qas': [QA | {'answers': [{'answer_start': True}]}]}, r'to be a int, got a bool'),
    ({'qas': [{'id': 'k'}]}, r"qas\[0\]: expected a field 'question', got none"),
]


@pytest.mark.parametrize(('text', 'message'), MALFORMED.items())
def test_a_file_of_another_format_is_named_with_what_came(tmp_path, text, message):
    (tmp_path / 'xx.json').write_text(text)
    with pytest.raises(ValueError, match=message):
        benchmarks.load_benchmark('xquad_r', tmp_path)


@pytest.mark.parametrize(('change', 'message'), ODD)
def test_a_malformed_paragraph_is_named_in_one_line(tmp_path, change, message):
    write_json(tmp_path, 'xx', GOOD | change)
    with pytest.raises(ValueError, match=message) as caught:
        benchmarks.load_benchmark('xquad_r', tmp_path)
    assert str(caught.value).startswith(f'{tmp_path}/xx.json: data[0].paragraphs[0]')
    assert '\n' not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / 'xx.json').write_bytes(b'\xff')
    with pytest.raises(ValueError, match=r'xx.json: expected UTF-8, got .*decode'):
        benchmarks.load_benchmark('xquad_r', tmp_path)


def test_a_file_not_named_by_a_language_is_refused(tmp_path):
    write_json(tmp_path, 'README', GOOD)
    with pytest.raises(ValueError, match='README.json: expected a language code'):
        benchmarks.load_benchmark('xquad_r', tmp_path)
