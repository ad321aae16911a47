"""Data sets of the libraries `datasets` and `tensorflow_datasets`: records by their number."""

import contextlib
import functools
import pathlib
from collections import abc

from hbt.data.readers import records, schema, source_files
from hbt.utils import files


def open_hugging_face(options: dict[str, str], spec: str) -> schema.GroupSource:
    """A set of the library `datasets`: `path` is a hub name, files or what save_to_disk wrote."""
    fields, split = records.parse_fields(options, spec), options.get('split', 'train')
    load = functools.partial(_load_hugging_face, options['path'], options.get('config'), split)
    paths = [pathlib.Path(x['filename']) for x in load().cache_files]
    return _make_source(load, fields, source_files.digest_files(paths), options, spec)


def open_tfds(options: dict[str, str], spec: str) -> schema.GroupSource:
    """A TFDS set that was prepared as array_record: its `path`, or its `name` under `data_dir`."""
    fields, split = records.parse_fields(options, spec), options.get('split', 'train')
    load = functools.partial(_load_tfds, options['path'], options.get('data_dir'), split)
    info = load().dataset_info
    checksum = repr(info.full_name), info.splits[split].num_bytes
    return _make_source(load, fields, checksum, options, spec)


def _make_source(
    load: abc.Callable,
    fields: dict[str, str],
    checksum: tuple[str, int],
    options: dict[str, str],
    spec: str,
) -> schema.GroupSource:
    """The source of the data set `load()`, which every process loads for itself."""
    name = options.get('name', options['path'].rstrip('/').rpartition('/')[2])
    blocks = functools.partial(_iter_ranges, len(load()))
    parse = functools.partial(_parse_range, load, fields, spec)
    return schema.GroupSource(name, spec, *checksum, blocks, parse, lambda n: f'{spec}: record {n}')


@functools.cache
def _load_hugging_face(path: str, name: str | None, split: str):
    import datasets  # takes a second, and few sources need it

    with _named_errors(f'hf: path={path}, split={split}'):
        if (pathlib.Path(path) / 'state.json').is_file():
            return datasets.load_from_disk(path)
        if (pathlib.Path(path) / 'dataset_dict.json').is_file():
            return datasets.load_from_disk(path)[split]
        return datasets.load_dataset(path, name, split=split)


@functools.cache
def _load_tfds(path: str, data_dir: str | None, split: str):
    import tensorflow_datasets  # as above

    with _named_errors(f'tfds: path={path}, split={split}'):
        if pathlib.Path(path).is_dir():
            builder = tensorflow_datasets.builder_from_directory(path)
        else:
            builder = tensorflow_datasets.builder(path, data_dir=data_dir)
        return builder.as_data_source(split)


@contextlib.contextmanager
def _named_errors(where: str) -> abc.Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f'{where}: {files.first_line(error)}') from None


def _iter_ranges(count: int) -> abc.Iterator[range]:
    for start in range(0, count, records.BLOCK):
        yield range(start, min(start + records.BLOCK, count))


def _parse_range(
    load: abc.Callable, fields: dict[str, str], spec: str, block: range
) -> list[schema.Group]:
    dataset, groups = load(), []
    for number in block:
        record = _plain(dataset[number])
        groups += records.convert_record(record, fields, f'{spec}: record {number}', number)
    return groups


def _plain(value):
    """A record with its arrays as lists and its bytes as text."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if hasattr(value, 'tolist'):
        return _plain(value.tolist())
    if isinstance(value, list):
        return [_plain(x) for x in value]
    return value
