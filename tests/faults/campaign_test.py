"""A short part of the campaign of kills and damages; `tests/faults/campaign.py` is the whole."""

import os
import subprocess
import sys

import pytest

from tests import ROOT


@pytest.mark.slow
def test_nothing_is_lost_to_kills_and_damaged_files():
    done = subprocess.run(
        [sys.executable, '-m', 'tests.faults.campaign', '--kills=12', '--corruptions=12'],
        cwd=ROOT,
        env=os.environ | {'XLA_FLAGS': ''},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    counts = dict(line.rsplit(maxsplit=1) for line in done.stdout.splitlines())
    assert int(counts['kills']) >= 12 and int(counts['corruptions']) == 12, done.stdout
    assert 'lost' not in done.stdout and 'unclear' not in done.stdout, done.stdout
