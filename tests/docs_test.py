"""The commands of the documents and of `launch/reproduce.sh` are what the programs take."""

import re
import runpy
import shlex
import subprocess
import sys

import pytest

from hbt import config
from tests import ROOT

DOCUMENTS = sorted(x for x in [*ROOT.glob('*.md'), *ROOT.glob('docs/*.md')])
SIZES = {'hybrid_xlmr': (), 'strategies': ('--small', '--data=tests')}


def check(line: str) -> str:
    """Checks program, flags and settings of a command of Python; gives the program, or nothing."""
    words = shlex.split(line.partition('  #')[0])
    at = [i for i, word in enumerate(words) if word == '-m']
    file = re.search(r'launch/\w+\.py', line)
    if not (at and words[at[-1] + 1].startswith(('hbt.', 'tests.', 'benchmarks.')) or file):
        return ''
    name = words[at[-1] + 1] if at else file[0].removesuffix('.py').replace('/', '.')
    rest = words[at[-1] + 2 :] if at else words
    source = (ROOT / name.replace('.', '/')).with_suffix('.py').read_text()
    config.check_flags(rest)
    for word in rest:
        flag = word.partition('=')[0].removeprefix('--').partition('.')[0]
        if word.startswith('--') and flag and not (flag == 'config' and 'launch' in name):
            assert re.search(rf"(DEFINE_\w+|add\w*)\(\s*'(--)?{flag}'", source), line
        file = re.fullmatch(r'(?:--config=)?(configs/.*\.py)(:.*)?', word)
        if file:
            runpy.run_path(str(ROOT / file[1]))['get_config']((file[2] or ':')[1:])
    return name


def commands(text: str) -> list[str]:
    """Lines of the blocks of a document that are for bash."""
    blocks = re.findall(r'^ *```bash\n(.*?)^ *```', text, re.M | re.S)
    lines = '\n'.join(blocks).replace('\\\n', ' ').splitlines()
    return [line.strip() for line in lines if 'python' in line]


@pytest.mark.parametrize('document', DOCUMENTS, ids=lambda path: path.name)
def test_the_commands_of_a_document_are_what_the_programs_take(document, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    for line in commands(document.read_text()):
        for part in line.split('&&'):
            check(part.replace(' ... ', ' '))


def shown(*arguments):
    return subprocess.run(
        ['launch/reproduce.sh', *arguments, '--dry_run'], cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.parametrize('name', SIZES)
def test_every_stage_from_data_to_tables_is_a_command_that_its_program_takes(name):
    done = shown(*SIZES[name])
    assert done.returncode == 0, done.stderr
    lines = [line.removeprefix('+ ') for line in done.stdout.splitlines()]
    programs = {check(line) for line in lines} - {''}
    stages = ('translate', 'prepare', 'shares', 'main', 'report', 'export')
    assert programs == {'launch.sweep'} | {f'hbt.{x}' for x in stages}


@pytest.mark.parametrize('name', SIZES)
def test_the_run_that_is_exported_is_one_of_the_sweep(name):
    exported = re.search(r"--workdir=(runs/sweep/\S+?)'", shown(*SIZES[name]).stdout)[1]
    done = subprocess.run(
        [sys.executable, 'launch/sweep.py', f'configs/{name}.py', '--dry_run'],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert f'--workdir={exported} ' in done.stdout, exported


def test_an_unknown_argument_is_refused():
    done = shown('--smal')
    assert done.returncode == 2 and 'got --smal' in done.stderr


def test_what_is_there_is_not_made_again(tmp_path):
    script = tmp_path / 'launch/reproduce.sh'
    (tmp_path / 'stores/small/store').mkdir(parents=True)
    script.parent.mkdir()
    script.write_text((ROOT / 'launch/reproduce.sh').read_text())
    command = ['bash', str(script), '--small', '--data=.', '--dry_run']
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and 'hbt.prepare' not in done.stdout
    assert 'hbt.translate' in done.stdout
