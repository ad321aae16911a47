"""What an evaluation leaves on disk, and what two of them may be compared by.

NAME.json holds the numbers and the manifest, NAME.npz every metric of every query. Hides the
layout of both. Written by `evaluate`, read by `report`.
"""

import hashlib
import math
import os
import pathlib
import platform
import re
import typing
from importlib import metadata

import jax
import numpy as np

from hbt.evaluation import aggregate, benchmarks
from hbt.utils import files

FORMAT = 2  # of both files; 1 had other names in the .npz, and no `format`
BREAKDOWNS = ('metrics', 'languages', 'scripts', 'resources', 'families', 'pairs')  # of numbers
PARTS = {'benchmark': str, 'manifest': dict} | dict.fromkeys(BREAKDOWNS, dict)
PACKAGES = ('jax', 'jaxlib', 'numpy', 'tokenizers')


class Result(typing.NamedTuple):
    """A result that was read back."""

    path: pathlib.Path
    numbers: dict
    query_ids: list[str]  # ids
    languages: list[str]
    query_languages: np.ndarray  # q; index into languages
    query_groups: np.ndarray  # q; equal for translations
    query_metrics: aggregate.QueryMetrics


def file_stem(name: str) -> str:
    """The name of a benchmark as the name of a file."""
    return re.sub(r'[^\w.+-]+', '-', name)


