"""Rows from records with named fields: tables, SQuAD, Hugging Face datasets, TFDS.

Hides the libraries and how fields become a query, a passage and negatives. Called by `sources`.
"""

import csv
import itertools
from collections import abc

from hbt.data.readers import schema, tables, text_lines
from hbt.utils import files, languages

ROWS = 1024  # records of a block
SIDES = ('query', 'passage', 'negatives')


def mapping(options: dict[str, str], spec: str) -> dict[str, str]:
    """Which field goes where: `query.en=question`, or `query=question` with `language=en`."""
    found = {k: v for k, v in options.items() if k.split('.')[0] in (*SIDES, 'id', 'language')}
    for side in ('query', 'passage'):
        if not any(key.split('.')[0] == side for key in found):
            raise ValueError(f'{spec}: expected {side}=FIELD or {side}.LANGUAGE=FIELD, got neither')
    for key in found:
        side, _, code = key.partition('.')
        if code and side in SIDES:
            languages.check_language(code, f'{spec}: {key}')
    return found


def convert(record: dict, fields: dict[str, str], place: str, number: int) -> list[schema.Group]:
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
    if code and not languages.is_language(code):
        code = reach(record, code, place)
    count = sizes.pop() if sizes else 1
    codes = code if isinstance(code, list) else [code] * count
    if len(codes) < count or not all(isinstance(x, str) for x in codes):
        shown = files.shorten(code)
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
                shown = files.shorten(value)
                raise ValueError(f'{place}: {side}: expected {{language: text}}, got {shown}')
            row[side] |= {language: value} if language else value
        found.append(schema.check_group(row, place))
    return found


def reach(record, path: str, place: str):
    """What a dotted path leads to; through a list, the list of what it leads to."""
    for i, name in enumerate(path.split('.')):
        if isinstance(record, list):
            rest = '.'.join(path.split('.')[i:])
            return [reach(item, rest, place) for item in record]
        if not isinstance(record, dict) or name not in record:
            had = ', '.join(record) if isinstance(record, dict) else files.shorten(record)
            raise ValueError(f'{place}: expected a field {name!r} of {path!r}, got {had}')
        record = record[name]
    return record


def delimited_blocks(files, separator: str) -> abc.Iterator[list[tuple[str, dict]]]:
    """Blocks of (place, record) of tables whose first line names the columns."""
    csv.field_size_limit(text_lines.LONGEST)  # its own is 128 KiB
    for file in files:
        lines = (
            x
            for block in text_lines.iter_blocks([file])
            for x in block.data.decode(errors='surrogateescape').splitlines(True)
        )
        quoting = csv.QUOTE_MINIMAL if separator == ',' else csv.QUOTE_NONE
        reader = csv.reader(lines, delimiter=separator, quoting=quoting)
        found = tables.numbered(file, reader)
        _, names = next(found, (0, []))
        while block := list(itertools.islice(found, ROWS)):
            yield [
                (
                    f'{file}:{n}',
                    dict(zip(names, tables.complete(f'{file}:{n}', names, x), strict=True)),
                )
                for n, x in block
            ]
