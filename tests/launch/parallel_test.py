"""What is selected for the small experiments, and their configs."""

import gzip
import importlib
import json
import re
import subprocess
import sys

import pytest

from hbt import config
from hbt.utils import settings
from tests import ROOT
from tests.research_test import overridden

SMALL = sorted(x.stem for x in (ROOT / 'configs' / 'small').glob('*.py'))


def write(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(file, 'wt') as lines:
        lines.writelines(json.dumps({'id': str(i), **row}) + '\n' for i, row in enumerate(rows))


def read(file):
    with gzip.open(file, 'rt') as lines:
        return [json.loads(line) for line in lines]


def parallel(*arguments):
    return subprocess.run(
        [sys.executable, ROOT / 'launch/parallel.py', *arguments], capture_output=True, text=True
    )


def both(**texts):
    return {'query': texts, 'passage': texts}


def test_the_languages_of_the_experiments_are_selected_and_pairs_of_one_text_are_not(tmp_path):
    question = {'query': {'sw': 'a', 'th': 'b'}, 'passage': {'th': 'c'}}
    write(tmp_path / 'in/some.jsonl.gz', [both(en='a', fr='b', de='c'), both(en='a', fr='b')])
    write(tmp_path / 'in/parallel/more.jsonl.gz', [question])
    write(tmp_path / 'in/parallel/pud.jsonl.gz', [both(en='a', de='b')])
    done = parallel(tmp_path / 'in', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    assert sorted(x.name for x in (tmp_path / 'out').iterdir()) == [
        'more.jsonl.gz',
        'some.jsonl.gz',
    ]
    assert read(tmp_path / 'out/some.jsonl.gz') == [{'id': '0', **both(de='c', en='a')}]
    assert read(tmp_path / 'out/more.jsonl.gz') == [
        {'id': '0', 'query': {'th': 'b'}, 'passage': {'th': 'c'}}
    ]


def test_one_group_in_so_many_is_selected_and_scarce_languages_are_in_few(tmp_path):
    write(tmp_path / 'in/a.jsonl.gz', [both(en='a', de='b', th='c')] * 68)
    write(tmp_path / 'in/b.jsonl.gz', [both(en='a', de='b')])
    arguments = tmp_path / 'in', tmp_path / 'out', '--every=2', '--scarce=th', '--only=a'
    assert parallel(*arguments).returncode == 0
    rows = read(tmp_path / 'out/a.jsonl.gz')
    assert [row['id'] for row in rows] == [str(i) for i in range(0, 68, 2)]
    assert [row['id'] for row in rows if 'th' in row['query']] == ['0', '32', '64']
    assert not (tmp_path / 'out/b.jsonl.gz').exists()
    assert parallel(*arguments).stdout == ''  # nothing is written again


def test_what_is_no_language_no_file_or_no_folder_of_texts_is_refused(tmp_path):
    write(tmp_path / 'a.jsonl.gz', [both(en='a', de='b')])
    for arguments, message in (
        ([tmp_path, tmp_path / 'out', '--scarce=sw'], '--scarce: expected some of ar, .* got sw'),
        ([tmp_path, tmp_path / 'out', '--only=b'], '--only: expected some of a, got b'),
        ([tmp_path / 'none', tmp_path / 'out'], 'expected files \\*.jsonl.gz, got none'),
    ):
        done = parallel(*arguments)
        assert done.returncode == 2
        assert re.search(message, done.stderr), done.stderr


@pytest.mark.parametrize('name', SMALL)
def test_every_small_config_is_valid_and_so_are_the_rows_of_its_sweep(name):
    module = importlib.import_module(f'hbt.configs.small.{name}')
    config.check(module.get_config())
    known = settings.flatten(config.Config())
    for row in getattr(module, 'sweep', list)():
        c = config.check(overridden(module.get_config(), row))
        for setting, value in row.items():
            assert type(value) is type(known[setting])
            assert settings.flatten(c)[setting] == value
