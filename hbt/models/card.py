"""Model cards: the README.md of a model directory, from what the training run recorded."""

import importlib.metadata
import json
import pathlib

import jinja2

from hbt import config
from hbt.utils import files, settings

PACKAGES = ('flax', 'hbt', 'jax', 'optax', 'orbax-checkpoint', 'tokenizers')
TAGS = ('sentence-transformers', 'sentence-similarity', 'feature-extraction', 'dual-encoder', 'hbt')


def run_card(
    c: config.Config,
    workdir: pathlib.Path,
    step: int,
    out: pathlib.Path,
    license: str,
    note: str,
    dim: int,
) -> str:
    """The card of a step of a run, in Markdown.

    `note`, if any, is `without the token ...`; `dim` is that of the embeddings.
    """
    options = dict(trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    environment = jinja2.Environment(loader=jinja2.PackageLoader('hbt.models', ''), **options)
    environment.filters['json'] = json.dumps  # JSON is YAML, and its texts are those of Python
    environment.globals |= {'row': _row, 'scores': _scores}
    datasets = files.read_optional_json(workdir / 'data.json').get('datasets', [])
    languages = _count_texts(datasets)
    changed = settings.changes(config.Config(), c)
    versions = {x.name: x.version for x in importlib.metadata.distributions()}
    base = c.encoder.init.partition('@')[0]
    is_hub_name = base.count('/') == 1 and not base.startswith(('.', '/', '~'))
    metadata = {
        'language': list(languages),
        'library_name': 'sentence-transformers',
        'pipeline_tag': 'sentence-similarity',
        'tags': TAGS,
        'base_model': base if is_hub_name else '',
        'license': license,
    }
    paths = sorted((workdir / f'results/{step}').glob('*.json'))
    return environment.get_template('card.md.jinja').render(
        c=c,
        name=out.name,
        path=str(out),
        step=step,
        note=note,
        dim=dim,
        metadata=metadata,
        datasets=datasets,
        languages=languages,
        results=[json.loads(path.read_text('utf-8')) for path in paths],
        settings={name: x for name, x in settings.entries(c).items() if name in changed},
        versions={name: versions[name] for name in PACKAGES if name in versions},
    )


def _count_texts(datasets: list[dict]) -> dict[str, list[int]]:
    """Language -> number of its queries and of its passages."""
    sides = ('query', 'passage')
    return {
        code: [sum(x[side].get(code, {}).get('texts', 0) for x in datasets) for side in sides]
        for code in sorted({code for x in datasets for side in sides for code in x[side]})
    }


def _scores(metrics: dict) -> list[str]:
    """mAP in three settings and the rank distance; empty where there is none."""
    scores = [metrics.get(setting, {}).get('map') for setting in ('mono', 'cross', 'multi')]
    distance = metrics.get('multi', {}).get('rank_distance')
    cells = ['' if x is None else f'{x:.4f}' for x in scores]
    return [*cells, '' if distance is None else f'{distance:.1f}']


def _row(*cells) -> str:
    return '| ' + ' | '.join(str(cell).replace('|', '\\|') for cell in cells) + ' |'
