"""Command line: a run -> a model directory that sentence-transformers, transformers and hbt load.

Writes the card from what the run recorded: data, settings, results, versions.
"""

import dataclasses
import importlib.metadata
import json
import pathlib
from collections import abc

from hbt import config
from hbt.models import model_dir
from hbt.utils import settings

PACKAGES = ('hbt', 'jax', 'flax', 'optax', 'orbax-checkpoint', 'tokenizers')
TAGS = ('sentence-transformers', 'sentence-similarity', 'feature-extraction', 'dual-encoder', 'hbt')
SETTINGS = ('mono', 'cross', 'multi')


def card(
    c: config.Config, workdir: pathlib.Path, step: int, out: pathlib.Path, license: str
) -> str:
    """The model card (README.md), in Markdown with the front matter of the hub."""
    data = model_dir.optional(workdir / 'data.json').get('datasets', [])
    files = sorted((workdir / f'results/{step}').glob('*.json'))
    results = [json.loads(file.read_text()) for file in files]
    parts = [
        front(c, data, license),
        f'# {out.name}',
        summary(c, step),
        usage(c, out),
        '## Training data\n\n' + datasets(data),
        '## Evaluation\n\n' + (''.join(map(evaluation, results)) or 'Not evaluated at this step.'),
        '## Settings\n\n' + settings_table(c),
        '## Licence\n\n'
        + (license or 'Not stated. Those of the base model and of the training data apply.'),
        '## Versions\n\n' + versions(),
    ]
    return '\n\n'.join(part.strip() for part in parts) + '\n'


def summary(c: config.Config, step: int) -> str:
    paper = '[arXiv 2408.10536](https://arxiv.org/abs/2408.10536)'
    size = c.encoder.projection_dim or c.encoder.hidden_dim
    return (
        'A dual encoder for monolingual, cross-lingual and multilingual retrieval: '
        f'{c.encoder.init or "random weights"}, trained for {step} steps of {c.batch_size} pairs '
        f'by hybrid batch training ({paper}) with hbt, where {c.sampler.alpha:.0%} of the batches '
        f'are monolingual. Embeddings have {size} dimensions and length 1; '
        'compare them by cosine.'
    )


def front(c: config.Config, data: list[dict], license: str) -> str:
    """The hub's metadata in YAML, of which every JSON value is one."""
    languages = sorted({x for entry in data for side in ('query', 'passage') for x in entry[side]})
    fields = {
        'language': languages,
        'library_name': 'sentence-transformers',
        'pipeline_tag': 'sentence-similarity',
        'tags': list(TAGS),
    }
    name = c.encoder.init.partition('@')[0]
    if name.count('/') == 1 and not name.startswith(('.', '/', '~')):
        fields['base_model'] = name
    if license:
        fields['license'] = license
    lines = [f'{key}: {json.dumps(value)}' for key, value in fields.items() if value]
    return '\n'.join(['---', *lines, '---'])


def usage(c: config.Config, out: pathlib.Path) -> str:
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
from hbt import embed

model = embed.load({str(out)!r})
print(model(['Where is the river?'], 'query') @ model(['Der Fluss liegt im Norden.'], 'passage').T)
```

Queries begin with `{c.data.query_prefix}` and documents with `{c.data.passage_prefix}`: the prompts
do that. Training cut queries at {c.data.query_length} tokens and documents at
{c.data.passage_length}."""


def datasets(data: list[dict]) -> str:
    """Groups and texts of each dataset, and the texts of each language."""
    if not data:
        return 'Not recorded.'
    lines = ['| dataset | source | groups | queries | documents |', '|---|---|---|---|---|']
    for entry in data:
        counts = [sum(n['texts'] for n in entry[side].values()) for side in ('query', 'passage')]
        cells = entry['name'], entry['source'], entry['groups'], *counts
        lines.append(row(cells))
    languages = sorted({x for entry in data for side in ('query', 'passage') for x in entry[side]})
    lines += ['', '| language | queries | documents |', '|---|---|---|']
    for language in languages:
        counts = [
            sum(entry[side].get(language, {}).get('texts', 0) for entry in data)
            for side in ('query', 'passage')
        ]
        lines.append(row((language, *counts)))
    return '\n'.join(lines)


def evaluation(numbers: dict) -> str:
    """A benchmark's numbers by query language: mAP in three settings, and the rank distance."""
    lines = [
        f'{numbers["benchmark"]}: {numbers["counts"]["queries"]} queries, '
        f'{numbers["counts"]["documents"]} documents, by language of the query.\n',
        '| language | mono mAP | cross mAP | multilingual mAP | rank distance |',
        '|---|---|---|---|---|',
    ]
    for name, values in (numbers['languages'] | {'mean': numbers['metrics']}).items():
        found = [values.get(setting, {}).get('map') for setting in SETTINGS]
        distance = values.get('multi', {}).get('rank_distance')
        shown = ['' if x is None else f'{x:.4f}' for x in found]
        lines.append(row((name, *shown, '' if distance is None else f'{distance:.1f}')))
    return '\n'.join(lines) + '\n\n'


def settings_table(c: config.Config) -> str:
    """Every setting that is not as by default, with its meaning."""
    changed = settings.changes(config.Config(), c)
    docs = dict(described(config.Config))
    lines = ['| setting | value | meaning |', '|---|---|---|']
    lines += [row((f'`{name}`', f'`{new!r}`', docs[name])) for name, (_, new) in changed.items()]
    return '\n'.join(lines)


def described(kind: type, prefix: str = '') -> abc.Iterator[tuple[str, str]]:
    """Yields (dotted name, meaning) of every setting."""
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.type):
            yield from described(field.type, f'{prefix}{field.name}.')
        else:
            yield prefix + field.name, field.metadata['doc']


def versions() -> str:
    """Of the installed packages; hbt itself need not be one."""
    found = {x.name: x.version for x in importlib.metadata.distributions() if x.name in PACKAGES}
    return ', '.join(f'{name} {version}' for name, version in sorted(found.items())) + '.'


def row(cells: abc.Iterable) -> str:
    return '| ' + ' | '.join(str(cell).replace('|', '\\|') for cell in cells) + ' |'
