"""A trimmed model is smaller and embeds the texts that it covers as the whole one does."""

import os
import subprocess
import sys

import numpy as np
import pytest

from hbt.models import embedder, model_dir, vocab_trim
from tests import ROOT
from tests.data import tokenizer_files_test as vocabulary_test

LABSE = str(ROOT / 'tests/fixtures/labse')


def run(*flags):
    return subprocess.run(
        [sys.executable, '-m', 'hbt.trim', f'--model={LABSE}', *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {'XLA_FLAGS': ''},
    )


def test_the_command_keeps_what_the_texts_need(tmp_path):
    texts = ['w1 w2 w30', 'w7', 'w2 w49']
    (tmp_path / 'texts').write_text('\n'.join(texts))
    done = run(f'--corpus={tmp_path}/texts', f'--out={tmp_path}/small')
    assert done.returncode == 0, done.stderr
    assert '11 of 60 token embeddings' in done.stdout
    small, whole = (
        embedder.load_embedder(x, batch_size=8) for x in (str(tmp_path / 'small'), LABSE)
    )
    for kind in ('', 'query', 'passage'):
        np.testing.assert_allclose(small(texts, kind), whole(texts, kind), atol=1e-6)
    assert (tmp_path / 'small/model.safetensors').stat().st_size < 28_000
    assert len(model_dir.load_model(str(tmp_path / 'small')).params['embeddings']['token']) == 11


def test_one_of_the_two_ways_must_be_chosen(tmp_path):
    done = run(f'--out={tmp_path}/small')
    assert done.returncode == 2
    assert 'error: --corpus, --languages: expected one of them, got' in done.stderr


def test_languages_keep_the_pieces_of_their_scripts():
    tokenizer = vocabulary_test.unigram()

    def kept(*languages):
        used = vocab_trim.used_by_languages(tokenizer, languages)
        return {tokenizer.id_to_token(i) for i in used}

    assert kept('ru') & {'▁', '7', '▁кот', 'т', 'b', '▁ab'} == {'▁', '7', '▁кот', 'т'}
    assert kept('de') & {'▁', '7', '▁кот', 'т', 'b', '▁ab'} == {'▁', '7', 'b', '▁ab'}
    assert kept('ru', 'de') >= {'▁кот', '▁ab', '7'}
    assert vocab_trim.scripts_of('ja') == ('Hira', 'Kana', 'Hani')
    assert vocab_trim.scripts_of('zh-Hant') == vocab_trim.scripts_of('zh') == ('Hani',)
    assert vocab_trim.scripts_of('sr_Latn') == ('Latn',)
    with pytest.raises(ValueError, match="--languages: expected codes such as en, got 'klingon'"):
        vocab_trim.scripts_of('klingon')
