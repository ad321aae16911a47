"""Apache Beam builds the same store as this machine."""

import gzip
import json
import pathlib
import subprocess
import sys

import pytest

from hbt import config
from hbt.data import build
from hbt.data.curation import checks
from hbt.data.readers import text_lines
from tests.data.readers import registry_test as sources_test

RUNNER = '--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner'
DATA = config.Data(tokenizer='train:400', query_length=16, passage_length=24)
pytestmark = pytest.mark.filterwarnings('ignore')  # of Apache Beam


def write_groups(folder, bad=''):
    with gzip.open(folder / 'a.jsonl.gz', 'wt') as file:
        for i in range(40):
            row = {'id': str(i), 'query': {'en': f'what {i}'}, 'passage': {'de': f'das {i // 2}'}}
            file.write((bad if bad and i == 21 else json.dumps(row)) + '\n')
    return str(folder / 'a.jsonl.gz')


def test_beam_makes_the_same_store(tmp_path, monkeypatch):
    pytest.importorskip('apache_beam')
    monkeypatch.setattr(text_lines, 'BLOCK', 256)  # some ten blocks
    inputs = [write_groups(tmp_path), sources_test.marco_files(tmp_path)]
    expected = build.build_store(DATA, tmp_path / 'expected', inputs)
    store = build.build_store(DATA, tmp_path / 'store', inputs, 3, beam_options=RUNNER)
    assert store.manifest == expected.manifest
    assert not list(tmp_path.glob('store/progress.*'))
    cleaning_config = checks.CleaningConfig(exact='drop', normalise='NFC')
    expected = build.build_store(
        DATA, tmp_path / 'clean', inputs, 1, cleaning_config=cleaning_config
    )
    store = build.build_store(
        DATA, tmp_path / 'clean2', inputs, 3, cleaning_config=cleaning_config, beam_options=RUNNER
    )
    assert store.manifest == expected.manifest


def test_the_machines_need_no_jax():
    modules = 'hbt.data.apache_beam, hbt.data.readers.registry, hbt.data.tokenization'
    code = f"import sys, {modules}; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, '-c', code], check=True)


def test_a_bad_group_is_named_as_without_beam(tmp_path, monkeypatch):
    pytest.importorskip('apache_beam')
    monkeypatch.setattr(text_lines, 'BLOCK', 256)
    good = build.build_store(DATA, tmp_path / 'good', [write_groups(tmp_path)])
    data = config.Data(tokenizer=str(good.path / 'tokenizer.json'))
    with pytest.raises(ValueError, match=r'a.jsonl.gz:22: expected a JSON object'):
        build.build_store(
            data, tmp_path / 'bad', [write_groups(tmp_path, '{')], 3, beam_options=RUNNER
        )
    content = pathlib.Path(write_groups(tmp_path)).read_bytes()
    (tmp_path / 'a.jsonl.gz').write_bytes(content[:-40])
    with pytest.raises(ValueError, match=r'a.jsonl.gz:[0-9]+: expected a whole gzip file'):
        build.build_store(
            data, tmp_path / 'bad', [str(tmp_path / 'a.jsonl.gz')], 3, beam_options=RUNNER
        )
    assert not (tmp_path / 'bad').exists()
