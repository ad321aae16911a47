"""What a person sees of every program: it fits, goes on, and names what it wrote."""

import os
import re
import select
import shlex
import subprocess
import sys
import time

import pytest

from hbt.utils import text_table
from tests import ROOT

SILENCE = 10  # seconds: twice what is wanted, as other tests run beside
MAKE = 'hbt.prepare --input=cldr:60 --tokenizer=train:800 --out=store --query_length=16'
TRAIN = f'hbt.main --config={ROOT}/tests/tiny.py --config.data.root=store --workdir=run'


def run(command, folder):
    """Standard output of a program, and its longest silence once it has begun to speak."""
    process = subprocess.Popen(
        [sys.executable, '-m', *shlex.split(command)],
        cwd=folder,
        env=os.environ | {'PYTHONPATH': str(ROOT), 'XLA_FLAGS': '', 'COLUMNS': ''},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    texts, last, silence = {process.stdout: b'', process.stderr: b''}, None, 0.0
    while files := [x for x in texts if not x.closed]:
        for file in select.select(files, [], [])[0]:
            now, data = time.monotonic(), os.read(file.fileno(), 2**16)
            silence = max(silence, now - (last or now))
            last, texts[file] = now, texts[file] + data
            if not data:
                file.close()
    out, error = (x.decode() for x in texts.values())
    assert process.wait() == 0, error
    return out, silence


@pytest.mark.slow
def test_every_program_fits_a_terminal_goes_on_and_names_what_it_wrote(tmp_path):
    (tmp_path / 'texts').write_text('one\ntwo\n')
    (tmp_path / 'corpus').write_text('d1\tone\nd2\ttwo\n')
    programs = {
        f'{MAKE} --passage_length=32 --exact=count': ['store: 60 groups', 'store/cleaning.tsv'],
        f'{TRAIN.replace("hbt.main", "hbt.plan").replace(" --workdir=run", "")} --out=plan': [
            'plan/proportions.tsv',
            'plan/proportions.png',
        ],
        f'{TRAIN} --config.eval.benchmarks=cldr': ['run: complete at step 12', 'best step: 12'],
    }
    silences, commands = {}, []
    for command, names in programs.items():
        out, silences[command] = run(command, tmp_path)
        check(out, names)
        commands = re.findall(r'^  python -m (.*)$', out, re.M)
    written = [['run/results/12/cldr.json'], ['models/run: '], ['reports/run/index.html']]
    for command, names in zip(commands, written, strict=True):
        out, silences[command] = run(command, tmp_path)
        check(out, names)
    programs = {
        'hbt.embed --model=models/run --input=texts --out=out.npy': ['out.npy: 2 embeddings'],
        'hbt.mine --workdir=run --out=mined': ['mined: 60 groups'],
        'hbt.search --model=models/run --corpus=corpus --query=one': ['corpus.index: 2 documents'],
    }
    for command, names in programs.items():
        out, silences[command] = run(command, tmp_path)
        check(out, names)
    assert max(silences.values()) < SILENCE, silences


def check(out, names):
    """The names are in the output, each at the start of a line; tables are not too wide."""
    lines = out.splitlines()
    for name in names:
        assert any(line.startswith(name) for line in lines), (name, out)
    tables = [line for line in lines if line.count('  ') > 1]
    assert max(map(text_table.text_width, tables), default=0) <= text_table.WIDTH, out
