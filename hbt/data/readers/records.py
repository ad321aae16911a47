"""Groups from records with named fields: JSONL, TSV, CSV; Hugging Face and TensorFlow Datasets."""

import csv
import functools
import itertools
import pathlib
import re
from collections import abc

from hbt.data.readers import schema, source_files, text_lines
from hbt.utils import files, languages

BLOCK = 1024  # records of a block
SIDES = ('query', 'passage', 'negatives')


def open_table(options: dict[str, str], spec: str) -> schema.GroupSource:
    """A JSONL, TSV or CSV `file` (also gzip) with named fields, such as English-only pairs."""
    fields, paths = _parse_fields(options, spec), source_files.find_files(options, 'file')
    kind = paths[0].name.removesuffix('.gz').rpartition('.')[2]
    if kind not in TABLES:
        raise ValueError(f'{paths[0]}: expected one of {", ".join(TABLES)}, got .{kind}')
    cut, iter_records = TABLES[kind]
    name = options.get('name', paths[0].name.split('.')[0])
    checksum, blocks = source_files.digest_files(paths), functools.partial(cut, paths)
    parse = functools.partial(_parse_records, iter_records, fields)
    return schema.GroupSource(
        name, spec, *checksum, blocks, parse, lambda n: f'{paths[0]}: group {n + 1}'
    )


def open_hugging_face(options: dict[str, str], spec: str) -> schema.GroupSource:
    """A set of the library `datasets`: `path` is a hub name, files or what save_to_disk wrote."""
    load = _loader('hf', options, 'config')
    paths = [pathlib.Path(x['filename']) for x in load().cache_files]
    return _make_source(load, source_files.digest_files(paths), options, spec)


def open_tfds(options: dict[str, str], spec: str) -> schema.GroupSource:
    """A TFDS set that was prepared as array_record: its `path`, or its `name` under `data_dir`."""
    load = _loader('tfds', options, 'data_dir')
    info = load().dataset_info
    checksum = repr(info.full_name), info.splits[options.get('split', 'train')].num_bytes
    return _make_source(load, checksum, options, spec)


def iter_blocks(items: abc.Iterable) -> abc.Iterator[list]:
    """Yields the items in lists of BLOCK."""
    items = iter(items)
    while block := list(itertools.islice(items, BLOCK)):
        yield block


def iter_json(block: text_lines.LineBlock) -> abc.Iterator[tuple[str, dict]]:
    """Yields (where, object) of a block of JSON lines."""
    return schema.iter_objects(block.iter_rows())


def is_field_option(key: str) -> bool:
    """Whether an option names a field of a record: `query.en`, `id` ..."""
    return key.split('.')[0] in (*SIDES, 'id', 'language')


def _parse_fields(options: dict[str, str], spec: str) -> dict[str, str]:
    """The options that name fields: `query.en=question`, or `query=question` with `language=en`."""
    fields = {key: path for key, path in options.items() if is_field_option(key)}
    for side in ('query', 'passage'):
        if not any(key.split('.')[0] == side for key in fields):
            raise ValueError(f'{spec}: expected {side}=FIELD or {side}.LANGUAGE=FIELD, got neither')
    for key in fields:
        side, _, code = key.partition('.')
        if code and side in SIDES:
            languages.check_language(code, f'{spec}: {key}')
    return fields


def _convert_record(record: dict, fields: dict[str, str], where: str) -> list[schema.Group]:
    """The groups of a record: one, or one for each item where a field holds a list of them.

    A path in `fields` ({'id': path, 'query.en': path, ...}) goes through nested values by dots.
    Without a language in its key, a value is in `language`, a code or the path of one, or it is
    {language: text}. A record without an id has the number that `where` ends with.
    """
    values = {k: _follow_path(record, path, where) for k, path in fields.items() if k != 'language'}
    lists = [k for k, v in values.items() if isinstance(v, list) and not k.startswith('negatives')]
    sizes = {len(values[k]) for k in lists}
    if len(sizes) > 1:
        lengths = ', '.join(f'{k} of {len(values[k])}' for k in lists)
        raise ValueError(f'{where}: expected lists of one length, got {lengths}')
    count = sizes.pop() if sizes else 1
    codes = _languages(record, fields, where, count)
    number, groups = re.search(r'\d+$', where)[0], []
    for i in range(count):
        items = {k: v[i] if k in lists else v for k, v in values.items()}
        name = items.pop('id', number)
        if type(name) not in (str, int, float):
            shown = files.shorten(name)
            raise ValueError(f'{where}: id: expected a text or a number, got {shown}')
        group = {'id': f'{name}-{i}' if lists else str(name)} | {side: {} for side in SIDES}
        for key, value in items.items():
            side, _, language = key.partition('.')
            language = language or codes[i]
            if value in (None, '', []):
                continue
            if side == 'negatives' and isinstance(value, str):
                value = [value]
            if not language and not isinstance(value, dict):
                shown = files.shorten(value)
                raise ValueError(f'{where}: {side}: expected {{language: text}}, got {shown}')
            texts = {language: value} if language else value
            if repeated := group[side].keys() & texts.keys():
                raise ValueError(f'{where}: {side}: expected one {min(repeated)!r}, got two')
            group[side] |= texts
        groups.append(schema.check_group(group, where))
    return groups