def save_result(
    folder: pathlib.Path,
    benchmark: benchmarks.Benchmark,
    numbers: dict,
    values: aggregate.QueryMetrics,
) -> None:
    """Writes FOLDER/NAME.npz and then FOLDER/NAME.json, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    count = len(benchmark.query_languages)
    groups = np.arange(count) + count
    if benchmark.parallel is not None:
        groups = np.where(benchmark.parallel >= 0, benchmark.parallel, groups)
    arrays = {
        f'per_language/{name}': x.astype(np.float32) for name, x in values.per_language.items()
    }
    arrays |= {f'pooled/{name}': x.astype(np.float32) for name, x in values.pooled.items()}
    path = folder / f'{file_stem(benchmark.name)}.npz'
    partial = path.with_suffix('.partial')
    with partial.open('wb') as file:
        np.savez_compressed(
            file,
            query_ids=np.array(benchmark.queries.ids),
            languages=np.array(benchmark.languages),
            query_languages=benchmark.query_languages,
            query_groups=groups,
            **arrays,
        )
    os.replace(partial, path)
    files.write_json(path.with_suffix('.json'), {'format': FORMAT} | numbers)


def load_result(path: pathlib.Path) -> Result:
    """Reads NAME.json and the NAME.npz beside it. ValueError names what is missing or broken."""
    for file in (path, path.with_suffix('.npz')):
        if not file.is_file():
            raise ValueError(f'{file}: expected the result of an evaluation, got no such file')
    numbers = files.read_json(path, dict)
    _check_numbers(path, numbers)
    try:
        with path.with_suffix('.npz').open('rb') as file, np.load(file) as arrays:
            found = dict(arrays)
        saved = Result(
            path,
            numbers,
            found['query_ids'].tolist(),
            found['languages'].tolist(),
            found['query_languages'],
            found['query_groups'],
            aggregate.QueryMetrics(
                *({k: x for k, x in _part(found, side)} for side in aggregate.QueryMetrics._fields)
            ),
        )
        _check_values(saved)
    except Exception as error:  # neither zipfile nor zlib promises anything more special
        raise files.format_error(
            path.with_suffix('.npz'), 'values of every query', error
        ) from error
    return saved


def _check_numbers(path: pathlib.Path, numbers: dict) -> None:
    """ValueError where a part is missing, or a number is none."""
    if numbers.get('format') != FORMAT:
        raise ValueError(
            f'{path}: expected the result of an evaluation in format {FORMAT}, '
            f'got {numbers.get("format", 1)!r}; evaluate again'
        )
    for name, kind in PARTS.items():
        if not isinstance(numbers.get(name), kind):
            raise ValueError(
                f'{path}: expected the result of an evaluation with {name!r}, '
                f'got {str(numbers.get(name))[:40]!r}'
            )

    def look(tree, place: str) -> None:
        if isinstance(tree, dict):
            for key, value in tree.items():
                look(value, f'{place}.{key}')
        elif type(tree) not in (int, float) or not math.isfinite(tree):
            raise ValueError(f'{path}: {place}: expected a finite number, got {tree!r}')

    for name in BREAKDOWNS:
        look(numbers[name], name)


def _check_values(saved: Result) -> None:
    """ValueError unless values are of all queries and have the mean that the numbers tell."""
    n, width = len(saved.query_ids), len(saved.languages)
    shapes = {'query_languages': (n,), 'query_groups': (n,)}
    found = {name: getattr(saved, name).shape for name in shapes}
    for side, shape in (('per_language', (n, width)), ('pooled', (n,))):
        for name, values in getattr(saved.query_metrics, side).items():
            shapes[f'{side}/{name}'], found[f'{side}/{name}'] = shape, values.shape
    for name, shape in shapes.items():
        if found[name] != shape:
            raise ValueError(f'{name}: expected the shape {shape}, got {found[name]}')
    pooled = np.asarray(saved.query_metrics.pooled['map'], float)
    rows = [pooled[saved.query_languages == code] for code in range(width)]
    means = [np.nanmean(row) for row in rows if not np.isnan(row).all()]
    told = saved.numbers['metrics'].get('multi', {}).get('map')
    if told is None or not means or not math.isclose(np.mean(means), told, abs_tol=1e-5):
        raise ValueError(f'multi.map: expected {told} as in {saved.path.name}, got {means}')


def _part(arrays: dict[str, np.ndarray], side: str):
    return ((key.partition('/')[2], x) for key, x in arrays.items() if key.startswith(f'{side}/'))


def check_comparable(first: Result, second: Result) -> None:
    """ValueError unless both are of the same queries, documents and judgements."""
    for what in ('benchmark', 'content'):
        ours, theirs = (x.numbers['manifest'].get(what) for x in (first, second))
        if ours != theirs:
            raise ValueError(
                f'{second.path}: {what}: expected {ours!r} as in {first.path}, got {theirs!r}'
            )
    if first.query_ids != second.query_ids:
        missing = sorted({*first.query_ids} ^ {*second.query_ids})
        raise ValueError(
            f'{second.path}: expected the {len(first.query_ids)} queries of {first.path}, got '
            f'{len(second.query_ids)}; {len(missing)} are in one alone, such as {missing[:1]}'
        )


def make_manifest(benchmark: benchmarks.Benchmark, about: dict) -> dict:
    """What the numbers depend on: the data, how texts became scores, and with which versions.

    `about` tells of the model, of the texts' lengths and of prefixes.
    """
    return {
        'benchmark': benchmark.name,
        'content': hash_content(benchmark),
        'files': {file.name: _sha256(file) for file in benchmark.files},
        'queries': _counts(benchmark.queries.languages),
        'documents': _counts(benchmark.documents.languages),
        'unanswerable': int((benchmark.relevant < 0).all(axis=1).sum()),
        **about,
        'score': 'dot product in float32',
        'ties': 'documents of equal score rank by id, descending, as in trec_eval',
        'versions': {
            'python': platform.python_version(),
            **{name: _version(name) for name in ('hbt', *PACKAGES)},
        },
        'devices': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    }


def hash_content(benchmark: benchmarks.Benchmark) -> str:
    """SHA-256 of all ids, languages, texts and judgements."""
    digest = hashlib.sha256()
    for side in (benchmark.queries, benchmark.documents):
        for column in side:
            for text in column:
                digest.update(text.encode(errors='surrogatepass') + b'\0')
    for array in (benchmark.relevant, benchmark.grades, benchmark.excluded):
        digest.update(b'\0' if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _counts(languages: list[str]) -> dict[str, int]:
    names, counts = np.unique(languages, return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def _sha256(path: pathlib.Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return 'not installed'
