"""The commands of the pages and of `launch/reproduce.sh` are what the programs take."""

import ast
import importlib
import pathlib
import re
import runpy
import shlex
import subprocess
import sys
import textwrap
import typing

import pytest

from hbt import config
from hbt.data.curation import checks
from hbt.utils import settings
from tests import ROOT

PAGES = sorted([*ROOT.glob('*.md'), *ROOT.glob('docs/*.md')])
# Settings of a store, from whose fields hbt.prepare makes its flags.
FIELDS = {*settings.entries(config.Data()), *settings.entries(checks.CleaningConfig())}
SIZES = {'hybrid_xlmr': (), 'small/strategies': ('--small', '--data=tests')}


def check(line: str) -> str:
    """Checks program, flags and settings of a command of Python; gives the program, or nothing."""
    words = shlex.split(line.partition('  #')[0])
    modules = [i for i, word in enumerate(words) if word == '-m']
    file = re.search(r'launch/\w+\.py', line)
    if not (
        modules and words[modules[-1] + 1].startswith(('hbt.', 'tests.', 'benchmarks.')) or file
    ):
        return ''
    name = words[modules[-1] + 1] if modules else file[0].removesuffix('.py').replace('/', '.')
    rest = words[modules[-1] + 2 :] if modules else words
    source = (ROOT / name.replace('.', '/')).with_suffix('.py').read_text()
    config.check_flags(rest)
    for word in rest:
        flag = word.partition('=')[0].removeprefix('--').partition('.')[0]
        if word.startswith('--') and flag and not (flag == 'config' and 'launch' in name):
            defined = rf"(DEFINE_\w+|add\w*)\(\s*'(--)?{flag}'"
            assert re.search(defined, source) or name == 'hbt.prepare' and flag in FIELDS, line
        file = re.fullmatch(r'(?:--config=)?(configs/.*\.py)(:.*)?', word)
        if file:
            runpy.run_path(str(ROOT / file[1]))['get_config']((file[2] or ':')[1:])
    return name


class Block(typing.NamedTuple):
    """A block of code of a page."""

    where: str  # README.md:12
    language: str  # bash or python
    code: str
    reason: str  # why it is not run; empty: it is run


def blocks(page: pathlib.Path) -> list[Block]:
    """The blocks of bash and Python of a page, in order."""
    text = page.read_text()
    matches = re.finditer(
        r'^(?: *<!-- not run: ([^\n]+) -->\n)?( *)```(bash|python)\n(.*?)^ *```', text, re.M | re.S
    )
    return [
        Block(
            f'{page.name}:{text.count(chr(10), 0, match.start(3)) + 1}',
            match[3],
            textwrap.dedent(match[4]),
            match[1] or '',
        )
        for match in matches
    ]


def commands(page: pathlib.Path) -> list[str]:
    """Commands of Python in the blocks of a page that are for bash."""
    code = '\n'.join(block.code for block in blocks(page) if block.language == 'bash')
    lines = code.replace('\\\n', ' ').splitlines()
    return [part for line in lines for part in line.split('&&') if 'python' in part]


def test_every_block_of_the_pages_is_found():
    for page in PAGES:
        fences = re.findall(r'^ *```(?:bash|python)$', page.read_text(), re.M)
        assert len(blocks(page)) == len(fences), page


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.name)
def test_the_commands_of_a_page_are_what_the_programs_take(page, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    for line in commands(page):
        check(line)


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.name)
def test_every_setting_that_a_page_gives_exists(page):
    config.check_flags(re.findall(r'--config\.[\w.]+', page.read_text()))


@pytest.mark.parametrize('page', PAGES, ids=lambda path: path.name)
def test_every_link_of_a_page_leads_to_a_file(page):
    for target in re.findall(r'\]\((?!https?:)([^)#]+)', page.read_text()):
        assert (page.parent / target).exists(), target


def names_of(source: pathlib.Path) -> set[str]:
    """What a module defines or imports at its top."""
    names = set()
    for node in ast.parse(source.read_text()).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {ast.unparse(target) for target in targets}
        else:
            names.add(getattr(node, 'name', ''))
    return names


@pytest.mark.parametrize('name', ['architecture', 'extending'])
def test_every_name_of_the_code_in_a_page_exists(name):
    packages = '|'.join(path.parent.name for path in ROOT.glob('hbt/*/__init__.py'))
    names = re.findall(rf'`((?:{packages})(?:\.\w+)+)`', (ROOT / f'docs/{name}.md').read_text())
    assert len(names) > 9
    for name in names:
        path = ROOT / 'hbt' / name.replace('.', '/')
        if not path.with_suffix('.py').exists() and not path.is_dir():
            package = path.parent / '__init__.py'
            source = package if package.exists() else path.parent.with_suffix('.py')
            assert path.name in names_of(source), name


def test_the_readme_is_short_and_links_every_page_of_the_documentation():
    text = (ROOT / 'README.md').read_text()
    assert len(text.splitlines()) <= 130
    assert {path.name for path in ROOT.glob('docs/*.md')} == {*re.findall(r'docs/(\w+\.md)', text)}


def dry_run(*arguments):
    return subprocess.run(
        ['launch/reproduce.sh', *arguments, '--dry_run'], cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.parametrize('name', SIZES)
def test_every_stage_from_data_to_tables_is_a_command_that_its_program_takes(name):
    result = dry_run(*SIZES[name])
    assert result.returncode == 0, result.stderr
    lines = [line.removeprefix('+ ') for line in result.stdout.splitlines()]
    programs = {check(line) for line in lines} - {''}
    stages = ['translate', 'prepare', 'plan', 'report', 'export']
    other = {'launch.sweep'}
    if name != 'hybrid_xlmr':  # its text is selected, and its starts are trained and evaluated
        stages += ['main', 'evaluate']
        other |= {'launch.parallel'}
    assert programs == other | {f'hbt.{x}' for x in stages}


@pytest.mark.parametrize('name', SIZES)
def test_the_run_that_is_exported_is_one_of_the_sweep(name, monkeypatch, capsys):
    lines = [x for x in dry_run(*SIZES[name]).stdout.splitlines() if 'hbt.export' in x]
    exported = pathlib.Path(re.search(r"--workdir=(\S+?)'", lines[-1])[1])
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'path', [str(ROOT / 'launch'), *sys.path])
    sweep = importlib.import_module('sweep')
    out = f'--out={exported.parent}'
    assert sweep.main([f'configs/{name}.py', out, '--dry_run']) == 0
    assert f'--workdir={exported} ' in capsys.readouterr().out


def test_an_unknown_argument_is_refused():
    result = dry_run('--smal')
    assert result.returncode == 2 and 'got --smal' in result.stderr


def test_an_existing_store_is_not_made_again(tmp_path):
    script = tmp_path / 'launch/reproduce.sh'
    (tmp_path / 'stores/small/store').mkdir(parents=True)
    script.parent.mkdir()
    script.write_text((ROOT / 'launch/reproduce.sh').read_text())
    command = ['bash', str(script), '--small', '--data=.', '--dry_run']
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0 and "'--out=stores/small/store'" not in result.stdout
    assert 'hbt.translate' in result.stdout
