"""docs/tour.md runs as it stands, and its outputs are those that the programs print."""

import os
import re
import subprocess
import sys

import pytest

from tests import ROOT, docs_blocks_test, docs_test

PAGE = ROOT / 'docs' / 'tour.md'


def outputs() -> dict[str, list[str]]:
    """Code of a block -> the lines that the page says it prints, if any."""
    pattern = r'^```(?:bash|python)\n(.*?)^```(?:\n\n```text\n(.*?)^```)?'
    blocks = re.finditer(pattern, PAGE.read_text(), re.M | re.S)
    return {x[1]: [line for line in (x[2] or '').splitlines() if line != '...'] for x in blocks}


def without_digits(line: str) -> str:
    """Another machine may compute other numbers."""
    return re.sub(r'[0-9]+', '0', ' '.join(line.split()))


@pytest.mark.slow
def test_the_tour_runs_and_prints_what_the_page_shows(tmp_path):
    docs_blocks_test.write_program(
        tmp_path / 'bin' / 'python', f'#!/bin/sh\nexec {sys.executable} "$@"\n'
    )
    path = f'{tmp_path}/bin:{os.environ["PATH"]}'
    environment = os.environ | {'PATH': path, 'PYTHONPATH': str(ROOT), 'XLA_FLAGS': ''}
    shown = outputs()
    run = [block for block in docs_test.blocks(PAGE) if not block.reason]
    assert len(run) == len(shown) - 1  # the first one installs
    for block in run:
        program = ['bash', '-euc'] if block.language == 'bash' else ['python', '-c']
        streams = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        result = subprocess.run(
            [*program, block.code], cwd=tmp_path, env=environment, check=False, **streams
        )
        assert not result.returncode, (block.where, result.stdout[-3000:])
        printed = ' '.join(without_digits(x) for x in re.split('[\r\n]', result.stdout))
        for line in shown[block.code]:
            assert without_digits(line) in printed, (block.where, line, result.stdout[-3000:])
