"""Imports of the package point strictly downward."""

import ast
import pathlib

import hbt

LAYERS = (
    {'rows'},
    {
        *('config', 'sharding', 'metrics', 'log', 'cldr', 'files', 'pickles', 'requests', 'spikes'),
        *('nn', 'attention', 'packing', 'languages', 'collection', 'statistics'),
        *('draws', 'identity', 'document', 'plots', 'paper'),
    },
    {
        *('store', 'weights', 'encoder', 'losses', 'optim', 'checkpoint'),
        *('bias', 'trec', 'lareqa', 'miracl', 'mtop', 'beir', 'counting'),
        *('columns', 'records', 'corpora', 'leakage', 'duplicates', 'engines'),
        *('processes', 'notations', 'options'),
    },
    {
        *('batches', 'pools', 'sources', 'tokenise', 'hf', 'hub', 'vocabulary', 'search'),
        *('summary', 'debias'),
    },
    {'telemetry', 'sampler', 'workers', 'beam', 'writer', 'pipeline', 'benchmarks', 'judging'},
    {'hygiene', 'train', 'embed', 'results', 'shares', 'translate'},
    {'prepare'},
    {'evaluate', 'export', 'trim', 'places', 'runs'},
    {'dry_run', 'replay', 'mine'},
    {'main', 'comparison', 'published'},
    {'tables', 'trends'},
    {'breakdowns'},
    {'figures'},
    {'report'},
)
FOLDER = pathlib.Path(hbt.__file__).parent


def imports(path: pathlib.Path) -> set[str]:
    """Modules of hbt that a module names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == 'hbt':
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or '').startswith('hbt.'):
            found.add(node.module.split('.')[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split('.')[1] for a in node.names if a.name.startswith('hbt.')}
    return found


def test_every_module_has_a_layer():
    modules = {path.stem for path in FOLDER.glob('*.py')} - {'__init__'}
    assert modules == set.union(*LAYERS)


def test_modules_import_lower_layers_only():
    level = {module: i for i, layer in enumerate(LAYERS) for module in layer}
    for path in FOLDER.glob('*.py'):
        for module in imports(path):
            assert level[module] < level[path.stem], f'{path.name} imports {module}'
