"""Tables in files: JSON lines, TSV and CSV, plain or gzip, with named fields."""

import csv
import functools
import itertools
import pathlib
from collections import abc

from hbt.data.readers import records, schema, source_files, text_lines


def open_table(options: dict[str, str], spec: str) -> schema.GroupSource:
    """A JSONL, TSV or CSV `file` (also gzip) with named fields, such as English-only pairs."""
    fields = records.parse_fields(options, spec)
    paths = source_files.find_files(options, 'file')
    name = options.get('name', paths[0].name.split('.')[0])
    kind = paths[0].name.removesuffix('.gz').rpartition('.')[2]
    if kind not in KINDS:
        raise ValueError(f'{paths[0]}: expected one of {", ".join(KINDS)}, got .{kind}')
    blocks, iter_records = KINDS[kind]
    return schema.GroupSource(
        name,
        spec,
        *source_files.digest_files(paths),
        functools.partial(blocks, paths),
        functools.partial(_parse_records, iter_records, fields),
        lambda n: f'{paths[0]}: group {n + 1}',
    )


def _parse_records(iter_records: abc.Callable, fields: dict[str, str], block) -> list[schema.Group]:
    return [
        group
        for where, record in iter_records(block)
        for group in records.convert_record(
            record, fields, where, number=int(where.rpartition(':')[2])
        )
    ]


def _json_records(block: text_lines.LineBlock) -> abc.Iterator[tuple[str, dict]]:
    return schema.iter_objects(block.iter_rows())


def _delimited_blocks(
    separator: str, paths: list[pathlib.Path]
) -> abc.Iterator[list[tuple[str, dict]]]:
    """Yields blocks of (where, record) of tables whose first line names the columns."""
    csv.field_size_limit(text_lines.LONGEST)  # its own is 128 KiB
    for path in paths:
        rows = _iter_delimited(path, separator)
        _, names = next(rows, ('', []))
        while block := list(itertools.islice(rows, records.BLOCK)):
            yield [(where, _named_columns(where, names, columns)) for where, columns in block]


def _iter_delimited(path: pathlib.Path, separator: str) -> abc.Iterator[tuple[str, list[str]]]:
    """Yields (where, columns); in a CSV file a column in quotes may have several lines."""
    blocks = text_lines.iter_blocks([path])
    lines = (f'{line}\n' for block in blocks for _, line in block.iter_lines())
    quoting = csv.QUOTE_MINIMAL if separator == ',' else csv.QUOTE_NONE
    reader = csv.reader(lines, delimiter=separator, quoting=quoting)
    try:
        for columns in reader:
            yield f'{path}:{reader.line_num}', columns
    except csv.Error as error:
        raise ValueError(f'{path}:{reader.line_num}: expected a table, got {error}') from None


def _named_columns(where: str, names: list[str], columns: list[str]) -> dict[str, str]:
    if len(columns) != len(names):
        raise ValueError(
            f'{where}: expected {len(names)} columns ({", ".join(names)}), got {len(columns)}'
        )
    return dict(zip(names, columns, strict=True))


KINDS = {  # ending of the file -> its blocks, and the (where, record) of a block
    'jsonl': (text_lines.iter_blocks, _json_records),
    'json': (text_lines.iter_blocks, _json_records),
    'tsv': (functools.partial(_delimited_blocks, '\t'), iter),
    'csv': (functools.partial(_delimited_blocks, ','), iter),
}
