"""A file of texts becomes a file of embeddings, and a killed call is resumed."""

import gzip
import os
import subprocess
import sys

import numpy as np
import pytest

import hbt
from hbt.models import embedding_file
from tests import ROOT

LABSE = str(ROOT / 'tests/fixtures/labse')


def run(*flags):
    """The command in a process of its own: (exit status, standard error)."""
    result = subprocess.run(
        [sys.executable, '-m', 'hbt.embed', f'--model={LABSE}', *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {'XLA_FLAGS': ''},
    )
    return result.returncode, result.stderr


@pytest.mark.slow
def test_the_command_embeds_every_line_of_a_file(tmp_path):
    texts = ['w1 w2', '', 'w3', 'w4 w5 w6\tw7', ' w8 ']
    (tmp_path / 'texts').write_bytes('\r\n'.join(texts).encode())
    out = tmp_path / 'out.npy'
    code, message = run(f'--input={tmp_path}/texts', f'--out={out}', '--kind=query')
    assert code == 0, message
    expected = hbt.load(LABSE, batch_size=8).encode(texts, 'query')
    np.testing.assert_allclose(np.load(out), expected, atol=1e-6)
    assert sorted(os.listdir(tmp_path)) == ['out.npy', 'texts']
    code, message = run(f'--input={tmp_path}/texts', f'--out={out}')
    assert code == 2 and message.endswith('out.npy: expected nothing there yet, got a file\n')
    code, message = run(f'--input={tmp_path}/texts', f'--out={tmp_path}/6.npy', '--dim=6')
    assert code == 0, message
    np.testing.assert_allclose(
        np.load(tmp_path / '6.npy'), hbt.load(LABSE, dim=6).encode(texts), atol=1e-6
    )
    code, message = run(f'--input={tmp_path}/texts', f'--out={tmp_path}/x.npy', '--dim=25')
    expected = 'error: dim: expected 1 to 24, the dimensions of the embeddings, got 25\n'
    assert (code, message) == (2, expected)


def test_a_killed_call_is_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_file, 'CHUNK', 3)
    source, out = tmp_path / 'x.gz', tmp_path / 'out.npy'
    source.write_bytes(gzip.compress('\n'.join(map(str, range(10))).encode()))
    calls = []

    def dies(texts, place):
        calls.append(texts)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return np.array([[float(text)] for text in texts], np.float32)

    with pytest.raises(KeyboardInterrupt):
        embedding_file.embed_lines(dies, source, out, {'kind': ''})
    assert not out.exists()
    with pytest.raises(ValueError, match="kind: expected '', with which this .* got 'query'"):
        embedding_file.embed_lines(dies, source, out, {'kind': 'query'})
    calls = [None] * 9
    embedding_file.embed_lines(dies, source, out, {'kind': ''})
    assert calls[9:] == [['6', '7', '8'], ['9']]
    np.testing.assert_array_equal(np.load(out)[:, 0], range(10))
    assert sorted(os.listdir(tmp_path)) == ['out.npy', 'x.gz']


@pytest.mark.parametrize('chunk', [1, 2, 9])
def test_lines_end_in_newlines_alone_and_a_byte_order_mark_is_no_text(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(embedding_file, 'CHUNK', chunk)
    texts, embedded = ['a\u2028b', 'c\x85d', '', 'e\x0cf'], []

    def embed(texts, place):
        embedded.extend(texts)
        return np.zeros((len(texts), 1), np.float32)

    source = tmp_path / 'x'
    source.write_bytes('\r\n'.join(texts).encode('utf-8-sig'))
    embedding_file.embed_lines(embed, source, tmp_path / 'out.npy', {})
    assert embedded == texts and len(np.load(tmp_path / 'out.npy')) == 4
    for content, message in (
        (b'a\rb\n', 'x:1: expected lines'),
        (b'\xef\xbb\xbf', 'x: expected t'),
    ):
        source.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            embedding_file.embed_lines(embed, source, tmp_path / 'new.npy', {})


def test_bad_lines_and_files_are_named(tmp_path):
    def refuses(content, message):
        (tmp_path / 'x').write_bytes(content)
        with pytest.raises(ValueError, match=message):
            embedding_file.embed_lines(
                lambda texts, place: np.zeros((len(texts), 1)),
                tmp_path / 'x',
                tmp_path / 'y.npy',
                {},
            )

    refuses(b'', 'x: expected texts, one a line, got an empty file')
    refuses(b'a\n\xff\n', 'x:2: expected UTF-8')
    refuses(gzip.compress(b'a\n' * 99999)[:-9], r'x:\d+: expected a whole gzip file')
