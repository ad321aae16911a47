"""Rows from records with named fields: tables, SQuAD, Hugging Face datasets, TFDS.

Hides the libraries and how fields become a query, a passage and negatives. Called by `sources`.
"""

import csv
import functools
import itertools
import pathlib
import typing
from collections import abc

from hbt import rows

ROWS = 1024  # records of a block
SIDES = ('query', 'passage', 'negatives')


class Range(typing.NamedTuple):
    """Records `start` ... `stop` - 1 of an indexed set."""

    start: int
    stop: int


def mapping(options: dict[str, str], spec: str) -> dict[str, str]:
    """Which field goes where: `query.en=question`, or `query=question` with `language=en`."""
    found = {k: v for k, v in options.items() if k.split('.')[0] in (*SIDES, 'id', 'language')}
    for side in ('query', 'passage'):
        if not any(key.split('.')[0] == side for key in found):
            raise ValueError(f'{spec}: expected {side}=FIELD or {side}.LANGUAGE=FIELD, got neither')
    for key in found:
        side, _, code = key.partition('.')
        if code and side in SIDES:
            rows.check_language(code, f'{spec}: {key}')
    return found


def convert(record: dict, fields: dict[str, str], place: str, number: int) -> list[rows.Row]:
    """The rows of a record: one, or one for each item where a field holds a list of them.

    A field is a dotted path. Without a language in its name, the value is in `language`, a code or
    the field that holds it; else it is {language: text}. Without `id`, the number of the record.
    """
    values = {k: reach(record, path, place) for k, path in fields.items() if k != 'language'}
    spread = [k for k, v in values.items() if isinstance(v, list) and not k.startswith('negatives')]
    sizes = {len(values[k]) for k in spread}
    if len(sizes) > 1:
        raise ValueError(f'{place}: expected lists of one length in {", ".join(spread)}')
    code = fields.get('language', '')
    if code and not rows.is_language(code):
        code = reach(record, code, place)
    count = sizes.pop() if sizes else 1
    codes = code if isinstance(code, list) else [code] * count
    if len(codes) < count or not all(isinstance(x, str) for x in codes):
        shown = rows.shown(code)
        raise ValueError(f'{place}: language: expected one code or {count}, got {shown}')
    found = []
    for i in range(count):
        one = {k: v[i] if k in spread else v for k, v in values.items()}
        name = str(one.pop('id', number))
        row = {'id': f'{name}-{i}' if spread else name, 'query': {}, 'passage': {}, 'negatives': {}}
        for key, value in one.items():
            side, _, language = key.partition('.')
            language = language or codes[i]
            if value is None or value == '' or value == []:
                continue
            if side == 'negatives' and isinstance(value, str):
                value = [value]
            if not language and not isinstance(value, dict):
                shown = rows.shown(value)
                raise ValueError(f'{place}: {side}: expected {{language: text}}, got {shown}')
            row[side] |= {language: value} if language else value
        found.append(rows.check(row, place))
    return found


def reach(record, path: str, place: str):
    """What a dotted path leads to; through a list, the list of what it leads to."""
    for i, name in enumerate(path.split('.')):
        if isinstance(record, list):
            rest = '.'.join(path.split('.')[i:])
            return [reach(item, rest, place) for item in record]
        if not isinstance(record, dict) or name not in record:
            had = ', '.join(record) if isinstance(record, dict) else rows.shown(record)
            raise ValueError(f'{place}: expected a field {name!r} of {path!r}, got {had}')
        record = record[name]
    return record


def table(options: dict[str, str], spec: str) -> rows.Source:
    """A JSONL, TSV or CSV `file` (also gzip) with named fields, such as English-only pairs."""
    fields = mapping(options, spec)
    files = rows.find(options['file'], 'file')['']
    sha256, size = rows.digest(files)
    name = options.get('name', files[0].name.split('.')[0])
    kind = files[0].name.removesuffix('.gz').rpartition('.')[2]
    if kind not in TABLES:
        raise ValueError(f'{files[0]}: expected one of {", ".join(TABLES)}, got .{kind}')
    blocks, read = TABLES[kind](files, fields)
    return rows.Source(name, spec, sha256, size, blocks, read, lambda n: f'{files[0]}: row {n + 1}')


def jsonl_table(files, fields):
    return functools.partial(rows.lines, files), functools.partial(read_json, fields)


def read_json(fields: dict[str, str], block: rows.Lines) -> list[rows.Row]:
    found = []
    for place, line in block.numbered():
        record = rows.parse_json(line, place)
        found += convert(record, fields, place, int(place.rpartition(':')[2]))
    return found


def delimited(separator: str, files, fields):
    return functools.partial(records, files, separator), functools.partial(read_records, fields)


def records(files, separator: str) -> abc.Iterator[list[tuple[str, dict]]]:
    """Blocks of (place, record) of tables whose first line names the columns."""
    csv.field_size_limit(rows.LONGEST)  # its own is 128 KiB
    for file in files:
        lines = (
            x
            for block in rows.lines([file])
            for x in block.data.decode(errors='surrogateescape').splitlines(True)
        )
        quoting = csv.QUOTE_MINIMAL if separator == ',' else csv.QUOTE_NONE
        reader = csv.reader(lines, delimiter=separator, quoting=quoting)
        found = numbered(file, reader)
        _, names = next(found, (0, []))
        while block := list(itertools.islice(found, ROWS)):
            yield [
                (f'{file}:{n}', dict(zip(names, complete(f'{file}:{n}', names, x), strict=True)))
                for n, x in block
            ]


