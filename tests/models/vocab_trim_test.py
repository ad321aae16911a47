"""A trimmed model is smaller and embeds the texts that it covers as the full model does."""

import os
import subprocess
import sys

import numpy as np
import pytest

import hbt
from hbt.models import model_dir, vocab_trim
from hbt.utils import languages
from tests import ROOT
from tests.data import tokenizer_files_test as vocabulary_test

LABSE = str(ROOT / 'tests/fixtures/labse')


def run(*flags):
    return subprocess.run(
        [sys.executable, '-m', 'hbt.export', f'--model={LABSE}', *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {'XLA_FLAGS': ''},
    )


@pytest.mark.slow
def test_the_command_keeps_what_the_texts_need(tmp_path):
    texts = ['w1 w2 w30', 'w7', 'w2 w49']
    (tmp_path / 'texts').write_text('\n'.join(texts))
    done = run(f'--corpus={tmp_path}/texts', f'--out={tmp_path}/small')
    assert done.returncode == 0, done.stderr
    assert '11 of 60 token embeddings' in done.stdout
    small, full = (hbt.load(x, batch_size=8).encode for x in (str(tmp_path / 'small'), LABSE))
    for kind in ('', 'query', 'passage'):
        np.testing.assert_allclose(small(texts, kind), full(texts, kind), atol=1e-6)
    card = (tmp_path / 'small/README.md').read_text()
    note = (
        f'{LABSE} without the token embeddings that are not used in the texts that it was trimmed'
    )
    assert card == f'# small\n\n{note} for: 11 of 60 are kept.\n'
    assert (tmp_path / 'small/model.safetensors').stat().st_size < 28_000
    assert len(model_dir.load_model(str(tmp_path / 'small')).params['embeddings']['token']) == 11


@pytest.mark.slow
def test_one_of_the_two_ways_must_be_chosen(tmp_path):
    done = run(f'--out={tmp_path}/small')
    assert done.returncode == 2
    assert 'error: --corpus, --languages: expected one of them, got' in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ('argument', 'message'),
    [
        ('--workdir=x', 'expected --workdir=DIR of a run, or --model=NAME, got both'),
        ('--license=mit', '--license: expected with --workdir only, got --model'),
        ('--step=latest', '--step: expected with --workdir only, got --model'),
    ],
)
def test_a_flag_of_a_training_run_is_refused_for_a_model(tmp_path, argument, message):
    done = run(argument, '--languages=en', f'--out={tmp_path}/small')
    assert done.returncode == 2 and message in done.stderr
    assert not (tmp_path / 'small').exists()


def test_languages_keep_the_pieces_of_their_scripts():
    tokenizer = vocabulary_test.unigram()

    def remaining(*codes):
        used = vocab_trim.used_by_languages(tokenizer, codes)
        return {tokenizer.id_to_token(i) for i in used}

    assert remaining('ru') & {'▁', '7', '▁кот', 'т', 'b', '▁ab'} == {'▁', '7', '▁кот', 'т'}
    assert remaining('de') & {'▁', '7', '▁кот', 'т', 'b', '▁ab'} == {'▁', '7', 'b', '▁ab'}
    assert remaining('ru', 'de') >= {'▁кот', '▁ab', '7'}
    assert languages.character_scripts('ja') == ('Hira', 'Kana', 'Hani')
    assert languages.character_scripts('zh-Hant') == languages.character_scripts('zh') == ('Hani',)
    assert languages.character_scripts('sr_Latn') == ('Latn',)
    message = "--languages: expected a language code such as en, got 'klingon'"
    with pytest.raises(ValueError, match=message):
        remaining('klingon')
