"""Files of documents and queries in three forms."""

import gzip
import json

import pytest

from hbt.serving import entries


def read(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [tuple(x) for x in entries.iter_entries(path)]


def test_the_first_line_shows_the_form_of_a_file(tmp_path):
    rows = [
        {'_id': 'a', 'title': 'Titel', 'text': 'Ein Text', 'language': 'de'},
        {'docid': 'b#1', 'contents': 'A text'},
        {'id': 'c', 'title': '', 'text': 'Un texte', 'lang': 'fr'},
    ]
    lines = ''.join(json.dumps(x) + '\n' for x in rows)
    expected = [('a', 'de', 'Titel Ein Text'), ('b#1', 'und', 'A text'), ('c', 'fr', 'Un texte')]
    assert read(tmp_path / 'x.jsonl', lines) == expected
    assert read(tmp_path / 'x.gz', gzip.compress(lines.encode())) == expected
    expected = [('a', 'und', 'one'), ('b', 'und', 'two')]
    assert read(tmp_path / 'x.tsv', 'a\tone\nb\ttwo\n') == expected
    assert read(tmp_path / 'x', 'a\t\n') == [('a', 'und', '')]
    assert read(tmp_path / 'x.txt', 'one\r\n two\n\n') == [
        ('1', 'und', 'one'),
        ('2', 'und', ' two'),
    ]


BAD = {
    '': 'x: expected texts, got an empty file',
    'a\n\nb\n': 'x:2: expected text, got an empty line',
    'a\tone\nb\n': r'x:2: expected 2 columns \(id, text\), got 1',
    'a\tone\na\ttwo\n': "x:2: id: expected each once, got 'a' again",
    'a b\tone\n': "x:1: id: expected one without white space, got 'a b'",
    '{"id": "a", "text": "b"}\nc\n': 'x:2: expected a JSON object',
    '{"id": 1, "text": "b"}\n': 'x:1: docid: expected a non-empty text, got 1',
    '{"id": "1", "body": "b"}\n': 'x:1: expected docid, title and text, got {"id": "1"',
    '{"id": "a", "text": "b", "lang": 3}\n': "x:1: expected 'lang' to be a str, got a int",
    '{"id": "a", "text": "b", "language": 0}\n': "x:1: expected 'language' to be a str, got a int",
    '{"id": "a", "text": "b", "lang": "q1"}\n': "x:1: expected a language code .* got 'q1'",
}


@pytest.mark.parametrize('content', BAD)
def test_bad_lines_are_named(tmp_path, content):
    with pytest.raises(ValueError, match=BAD[content]):
        read(tmp_path / 'x', content)
