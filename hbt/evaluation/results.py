"""The result of an evaluation, in memory and on disk, and whether two of them may be compared.

NAME.json has averages and a manifest of what they depend on, NAME.npz every metric of every query,
samples/NAME.npz the embeddings of some texts.
"""

import collections
import hashlib
import itertools
import math
import pathlib
import platform
import re
import sys
import typing
from importlib import metadata

import jax
import numpy as np
from jaxtyping import Int

from hbt.evaluation import aggregate, benchmarks, samples, search
from hbt.utils import files

FORMAT = 2  # of both files; 1 had other names in the .npz, and no `format`
BREAKDOWNS = ('metrics', 'languages', 'scripts', 'resources', 'families', 'pairs')  # of numbers
REQUIRED = {'benchmark': str, 'manifest': dict} | dict.fromkeys(BREAKDOWNS, dict)
ARRAYS = ('query_ids', 'languages', 'query_languages', 'query_groups')  # of NAME.npz
EXCEPTIONS = ('excluded', 'missing', 'empty')  # of a manifest; docs/evaluation.md explains them
PACKAGES = ('jax', 'jaxlib', 'numpy', 'tokenizers')


class Result(typing.NamedTuple):
    """The evaluation of one benchmark."""

    numbers: dict  # the content of NAME.json
    query_ids: list[str]
    languages: list[str]
    query_languages: Int[np.ndarray, ' q']  # index into languages
    query_groups: Int[np.ndarray, ' q']  # equal for translations
    query_metrics: aggregate.QueryMetrics
    ranking: search.SearchResult | None = None  # None in a result that was loaded
    sample: samples.Sample | None = None  # None in a result that was loaded: in a file of its own
    path: pathlib.Path | None = None  # NAME.json, of a result that was loaded


def file_stem(name: str) -> str:
    """The name of a benchmark as the name of a file."""
    return re.sub(r'[^\w.+-]+', '-', name)


