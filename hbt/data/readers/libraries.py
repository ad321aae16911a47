"""Groups from the data sets of libraries: Hugging Face's `datasets` and TensorFlow Datasets."""

import functools
import pathlib
from collections import abc

from hbt.data.readers import records, schema, source_files, text_lines
from hbt.utils import files

PACKAGED = ('arrow', 'csv', 'json', 'parquet')  # of `datasets`: without files, they take any


def open_hugging_face(options: dict[str, str], spec: str) -> schema.GroupSource:
    """A set of the library `datasets`: `path` is a hub name, a folder, or what save_to_disk wrote.

    `data_files` is a pattern of the files in it; of any files, where `path` is their kind: parquet.
    """
    load = _loader('hf', options, 'config', 'data_files')
    paths = [pathlib.Path(x['filename']) for x in load().cache_files]
    return _open_library(load, source_files.digest_files(paths), options, spec)


def open_tfds(options: dict[str, str], spec: str) -> schema.GroupSource:
    """A TFDS set that was prepared as array_record: its `path`, or its `name` under `data_dir`."""
    load = _loader('tfds', options, 'data_dir')
    info = load().dataset_info
    checksum = repr(info.full_name), info.splits[options.get('split', 'train')].num_bytes
    return _open_library(load, checksum, options, spec)


def _open_library(
    load: abc.Callable, checksum: tuple[str, int], options: dict[str, str], spec: str
) -> schema.GroupSource:
    """The source of the data set `load()`, which every process loads for itself."""
    name = options.get('name', options['path'].rstrip('/').rpartition('/')[2])
    blocks = functools.partial(records.iter_blocks, range(len(load())))
    iter_records = functools.partial(_dataset_records, load, spec)
    parse = functools.partial(records.make_converter(options, spec), has_numbers=True)
    return records.make_source(name, spec, checksum, blocks, iter_records, parse)


def _loader(library: str, options: dict[str, str], *names: str) -> abc.Callable:
    """A function that loads a set, with the options of these names."""
    arguments = tuple((x, options[x]) for x in names if x in options)
    split = options.get('split', 'train')
    return functools.partial(_load, library, options['path'], split, arguments)


@functools.cache
def _load(library: str, path: str, split: str, arguments: tuple[tuple[str, str], ...]):
    """The data set, with these arguments of the function that loads it."""
    try:
        return LIBRARIES[library](path, split, **dict(arguments))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        options = (('path', path), *arguments, ('split', split))
        where = ', '.join(map('='.join, options))
        raise ValueError(f'{library}: {where}: {files.first_line(error)}') from None


def _load_hugging_face(path: str, split: str, config: str | None = None, data_files=None):
    import datasets  # takes a second, and few sources need it

    folder = pathlib.Path(path)
    if (folder / 'state.json').is_file() or (folder / 'dataset_dict.json').is_file():
        if data_files:
            raise ValueError(f'expected no data_files of what save_to_disk wrote, got {data_files}')
        saved = datasets.load_from_disk(path)
        return saved[split] if isinstance(saved, datasets.DatasetDict) else saved
    if path in PACKAGED and not data_files:
        raise ValueError('expected data_files=FILES, got none')
    try:
        return datasets.load_dataset(path, config, split=split, data_files=data_files)
    except datasets.exceptions.DatasetGenerationError as error:  # its cause says why
        raise ValueError(files.first_line(error.__cause__ or error)) from None


def _load_tfds(path: str, split: str, data_dir: str | None = None):
    import tensorflow_datasets  # as above

    if pathlib.Path(path).is_dir():
        return tensorflow_datasets.builder_from_directory(path).as_data_source(split)
    return tensorflow_datasets.builder(path, data_dir=data_dir).as_data_source(split)


def _dataset_records(load: abc.Callable, spec: str, block: list[int]) -> abc.Iterator:
    """Yields (where, record) of the records of these numbers."""
    for number in block:
        where = f'{spec}: record {number}'
        yield where, _plain(load()[number], where)


def _plain(value, where: str):
    """A record with its arrays as lists and its bytes as text."""
    value = value.tolist() if hasattr(value, 'tolist') else value
    if isinstance(value, bytes):
        return text_lines.decode(value, where)
    if isinstance(value, dict):
        return {k: _plain(v, where) for k, v in value.items()}
    return [_plain(x, where) for x in value] if isinstance(value, list) else value


LIBRARIES = {'hf': _load_hugging_face, 'tfds': _load_tfds}
