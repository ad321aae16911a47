"""Rows from records with named fields: tables, SQuAD, Hugging Face datasets, TFDS.

Hides the libraries and how fields become a query, a passage and negatives. Called by `sources`.
"""

import csv
import functools

from hbt.data.readers import records, schema, text_lines


def table(options: dict[str, str], spec: str) -> schema.GroupSource:
    """A JSONL, TSV or CSV `file` (also gzip) with named fields, such as English-only pairs."""
    fields = records.mapping(options, spec)
    files = text_lines.find_files(options['file'], 'file')['']
    sha256, size = text_lines.digest_files(files)
    name = options.get('name', files[0].name.split('.')[0])
    kind = files[0].name.removesuffix('.gz').rpartition('.')[2]
    if kind not in TABLES:
        raise ValueError(f'{files[0]}: expected one of {", ".join(TABLES)}, got .{kind}')
    blocks, read = TABLES[kind](files, fields)
    return schema.GroupSource(
        name, spec, sha256, size, blocks, read, lambda n: f'{files[0]}: row {n + 1}'
    )


def jsonl_table(files, fields):
    return functools.partial(text_lines.iter_blocks, files), functools.partial(read_json, fields)


def read_json(fields: dict[str, str], block: text_lines.LineBlock) -> list[schema.Group]:
    found = []
    for place, line in block.numbered():
        record = schema.parse_json(line, place)
        found += records.convert(record, fields, place, int(place.rpartition(':')[2]))
    return found


def delimited(separator: str, files, fields):
    return functools.partial(records.delimited_blocks, files, separator), functools.partial(
        read_records, fields
    )


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
    if any(schema.SURROGATE.search(field) for field in fields):
        raise ValueError(f'{place}: expected UTF-8, got other bytes')
    return fields


def read_records(fields: dict[str, str], block) -> list[schema.Group]:
    return [
        row
        for place, record in block
        for row in records.convert(record, fields, place, int(place.rpartition(':')[2]))
    ]


TABLES = {
    'jsonl': jsonl_table,
    'json': jsonl_table,
    'tsv': functools.partial(delimited, '\t'),
    'csv': functools.partial(delimited, ','),
}