def numbered(file, reader):
    try:
        for fields in reader:
            yield reader.line_num, fields
    except csv.Error as error:
        raise ValueError(f'{file}:{reader.line_num}: expected a table, got {error}') from None


def complete(place: str, names: list[str], fields: list[str]) -> list[str]:
    if len(fields) != len(names):
        raise ValueError(
            f'{place}: expected {len(names)} columns ({", ".join(names)}), got {len(fields)}'
        )
    if any(rows.SURROGATE.search(field) for field in fields):
        raise ValueError(f'{place}: expected UTF-8, got other bytes')
    return fields


def read_records(fields: dict[str, str], block) -> list[rows.Row]:
    return [
        row
        for place, record in block
        for row in convert(record, fields, place, int(place.rpartition(':')[2]))
    ]


TABLES = {
    'jsonl': jsonl_table,
    'json': jsonl_table,
    'tsv': functools.partial(delimited, '\t'),
    'csv': functools.partial(delimited, ','),
}


def squad(options: dict[str, str], spec: str) -> rows.Source:
    """SQuAD's JSON, one file a language ({lang} in `files`), joined by the id of the question.

    The passage is the paragraph. A question that has no answer (SQuAD 2.0) is left out.
    """
    found = rows.find(options['files'], 'files')
    if '' in found:
        code = options.get('language', '')
        rows.check_language(code, f'{spec}: language')
        found = {code: found['']}
    sha256, size = rows.digest([x for files in found.values() for x in files])
    blocks = functools.partial(join, found)
    name = options.get('name', 'squad')
    return rows.Source(
        name, spec, sha256, size, blocks, list, lambda n: f'{spec}: question {n + 1}'
    )


def join(files: dict[str, list[pathlib.Path]]) -> abc.Iterator[list[rows.Row]]:
    """All questions, those with one id as one row."""
    joined: dict[str, rows.Row] = {}
    for language, found in files.items():
        seen = set()
        for file in found:
            for place, name, question, passage in questions(file):
                if name in seen:
                    raise ValueError(f'{place}: id: expected a new one, got {name!r} again')
                seen.add(name)
                row = joined.setdefault(name, rows.Row(name, {}, {}, {}))
                row.query[language], row.passage[language] = question, passage
    whole = iter(joined.values())
    while block := list(itertools.islice(whole, ROWS)):
        yield block


def questions(file: pathlib.Path) -> abc.Iterator[tuple[str, str, str, str]]:
    """(place, id, question, paragraph) of a file."""
    data = rows.parse_json(rows.whole(file), str(file))
    for i, article in enumerate(listed(data, 'data', str(file))):
        for j, paragraph in enumerate(listed(article, 'paragraphs', f'{file}: data[{i}]')):
            place = f'{file}: data[{i}].paragraphs[{j}]'
            for item in listed(paragraph, 'qas', place):
                if not isinstance(item, dict) or not isinstance(item.get('id'), str):
                    raise ValueError(
                        f'{place}: expected a question with an id, got {rows.shown(item)}'
                    )
                where = f'{place}: {item["id"]}'
                rows.check_text(item['id'], f'{place}: id')
                rows.check_text(item.get('question'), f'{where}: question')
                rows.check_text(paragraph.get('context'), f'{where}: context')
                if not item.get('is_impossible'):
                    yield where, item['id'], item['question'], paragraph['context']


def listed(data, name: str, place: str) -> list:
    if not isinstance(data, dict) or not isinstance(data.get(name), list):
        raise ValueError(f'{place}: expected a list {name!r}, got {rows.shown(data)}')
    return data[name]


def hugging_face(options: dict[str, str], spec: str) -> rows.Source:
    """A set of the library `datasets`: `path` is a hub name, files or what save_to_disk wrote."""
    fields, split = mapping(options, spec), options.get('split', 'train')
    arguments = options['path'], options.get('config'), split
    opened = open_hugging_face(*arguments)
    sha256, size = rows.digest([pathlib.Path(x['filename']) for x in opened.cache_files])
    name = options.get('name', options['path'].rstrip('/').rpartition('/')[2])
    read = functools.partial(read_range, open_hugging_face, arguments, fields, spec)
    blocks = functools.partial(ranges, len(opened))
    return rows.Source(name, spec, sha256, size, blocks, read, lambda n: f'{spec}: record {n}')


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


def tfds(options: dict[str, str], spec: str) -> rows.Source:
    """A TFDS set that was prepared as array_record: its `path`, or its `name` under `data_dir`."""
    fields, split = mapping(options, spec), options.get('split', 'train')
    arguments = options['path'], options.get('data_dir'), split
    opened = open_tfds(*arguments)
    name = options.get('name', options['path'].rstrip('/').rpartition('/')[2])
    read = functools.partial(read_range, open_tfds, arguments, fields, spec)
    blocks, sha256 = functools.partial(ranges, len(opened)), repr(opened.dataset_info.full_name)
    size = opened.dataset_info.splits[split].num_bytes
    return rows.Source(name, spec, sha256, size, blocks, read, lambda n: f'{spec}: record {n}')


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
    for start in range(0, size, ROWS):
        yield Range(start, min(start + ROWS, size))


def read_range(open_set, arguments, fields: dict[str, str], spec: str, block: Range):
    opened, found = open_set(*arguments), []
    for number in range(block.start, block.stop):
        found += convert(plain(opened[number]), fields, f'{spec}: record {number}', number)
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