def save_result(result: Result, folder: pathlib.Path, step: int) -> None:
    """Writes the sample, FOLDER/NAME.npz and then FOLDER/NAME.json, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.asarray(getattr(result, name)) for name in ARRAYS}
    for side, values in result.query_metrics._asdict().items():
        arrays |= {f'{side}/{name}': x.astype(np.float32) for name, x in values.items()}
    path = folder / f'{file_stem(result.numbers["benchmark"])}.json'
    if result.sample is not None:
        samples.save_sample(result.sample, samples.sample_path(path))
    with files.atomic(path.with_suffix('.npz'), 'wb') as file:
        np.savez_compressed(file, **arrays)
    files.write_json(path, {'format': FORMAT, 'step': step} | result.numbers)


def load_result(path: pathlib.Path) -> Result:
    """Reads NAME.json and NAME.npz; ValueError for a missing or broken file or another format."""
    arrays_path = path.with_suffix('.npz')
    for file in (path, arrays_path):
        if not file.is_file():
            raise ValueError(f'{file}: expected the result of an evaluation, got no such file')
    numbers = files.read_json(path, dict)
    _check_numbers(path, numbers)
    try:
        with arrays_path.open('rb') as file, np.load(file) as opened:
            arrays = dict(opened)
        query_ids, languages, *codes = (arrays.pop(x) for x in ARRAYS)
        values = aggregate.QueryMetrics({}, {})
        for key, array in arrays.items():
            side, _, name = key.partition('/')
            getattr(values, side)[name] = array
        lists = query_ids.tolist(), languages.tolist()
        result = Result(numbers, *lists, *codes, values, path=path)
        _check_values(result)
    except Exception as error:  # neither zipfile nor zlib promises anything more special
        raise files.format_error(arrays_path, 'values of every query', error) from error
    return result


def _check_numbers(path: pathlib.Path, numbers: dict) -> None:
    """ValueError for another format, a missing part, and a number that is not finite."""
    if numbers.get('format') != FORMAT:
        raise ValueError(
            f'{path}: expected the result of an evaluation in format {FORMAT}, '
            f'got {numbers.get("format", 1)!r}; evaluate again'
        )
    for name, kind in REQUIRED.items():
        if not isinstance(numbers.get(name), kind):
            raise ValueError(
                f'{path}: expected the result of an evaluation with {name!r}, '
                f'got {str(numbers.get(name))[:40]!r}'
            )

    def check(tree, where: str) -> None:
        if isinstance(tree, dict):
            for key, value in tree.items():
                check(value, f'{where}.{key}')
        elif type(tree) not in (int, float) or not abs(tree) <= sys.float_info.max:
            raise ValueError(f'{path}: {where}: expected a finite number, got {repr(tree)[:40]}')

    for name in BREAKDOWNS:
        check(numbers[name], name)


def _check_values(result: Result) -> None:
    """ValueError unless values are of all queries and have the mean that the numbers state."""
    q, c = len(result.query_ids), len(result.languages)
    arrays = [
        *((x, getattr(result, x), (q,)) for x in ('query_languages', 'query_groups')),
        *((f'per_language/{k}', x, (q, c)) for k, x in result.query_metrics.per_language.items()),
        *((f'pooled/{k}', x, (q,)) for k, x in result.query_metrics.pooled.items()),
    ]
    for key, array, shape in arrays:
        if array.shape != shape:
            raise ValueError(f'{key}: expected the shape {shape}, got {array.shape}')
    pooled = np.asarray(result.query_metrics.pooled['map'], float)
    rows = [pooled[result.query_languages == code] for code in range(c)]
    means = [np.nanmean(row) for row in rows if not np.isnan(row).all()]
    expected = result.numbers['metrics'].get('multi', {}).get('map')
    if expected is None or not means or not math.isclose(np.mean(means), expected, abs_tol=1e-5):
        raise ValueError(f'multi.map: expected {expected} as in {result.path.name}, got {means}')


def check_comparable(first: Result, second: Result) -> None:
    """ValueError unless both are of the same queries, documents and judgements."""
    for key in ('benchmark', 'content'):
        expected, value = (x.numbers['manifest'].get(key) for x in (first, second))
        if expected != value:
            raise ValueError(
                f'{second.path}: {key}: expected {expected!r} as in {first.path}, got {value!r}'
            )
    if first.query_ids != second.query_ids:
        different = sorted({*first.query_ids} ^ {*second.query_ids})
        raise ValueError(
            f'{second.path}: expected the {len(first.query_ids)} queries of {first.path}, got '
            f'{len(second.query_ids)}; {len(different)} are in one alone, such as {different[:1]}'
        )


def make_manifest(benchmark: benchmarks.Benchmark, encoding: dict) -> dict:
    """What the numbers depend on: the data, the versions, and how texts become embeddings."""
    versions = {name: _version(name) for name in ('hbt', *PACKAGES)}
    return {
        'benchmark': benchmark.name,
        'content': hash_content(benchmark),
        'files': {file.name: files.sha256(file) for file in benchmark.files},
        'queries': dict(sorted(collections.Counter(benchmark.queries.languages).items())),
        'documents': dict(sorted(collections.Counter(benchmark.documents.languages).items())),
        'unanswerable': int((benchmark.relevant == -1).all(axis=1).sum()),
        'excluded': 0 if benchmark.excluded is None else int((benchmark.excluded >= 0).sum()),
        'missing': len(benchmark.missing),
        'empty': benchmark.empty,
        **encoding,
        'score': 'dot product in float32',
        'ties': 'documents of equal score rank by id, descending, as in trec_eval',
        'versions': {'python': platform.python_version()} | versions,
        'devices': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
    }


def hash_content(benchmark: benchmarks.Benchmark) -> str:
    """SHA-256 of all ids, languages, texts and judgements."""
    digest = hashlib.sha256()
    for text in itertools.chain(*benchmark.queries, *benchmark.documents, benchmark.missing):
        digest.update(text.encode(errors='surrogatepass') + b'\0')
    for array in (benchmark.relevant, benchmark.grades, benchmark.excluded):
        digest.update(b'\0' if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return 'not installed'
