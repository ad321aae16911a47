"""The packages import each other as the table of docs/architecture.md allows, and stay small."""

import ast
import pathlib

import pytest

import hbt
from tests import ROOT

FOLDER = pathlib.Path(hbt.__file__).parent
MODULES = sorted(FOLDER.rglob('*.py'))
PACKAGES = sorted(path.parent for path in FOLDER.rglob('__init__.py') if path.parent != FOLDER)


def matrix() -> dict[str, set[str]]:
    """Package -> the packages that it may import, as documented."""
    lines = (ROOT / 'docs/architecture.md').read_text().splitlines()
    table = [[x.strip() for x in line.split('|')[1:-1]] for line in lines if line.startswith('|')]
    start = next(i for i, row in enumerate(table) if row[0] == 'may import')
    return {
        row[0]: {name for name, mark in zip(table[start], row, strict=True) if mark == 'x'}
        for row in table[start + 2 :]
        if len(row) == len(table[start])
    }


def package(module: str) -> str:
    """hbt.data.readers.schema -> data; hbt.main -> programs."""
    name = module.split('.')[1]
    return name if (FOLDER / name).is_dir() or name == 'config' else 'programs'


def imports(source: str) -> set[str]:
    """Modules of hbt that a source names."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == 'hbt':
            names |= {f'hbt.{alias.name}' for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or '').startswith('hbt.'):
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {a.name for a in node.names if a.name.startswith('hbt.')}
    return names


def forbidden(module: str, source: str) -> list[str]:
    """What a module imports that its package may not import."""
    own = package(module)
    return [x for x in imports(source) if package(x) != own and package(x) not in matrix()[own]]


@pytest.mark.parametrize('path', MODULES, ids=lambda x: str(x.relative_to(FOLDER)))
def test_a_module_imports_what_its_package_may(path):
    module = '.'.join(path.relative_to(FOLDER.parent).with_suffix('').parts)
    if path.name != '__init__.py' or path.parent != FOLDER:
        assert not forbidden(module, path.read_text())


def test_a_forbidden_import_is_found():
    assert forbidden('hbt.data.store', 'from hbt.models import encoder\n') == ['hbt.models']
    assert forbidden('hbt.utils.log', 'import hbt.config\n') == ['hbt.config']
    assert not forbidden('hbt.main', 'from hbt.training import loop\n')


@pytest.mark.parametrize('folder', PACKAGES, ids=lambda x: str(x.relative_to(FOLDER)))
def test_a_package_is_small_and_says_what_it_is_for(folder):
    assert len([x for x in folder.glob('*.py') if x.name != '__init__.py']) <= 12
    assert ast.get_docstring(ast.parse((folder / '__init__.py').read_text()))


def test_the_top_of_the_package_is_a_table_of_contents():
    names = {x.name for x in FOLDER.iterdir()} - {'__init__.py', '__main__.py', 'py.typed'}
    assert len({x for x in names if not x.startswith('__')}) <= 20


@pytest.mark.parametrize('path', MODULES, ids=lambda x: str(x.relative_to(FOLDER)))
def test_files_and_functions_are_short(path):
    source = path.read_text()
    assert len(source.splitlines()) <= 320
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name
