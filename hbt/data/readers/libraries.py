"""Rows from records with named fields: tables, SQuAD, Hugging Face datasets, TFDS.

Hides the libraries and how fields become a query, a passage and negatives. Called by `sources`.
"""

import functools
import pathlib
import typing
from collections import abc

from hbt.data.readers import records, schema, text_lines


class Range(typing.NamedTuple):
    """Records `start` ... `stop` - 1 of an indexed set."""

    start: int
    stop: int


def hugging_face(options: dict[str, str], spec: str) -> schema.GroupSource:
    """A set of the library `datasets`: `path` is a hub name, files or what save_to_disk wrote."""
    fields, split = records.mapping(options, spec), options.get('split', 'train')
    arguments = options['path'], options.get('config'), split
    opened = open_hugging_face(*arguments)
    sha256, size = text_lines.digest_files(
        [pathlib.Path(x['filename']) for x in opened.cache_files]
    )
    name = options.get('name', options['path'].rstrip('/').rpartition('/')[2])
    read = functools.partial(read_range, open_hugging_face, arguments, fields, spec)
    blocks = functools.partial(ranges, len(opened))
    return schema.GroupSource(
        name, spec, sha256, size, blocks, read, lambda n: f'{spec}: record {n}'
    )


@functools.cache
def open_hugging_face(path: str, name: str | None, split: str):
    import datasets  # takes a second, and few sources need it

    try:
        if (pathlib.Path(path) / 'state.json').is_file():
            return datasets.load_from_disk(path)
        if (pathlib.Path(path) / 'dataset_dict.json').is_file():
            return datasets.load_from_disk(path)[split]
        return datasets.load_dataset(path, name, split=split)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f'hf: path={path}, split={split}: {text}') from None


def tfds(options: dict[str, str], spec: str) -> schema.GroupSource:
    """A TFDS set that was prepared as array_record: its `path`, or its `name` under `data_dir`."""
    fields, split = records.mapping(options, spec), options.get('split', 'train')
    arguments = options['path'], options.get('data_dir'), split
    opened = open_tfds(*arguments)
    name = options.get('name', options['path'].rstrip('/').rpartition('/')[2])
    read = functools.partial(read_range, open_tfds, arguments, fields, spec)
    blocks, sha256 = functools.partial(ranges, len(opened)), repr(opened.dataset_info.full_name)
    size = opened.dataset_info.splits[split].num_bytes
    return schema.GroupSource(
        name, spec, sha256, size, blocks, read, lambda n: f'{spec}: record {n}'
    )


@functools.cache
def open_tfds(path: str, data_dir: str | None, split: str):
    import tensorflow_datasets  # as above

    try:
        if pathlib.Path(path).is_dir():
            builder = tensorflow_datasets.builder_from_directory(path)
        else:
            builder = tensorflow_datasets.builder(path, data_dir=data_dir)
        return builder.as_data_source(split)
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f'tfds: path={path}, split={split}: {text}') from None


def ranges(size: int) -> abc.Iterator[Range]:
    for start in range(0, size, records.ROWS):
        yield Range(start, min(start + records.ROWS, size))


def read_range(open_set, arguments, fields: dict[str, str], spec: str, block: Range):
    opened, found = open_set(*arguments), []
    for number in range(block.start, block.stop):
        found += records.convert(plain(opened[number]), fields, f'{spec}: record {number}', number)
    return found


def plain(value):
    """A record with its arrays as lists and its bytes as text."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if hasattr(value, 'tolist'):
        return plain(value.tolist())
    if isinstance(value, list):
        return [plain(x) for x in value]
    return value
