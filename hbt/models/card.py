"""Model cards: the README.md of a model directory, from what the training run recorded."""

import importlib.metadata
import json
import pathlib
from collections import abc

from hbt import config
from hbt.utils import files, settings

PACKAGES = ('hbt', 'jax', 'flax', 'optax', 'orbax-checkpoint', 'tokenizers')
TAGS = ('sentence-transformers', 'sentence-similarity', 'feature-extraction', 'dual-encoder', 'hbt')
SIDES = ('query', 'passage')
SETTINGS = ('mono', 'cross', 'multi')


def run_card(
    c: config.Config,
    workdir: pathlib.Path,
    step: int,
    out: pathlib.Path,
    license: str,
    trimming: str = '',
) -> str:
    """Returns the card of a step of a training run, in Markdown with the hub's front matter.

    Args:
      out: the model directory.
      trimming: which token embeddings were removed: `without ...`.
    """
    data = files.read_optional_json(workdir / 'data.json').get('datasets', [])
    paths = sorted((workdir / f'results/{step}').glob('*.json'))
    evaluations = [_evaluation(json.loads(path.read_text())) for path in paths]
    parts = [
        _front_matter(c, data, license),
        f'# {out.name}',
        _summary(c, step),
        trimming and f'This directory has the model {trimming}',
        _usage(c, out),
        '## Training data\n\n' + _datasets(data),
        '## Evaluation\n\n' + ('\n\n'.join(evaluations) or 'Not evaluated at this step.'),
        '## Settings\n\n' + _settings(c),
        '## Licence\n\n'
        + (license or 'Not stated. Those of the base model and of the training data apply.'),
        '## Versions\n\n' + _versions(),
    ]
    return '\n\n'.join(filter(None, parts)) + '\n'


def _front_matter(c: config.Config, data: list[dict], license: str) -> str:
    """The hub's metadata in YAML, of which JSON is a part."""
    fields = {
        'language': _languages(data),
        'library_name': 'sentence-transformers',
        'pipeline_tag': 'sentence-similarity',
        'tags': list(TAGS),
    }
    name = c.encoder.init.partition('@')[0]
    if name.count('/') == 1 and not name.startswith(('.', '/', '~')):
        fields['base_model'] = name
    fields['license'] = license
    lines = [f'{key}: {json.dumps(value)}' for key, value in fields.items() if value]
    return '\n'.join(['---', *lines, '---'])


def _summary(c: config.Config, step: int) -> str:
    return (
        'A dual encoder for monolingual, cross-lingual and multilingual retrieval: '
        f'{c.encoder.init or "random weights"}, trained for {step} steps of {c.batch_size} pairs '
        'by hybrid batch training ([arXiv 2408.10536](https://arxiv.org/abs/2408.10536)) with hbt, '
        f'where {c.sampler.alpha:.0%} of the batches are monolingual. Embeddings have '
        f'{c.encoder.projection_dim or c.encoder.hidden_dim} dimensions and length 1; compare them '
        'by cosine.'
    )


def _usage(c: config.Config, out: pathlib.Path) -> str:
    return f"""## Usage

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer({str(out)!r})
queries = model.encode(['Where is the river?'], prompt_name='query')
texts = ['Der Fluss liegt im Norden.', 'Le pain est cuit.']
documents = model.encode(texts, prompt_name='document')
print(model.similarity(queries, documents))
```

or without torch:

```python
from hbt.models import embedder

embed = embedder.load_embedder({str(out)!r})
print(embed(['Where is the river?'], 'query') @ embed(['Der Fluss liegt im Norden.'], 'passage').T)
```

Queries begin with `{c.data.query_prefix}` and documents with `{c.data.passage_prefix}`: the prompts
do that. Training cut queries at {c.data.query_length} tokens and documents at
{c.data.passage_length}."""


def _languages(data: list[dict]) -> list[str]:
    return sorted({x for entry in data for side in SIDES for x in entry[side]})


def _datasets(data: list[dict]) -> str:
    """Groups and texts of each data set, and the texts of each language."""
    if not data:
        return 'Not recorded.'

    def count_texts(entry: dict, side: str) -> int:
        return sum(counts['texts'] for counts in entry[side].values())

    datasets = [
        (x['name'], x['source'], x['groups'], *(count_texts(x, side) for side in SIDES))
        for x in data
    ]
    languages = [
        (code, *(sum(x[side].get(code, {}).get('texts', 0) for x in data) for side in SIDES))
        for code in _languages(data)
    ]
    tables = (
        _table(('dataset', 'source', 'groups', 'queries', 'documents'), datasets),
        _table(('language', 'queries', 'documents'), languages),
    )
    return '\n\n'.join(tables)


def _evaluation(result: dict) -> str:
    """A benchmark's numbers by query language: mAP in three settings, and the rank distance."""
    header = ('language', 'mono mAP', 'cross mAP', 'multilingual mAP', 'rank distance')
    counts, rows = result['counts'], []
    for name, values in (result['languages'] | {'mean': result['metrics']}).items():
        scores = [values.get(setting, {}).get('map') for setting in SETTINGS]
        distance = values.get('multi', {}).get('rank_distance')
        cells = ['' if x is None else f'{x:.4f}' for x in scores]
        rows.append((name, *cells, '' if distance is None else f'{distance:.1f}'))
    return (
        f'{result["benchmark"]}: {counts["queries"]} queries, {counts["documents"]} documents, '
        f'by language of the query.\n\n{_table(header, rows)}'
    )


def _settings(c: config.Config) -> str:
    """The settings that are not at their defaults, with their meaning."""
    changed = settings.changes(config.Config(), c)
    entries = settings.entries(c)
    rows = [(f'`{name}`', f'`{new!r}`', entries[name].doc) for name, (_, new) in changed.items()]
    return _table(('setting', 'value', 'meaning'), rows)


def _versions() -> str:
    """Of the installed packages; hbt itself need not be one."""
    versions = {x.name: x.version for x in importlib.metadata.distributions()}
    return (
        ', '.join(f'{name} {versions[name]}' for name in sorted(PACKAGES) if name in versions) + '.'
    )


def _table(header: abc.Sequence[str], rows: abc.Sequence[abc.Sequence]) -> str:
    lines = [header, ['---'] * len(header), *rows]
    cells = [[str(cell).replace('|', '\\|') for cell in line] for line in lines]
    return '\n'.join(f'| {" | ".join(line)} |' for line in cells)