def _languages(record: dict, fields: dict[str, str], where: str, count: int) -> list[str]:
    """The language, '' for none, of each of the `count` groups of a record."""
    code = fields.get('language', '')
    if code and not languages.is_language(code):
        code = _follow_path(record, code, where)
    codes = code if isinstance(code, list) else [code] * count
    if len(codes) != count or not all(isinstance(x, str) for x in codes):
        shown = files.shorten(code)
        raise ValueError(f'{where}: language: expected one code or {count}, got {shown}')
    return codes


def _follow_path(record, path: str, where: str):
    """The value at a dotted path; through a list, the list of the values."""
    for i, name in enumerate(path.split('.')):
        if isinstance(record, list):
            return [_follow_path(item, path.split('.', i)[i], where) for item in record]
        if not isinstance(record, dict) or name not in record:
            names = ', '.join(record) if isinstance(record, dict) else files.shorten(record)
            raise ValueError(f'{where}: expected a field {name!r} of {path!r}, got {names}')
        record = record[name]
    return record


def _parse_records(iter_records: abc.Callable, fields: dict[str, str], block) -> list[schema.Group]:
    """The groups of a block of records."""
    groups = []
    for where, record in iter_records(block):
        groups += _convert_record(record, fields, where)
    return groups


def _delimited_blocks(separator: str, paths: list[pathlib.Path]) -> abc.Iterator[list]:
    for path in paths:
        yield from iter_blocks(_iter_delimited(path, separator))


def _iter_delimited(path: pathlib.Path, separator: str) -> abc.Iterator[tuple[str, dict]]:
    """Yields (where, record) of a table with a header; a quoted column may have several lines."""
    csv.field_size_limit(text_lines.LONGEST)  # its own is 128 KiB
    blocks = text_lines.iter_blocks([path])
    lines = (f'{line}\n' for block in blocks for _, line in block.iter_lines())
    quoting = csv.QUOTE_MINIMAL if separator == ',' else csv.QUOTE_NONE
    reader = csv.reader(lines, delimiter=separator, quoting=quoting)
    try:
        names = next(reader, [])
        for columns in reader:
            where = f'{path}:{reader.line_num}'
            if len(columns) != len(names):
                expected = f'{len(names)} columns ({", ".join(names)})'
                raise ValueError(f'{where}: expected {expected}, got {len(columns)}')
            yield where, dict(zip(names, columns, strict=True))
    except csv.Error as error:
        raise ValueError(f'{path}:{reader.line_num}: expected a table, got {error}') from None


def _make_source(
    load: abc.Callable, checksum: tuple[str, int], options: dict[str, str], spec: str
) -> schema.GroupSource:
    """The source of the data set `load()`, which every process loads for itself."""
    name = options.get('name', options['path'].rstrip('/').rpartition('/')[2])
    blocks = functools.partial(iter_blocks, range(len(load())))
    iter_records = functools.partial(_dataset_records, load, spec)
    parse = functools.partial(_parse_records, iter_records, _parse_fields(options, spec))
    return schema.GroupSource(name, spec, *checksum, blocks, parse, lambda n: f'{spec}: record {n}')


def _loader(library: str, options: dict[str, str], option: str) -> abc.Callable:
    split = options.get('split', 'train')
    return functools.partial(_load, library, options['path'], options.get(option), split)


@functools.cache
def _load(library: str, path: str, argument: str | None, split: str):
    """The data set, with an `argument` of the function that loads it."""
    try:
        return LIBRARIES[library](path, argument, split)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        message = files.first_line(error)
        raise ValueError(f'{library}: path={path}, split={split}: {message}') from None


def _load_hugging_face(path: str, config: str | None, split: str):
    import datasets  # takes a second, and few sources need it

    if (pathlib.Path(path) / 'state.json').is_file():
        return datasets.load_from_disk(path)
    if (pathlib.Path(path) / 'dataset_dict.json').is_file():
        return datasets.load_from_disk(path)[split]
    return datasets.load_dataset(path, config, split=split)


def _load_tfds(path: str, data_dir: str | None, split: str):
    import tensorflow_datasets  # as above

    if pathlib.Path(path).is_dir():
        return tensorflow_datasets.builder_from_directory(path).as_data_source(split)
    return tensorflow_datasets.builder(path, data_dir=data_dir).as_data_source(split)


def _dataset_records(load: abc.Callable, spec: str, block: list[int]) -> abc.Iterator:
    """Yields (where, record) of the records of these numbers."""
    return ((f'{spec}: record {number}', _plain(load()[number])) for number in block)


def _plain(value):
    """A record with its arrays as lists and its bytes as text."""
    value = value.tolist() if hasattr(value, 'tolist') else value
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(x) for x in value] if isinstance(value, list) else value


TABLES = {  # ending of the file -> its blocks, and the (where, record) of a block
    'jsonl': (text_lines.iter_blocks, iter_json),
    'json': (text_lines.iter_blocks, iter_json),
    'tsv': (functools.partial(_delimited_blocks, '\t'), iter),
    'csv': (functools.partial(_delimited_blocks, ','), iter),
}
LIBRARIES = {'hf': _load_hugging_face, 'tfds': _load_tfds}
