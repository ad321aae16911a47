"""Tables of cells with a header, CSV and TSV: one reader, in the dialect that is asked for.

Whether quotes around a cell of a TSV file are text cannot be seen: pandas writes them around cells
with a quote, tab or newline in them, other programs write what the cell holds.
"""

import csv
import pathlib
import typing
from collections import abc

from hbt.data.readers import text_lines
from hbt.utils import files


class Dialect(typing.NamedTuple):
    """How a row is written. In quotes, a cell may hold separators, newlines, and doubled quotes."""

    separator: str
    quoted: bool | None  # None: as long as no cell begins with a quote


DIALECTS = {
    'csv': Dialect(',', True),
    'semicolon': Dialect(';', True),
    'tsv': Dialect('\t', False),
    'quoted_tsv': Dialect('\t', True),
}
ENDINGS = {'csv': DIALECTS['csv'], 'tsv': Dialect('\t', None)}  # where no dialect is given


def iter_records(path: pathlib.Path, dialect: Dialect) -> abc.Iterator[tuple[str, dict[str, str]]]:
    """Yields (where, column -> cell) of the rows; ValueError for one that is not in the dialect."""
    csv.field_size_limit(text_lines.LONGEST)  # its own is 128 KiB
    blocks = text_lines.iter_blocks([path])
    lines = (f'{line}\n' for block in blocks for _, line in block.iter_lines())
    quoting = csv.QUOTE_MINIMAL if dialect.quoted else csv.QUOTE_NONE
    reader = csv.reader(lines, delimiter=dialect.separator, quoting=quoting, strict=True)
    first, names = 1, []
    try:
        for columns in reader:
            where, first = f'{path}:{reader.line_num}', reader.line_num + 1
            if dialect.quoted is None:
                _check_unquoted(columns, where)
            if not names:
                names = _check_header(columns, where)
                continue
            if len(columns) != len(names):
                expected = f'{len(names)} columns ({files.shorten_list(names, 12)})'
                raise ValueError(f'{where}: expected {expected}, got {len(columns)}')
            yield where, dict(zip(names, columns, strict=True))
    except csv.Error as error:  # line_num is where it ends, which may be the end of the file
        message = str(error).partition(' - ')[0]
        raise ValueError(f'{path}:{first}: expected a row of a table, got {message}') from None


def _check_header(names: list[str], where: str) -> list[str]:
    repeated = [name for name in names if names.count(name) > 1]
    if repeated or not names:
        got = f'{repeated[0]!r} twice' if repeated else 'an empty line'
        raise ValueError(f'{where}: expected columns of different names, got {got}')
    return names


def _check_unquoted(columns: list[str], where: str) -> None:
    for cell in columns:
        if cell.startswith('"'):
            raise ValueError(
                f'{where}: expected dialect=quoted_tsv where quotes enclose cells, or dialect=tsv'
                f' where they are text, got neither for {files.shorten(cell)}'
            )
