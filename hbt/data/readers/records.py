"""Groups from records with named fields, and the tables that hold them: JSONL, TSV, CSV."""

import functools
import itertools
import pathlib
import re
from collections import abc

from hbt.data.readers import delimited, layouts, schema, source_files, text_lines
from hbt.utils import files, languages

BLOCK = 1024  # records of a block
SIDES = ('query', 'passage', 'negatives')


def open_table(options: dict[str, str], spec: str) -> schema.GroupSource:
    """JSONL, TSV or CSV in `file` (also gzip) with named fields, such as English-only pairs.

    The `dialect` is that of the file's ending, unless it is given. A `layout` names the fields.
    """
    convert = make_converter(options, spec)
    paths = source_files.find_files(options, 'file')
    if 'dialect' in options:
        kind, choices = options['dialect'], DIALECTS
        if kind not in choices:
            raise ValueError(f'{spec}: dialect: expected one of {", ".join(choices)}, got {kind!r}')
    else:
        kind, choices = _find_ending(paths), ENDINGS
    cut, iter_records = choices[kind]
    name = options.get('name', paths[0].name.split('.')[0])
    blocks = functools.partial(cut, paths)
    parse = functools.partial(convert, has_numbers=len(paths) == 1)
    return make_source(name, spec, source_files.digest_files(paths), blocks, iter_records, parse)


def _find_ending(paths: list[pathlib.Path]) -> str:
    """The ending of all these files, which says how they are read."""
    kinds = [path.name.removesuffix('.gz').rpartition('.')[2] for path in paths]
    for path, kind in zip(paths, kinds, strict=True):
        if kind not in ENDINGS or kind != kinds[0]:
            expected = ', '.join(ENDINGS) if kind == kinds[0] else f'.{kinds[0]}, as {paths[0]}'
            hint = '; give hf:path=parquet,data_files=FILE,...' * (kind == 'parquet')
            raise ValueError(f'{path}: expected {expected}, or a dialect, got .{kind}{hint}')
    return kinds[0]


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


def make_converter(options: dict[str, str], spec: str) -> abc.Callable:
    """The function from a record and its place to its groups that these options ask for."""
    fields, layout = _parse_fields(options, spec), options.get('layout', '')
    return functools.partial(_convert_record, fields=fields, layout=layout)


def _parse_fields(options: dict[str, str], spec: str) -> dict[str, str]:
    """The options that name fields: `query.en=question`, or `query=question` with `language=en`.

    A layout names those that are not given.
    """
    fields = {key: path for key, path in options.items() if is_field_option(key)}
    layout, given = options.get('layout'), {key.split('.')[0] for key in fields}
    known = ', '.join(layouts.LAYOUTS)
    if layout and layout not in layouts.LAYOUTS:
        raise ValueError(f'{spec}: layout: expected one of {known}, got {layout!r}')
    if layout:
        preset = layouts.LAYOUTS[layout].fields.items()
        fields |= {key: path for key, path in preset if key not in given}
        if 'language' not in fields and any(side in fields for side in SIDES):
            raise ValueError(f'{spec}: expected language=CODE or language=FIELD, got neither')
    for side in ('query', 'passage'):
        if not any(key.split('.')[0] == side for key in fields):
            expected = f'{side}=FIELD or {side}.LANGUAGE=FIELD, or a layout ({known})'
            raise ValueError(f'{spec}: expected {expected}, got none')
    for key in fields:
        side, _, code = key.partition('.')
        if code and side in SIDES:
            languages.check_language(code, f'{spec}: {key}')
    return fields


def _convert_record(
    where: str, record: dict, fields: dict[str, str], layout: str, has_numbers: bool
) -> list[schema.Group]:
    """The groups of a record: one, or one for each item where a field holds a list of them.

    A path in `fields` ({'id': path, 'query.en': path, ...}) goes through nested values by dots.
    Without a language in its key, a value is in `language`, a code or the path of one, or it is
    {language: text}. A record without an id has the number that `where` ends with, or all of
    `where` if the records of several files have the same numbers.
    """
    record = layouts.LAYOUTS[layout].flatten(record, where) if layout else record
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
        for side in ('query', 'passage'):
            if not group[side]:
                paths = [path for key, path in fields.items() if key.split('.')[0] == side]
                raise ValueError(
                    f'{where}: {side}: expected a text in {", ".join(paths)}, got none'
                )
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


def _follow_path(record, path: str, where: str, start: int = 0):
    """The value at a dotted path, from part `start` on; through a list, the list of the values.

    A field may have dots in its own name: of several fields, the longest name is meant.
    """
    if isinstance(record, list):
        return [_follow_path(item, path, where, start) for item in record]
    parts = path.split('.')[start:]
    for count in range(len(parts), 0, -1):
        name = '.'.join(parts[:count])
        if isinstance(record, dict) and name in record:
            value, is_last = record[name], count == len(parts)
            return value if is_last else _follow_path(value, path, where, start + count)
    names = files.shorten_list([*record], 12) if isinstance(record, dict) else files.shorten(record)
    raise ValueError(f'{where}: expected a field {parts[0]!r} of {path!r}, got {names}')


def make_source(
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


_JSON = (text_lines.iter_blocks, iter_json)  # blocks, and the (where, record) of a block


def _delimited(dialects: dict[str, delimited.Dialect]) -> dict[str, tuple]:
    return {x: (functools.partial(_delimited_blocks, d), iter) for x, d in dialects.items()}


DIALECTS = {'jsonl': _JSON} | _delimited(delimited.DIALECTS)
ENDINGS = {'jsonl': _JSON, 'json': _JSON} | _delimited(delimited.ENDINGS)
