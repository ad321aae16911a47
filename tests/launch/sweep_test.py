"""Sweeps run here, with small programs instead of training."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from hbt import config
from tests import ROOT

sys.path.insert(0, str(ROOT / 'launch'))

import sweep  # noqa: E402

CONFIG = """
from tests import tiny


def get_config(arg=None):
    return tiny.make()


def sweep():
    for alpha in (0.25, 1.0):
        for seed in (0, 1):
            yield {'sampler.alpha': alpha, 'seed': seed}
"""
NAMES = ['alpha0.25_seed0', 'alpha0.25_seed1', 'alpha1.0_seed0', 'alpha1.0_seed1']


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / 'c.py').write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield tmp_path
    for number, handler in before.items():
        signal.signal(number, handler)


def run(command: str, *rest: str) -> int:
    return sweep.main(['c.py', '--out=out', f'--command={command}', *rest])


def test_rows_are_the_commands_of_the_sweep_in_order(folder):
    rows = sweep.expand('c.py', 'x=1', 'w', ['--config.data.root=d'])
    assert [row.name for row in rows] == NAMES
    assert rows[1].args == (
        *('-m', 'hbt.main', '--config=c.py:x=1', '--workdir=w/alpha0.25_seed1'),
        *('--config.sampler.alpha=0.25', '--config.seed=1', '--config.data.root=d'),
    )


def test_the_sweeps_of_the_configs_expand():
    rows = sweep.expand(str(ROOT / 'configs' / 'scratch_small.py'), '', 'w', [])
    assert len(rows) == 15 and rows[3].name == 'alpha0.25_seed0'
    config.check_flags(rows[3].args[2:])


@pytest.mark.parametrize(
    ('body', 'rest', 'message'),
    [
        ('', [], r'expected a function sweep\(\)'),
        ('def sweep():\n yield {"sampler.alhpa": 1}', [], r"row 0: .* got \{'sampler.alhpa': 1\}"),
        ('def sweep():\n yield {"seed": 1}', ['--config.seed=2'], 'row 0: .* command line too'),
        ('def sweep():\n yield {"seed": 1}\n yield {"seed": 1}', [], 'row 1: .* seed1 again'),
        ('def sweep():\n yield from ()', [], 'at least one row'),
        ('def sweep():\n yield "seed=1"', [], 'row 0: expected a dict'),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(folder, body, rest, message):
    (folder / 'c.py').write_text(body)
    with pytest.raises(ValueError, match=message):
        sweep.expand('c.py', '', 'w', rest)


def test_rows_run_once_and_what_failed_runs_again(folder, capfd):
    command = 'echo {row} >>ran; echo why; echo {row} is bad >&2; [[ -e fixed || {row} != *1.0*1 ]]'
    assert run(command) == 1
    out = capfd.readouterr().out
    assert out.splitlines()[-5:] == [
        'alpha0.25_seed0  done',
        'alpha0.25_seed1  done',
        'alpha1.0_seed0   done',
        'alpha1.0_seed1   failed: alpha1.0_seed1 is bad',
        '3 done, 1 failed',
    ]
    assert (folder / 'ran').read_text().split() == NAMES
    (folder / 'fixed').write_text('')
    assert run(command) == 0
    assert (folder / 'ran').read_text().split() == [*NAMES, NAMES[-1]]
    assert run(command) == 0
    assert len((folder / 'ran').read_text().split()) == 5


def test_the_status_runs_nothing(folder, capfd):
    assert run('touch ran', '--status') == 0
    assert capfd.readouterr().out.endswith('4 waiting\n')
    assert run('touch ran {args}', '--dry_run') == 0
    assert 'touch ran -m hbt.main --config=c.py --workdir=out/alpha0.25_seed0' in (
        capfd.readouterr().out
    )
    assert sorted(path.name for path in folder.iterdir() if path.suffix != '.pyc') == ['c.py']


def test_rows_run_at_the_same_time_each_in_its_own_slot(folder):
    command = (
        'mkdir slot{slot} && touch on.{row}; for i in {{1..500}}; do n=(on.*); '
        '(( ${{#n[@]}} > 1 )) && break; sleep 0.01; done; rmdir slot{slot} && (( i < 500 ))'
    )
    assert run(command, '--jobs=2') == 0
    assert not list(folder.glob('slot*'))


def test_a_row_that_was_preempted_starts_again(folder):
    assert run('echo {row} >>ran; (( $(grep -c {row} ran) > 2 )) || exit 75') == 0
    assert len((folder / 'ran').read_text().split()) == 12


def test_other_settings_are_refused_in_the_folder_of_a_sweep(folder, capfd):
    assert run('true') == 0
    assert run('true', '--config.steps=7') == 1
    err = capfd.readouterr().err
    assert 'choose another --out' in err and '--config.steps=7' in err


def test_a_template_with_unknown_names_is_refused(folder, capfd):
    assert run('run {machine}') == 1
    assert 'expected {args}, {slot} or {row}' in capfd.readouterr().err
    assert not (folder / 'out').exists()


def start(folder, command: str) -> subprocess.Popen:
    argv = [sys.executable, ROOT / 'launch' / 'sweep.py', 'c.py', '--out=out', '--jobs=2']
    environment = os.environ | {'PYTHONPATH': str(ROOT)}
    child = subprocess.Popen([*argv, f'--command={command}'], env=environment)
    end = time.monotonic() + 30
    while len(list(folder.glob('up.*'))) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    assert len(list(folder.glob('up.*'))) == 2
    return child


SAVE = 'trap "echo {row} >>saved; exit 75" TERM; touch up.{row}; while :; do sleep 0.02; done'


def test_an_interrupted_sweep_lets_its_rows_save_and_resumes(folder, capfd):
    child = start(folder, SAVE)
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=20) == 1
    assert sorted((folder / 'saved').read_text().split()) == NAMES[:2]
    capfd.readouterr()
    assert run('true', '--status') == 0
    assert capfd.readouterr().out.endswith('4 waiting\n')
    assert run('true') == 0


def test_rows_of_a_killed_sweep_are_not_started_twice(folder, capfd):
    child = start(folder, 'touch up.{row}; while [[ ! -e go ]]; do sleep 0.02; done')
    child.kill()
    child.wait()
    assert run('true') == 1
    assert 'a sweep runs here already' in capfd.readouterr().err
    assert run('true', '--status') == 0
    assert '2 running, 2 waiting' in capfd.readouterr().out
    (folder / 'go').write_text('')
    end = time.monotonic() + 20
    while sweep.locked(folder / 'out') and time.monotonic() < end:
        time.sleep(0.02)
    assert run('true') == 0


@pytest.mark.slow
def test_a_row_is_a_whole_training_that_resumes(folder):
    steps = ['--config.steps=2', '--config.eval.benchmarks=']
    source = ['--config.data.sources=cldr:60', '--config.data.tokenizer=train:800']
    text = CONFIG.replace('(0.25, 1.0)', '(0.5,)').replace('(0, 1)', '(3,)')
    (folder / 'c.py').write_text(text)
    python = f'PYTHONPATH={ROOT} JAX_PLATFORMS=cpu {sys.executable} {{args}}'
    assert run(python, *steps, *source, '--config.batch_size=8') == 0
    settings = json.loads((folder / 'out' / 'alpha0.5_seed3' / 'config.json').read_text())
    assert settings['seed'] == 3 and settings['sampler']['alpha'] == 0.5 and settings['steps'] == 2
