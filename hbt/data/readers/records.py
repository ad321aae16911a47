"""Groups from records with named fields: JSONL, TSV, CSV; Hugging Face and TensorFlow Datasets."""

import functools
import itertools
import pathlib
import re
from collections import abc

from hbt.data.readers import delimited, schema, source_files, text_lines
from hbt.utils import files, languages

BLOCK = 1024  # records of a block
SIDES = ('query', 'passage', 'negatives')


def open_table(options: dict[str, str], spec: str) -> schema.GroupSource:
    """JSONL, TSV or CSV in `file` (also gzip) with named fields, such as English-only pairs.

    The `dialect` is that of the file's ending, unless it is given.
    """
    fields, paths = _parse_fields(options, spec), source_files.find_files(options, 'file')
    if 'dialect' in options:
        kind, choices = options['dialect'], DIALECTS
        if kind not in choices:
            raise ValueError(f'{spec}: dialect: expected one of {", ".join(choices)}, got {kind!r}')
    else:
        kind, choices = _find_ending(paths), ENDINGS
    cut, iter_records = choices[kind]
    name = options.get('name', paths[0].name.split('.')[0])
    blocks = functools.partial(cut, paths)
    parse = functools.partial(_convert_record, fields=fields, has_numbers=len(paths) == 1)
    return _make_source(name, spec, source_files.digest_files(paths), blocks, iter_records, parse)


def _find_ending(paths: list[pathlib.Path]) -> str:
    """The ending of all these files, which says how they are read."""
    kinds = [path.name.removesuffix('.gz').rpartition('.')[2] for path in paths]
    for path, kind in zip(paths, kinds, strict=True):
        if kind not in ENDINGS or kind != kinds[0]:
            expected = ', '.join(ENDINGS) if kind == kinds[0] else f'.{kinds[0]}, as {paths[0]}'
            raise ValueError(f'{path}: expected {expected}, or a dialect, got .{kind}')
    return kinds[0]


def open_hugging_face(options: dict[str, str], spec: str) -> schema.GroupSource:
    """A set of the library `datasets`: `path` is a hub name, files or what save_to_disk wrote."""
    load = _loader('hf', options, 'config')
    paths = [pathlib.Path(x['filename']) for x in load().cache_files]
    return _open_library(load, source_files.digest_files(paths), options, spec)


def open_tfds(options: dict[str, str], spec: str) -> schema.GroupSource:
    """A TFDS set that was prepared as array_record: its `path`, or its `name` under `data_dir`."""
    load = _loader('tfds', options, 'data_dir')
    info = load().dataset_info
    checksum = repr(info.full_name), info.splits[options.get('split', 'train')].num_bytes
    return _open_library(load, checksum, options, spec)


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


def _convert_record(
    where: str, record: dict, fields: dict[str, str], has_numbers: bool
) -> list[schema.Group]:
    """The groups of a record: one, or one for each item where a field holds a list of them.

    A path in `fields` ({'id': path, 'query.en': path, ...}) goes through nested values by dots.
    Without a language in its key, a value is in `language`, a code or the path of one, or it is
    {language: text}. A record without an id has the number that `where` ends with, or all of
    `where` if the records of several files have the same numbers.
    """
    values = {k: _follow_path(record, path, where) for k, path in fields.items() if k != 'language'}
    lists = [k for k, v in values.items() if isinstance(v, list) and not k.startswith('negatives')]
    sizes = {len(values[k]) for k in lists}
    if len(sizes) > 1:
        lengths = ', '.join(f'{k} of {len(values[k])}' for k in lists)
        raise ValueError(f'{where}: expected lists of one length, got {lengths}')
    if 0 in sizes:
        raise ValueError(f'{where}: {lists[0]}: expected a value or a list of them, got []')
    count = sizes.pop() if sizes else 1
    codes = _languages(record, fields, where, count)
    number, groups = re.search(r'\d+$', where)[0] if has_numbers else where, []
    for i in range(count):
        items = {k: v[i] if k in lists else v for k, v in values.items()}
        name = _parse_id(items.pop('id', number), where)
        group = {'id': f'{name}-{i}' if lists else name} | {side: {} for side in SIDES}
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


def _parse_id(value, where: str) -> str:
    """The id of a record: a text, or a number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value != value:
        shown = files.shorten(value)
        raise ValueError(f'{where}: id: expected a non-empty string or a number, got {shown}')
    return str(value)


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
            is_dict = isinstance(record, dict)
            names = files.shorten_list([*record], 12) if is_dict else files.shorten(record)
            raise ValueError(f'{where}: expected a field {name!r} of {path!r}, got {names}')
        record = record[name]
    return record


def _make_source(
    name: str,
    spec: str,
    checksum: tuple[str, int],
    blocks: abc.Callable,
    iter_records: abc.Callable,
    parse: abc.Callable,
) -> schema.GroupSource:
    """The source of records: `iter_records(block)` yields (where, record), `parse` their groups."""

    @functools.cache
    def places() -> list[str]:
        records = itertools.chain.from_iterable(map(iter_records, blocks()))
        return [where for where, record in records for _ in parse(where, record)]

    parse_block = functools.partial(_parse_records, iter_records, parse)
    return schema.GroupSource(name, spec, *checksum, blocks, parse_block, lambda n: places()[n])


def _parse_records(iter_records: abc.Callable, parse: abc.Callable, block) -> list[schema.Group]:
    """The groups of a block of records."""
    return [group for where, record in iter_records(block) for group in parse(where, record)]


def _delimited_blocks(
    dialect: delimited.Dialect, paths: list[pathlib.Path]
) -> abc.Iterator[list[tuple[str, dict[str, str]]]]:
    for path in paths:
        yield from iter_blocks(delimited.iter_records(path, dialect))


def _open_library(
    load: abc.Callable, checksum: tuple[str, int], options: dict[str, str], spec: str
) -> schema.GroupSource:
    """The source of the data set `load()`, which every process loads for itself."""
    name = options.get('name', options['path'].rstrip('/').rpartition('/')[2])
    blocks = functools.partial(iter_blocks, range(len(load())))
    iter_records = functools.partial(_dataset_records, load, spec)
    fields = _parse_fields(options, spec)
    parse = functools.partial(_convert_record, fields=fields, has_numbers=True)
    return _make_source(name, spec, checksum, blocks, iter_records, parse)


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


_JSON = (text_lines.iter_blocks, iter_json)  # blocks, and the (where, record) of a block


def _delimited(dialects: dict[str, delimited.Dialect]) -> dict[str, tuple]:
    return {x: (functools.partial(_delimited_blocks, d), iter) for x, d in dialects.items()}


DIALECTS = {'jsonl': _JSON} | _delimited(delimited.DIALECTS)
ENDINGS = {'jsonl': _JSON, 'json': _JSON} | _delimited(delimited.ENDINGS)
LIBRARIES = {'hf': _load_hugging_face, 'tfds': _load_tfds}
