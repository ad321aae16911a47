"""Tables of the console."""

import itertools
import re
import unicodedata
from collections import abc

_NUMBER = re.compile(r'[-+]?[\d.,]+(e[-+]?\d+)?%?|-|nan|')


def format_table(header: abc.Sequence[str], rows: abc.Iterable[abc.Sequence]) -> str:
    """Cells in aligned columns, two spaces apart; columns of numbers are aligned on the right.

    The header may be empty; None is an empty cell, and a row that ends early has empty cells.
    """
    texts = [['' if x is None else str(x) for x in row] for row in rows]
    columns = []
    for name, *cells in itertools.zip_longest(header, *texts, fillvalue=''):
        is_numeric = all(map(_NUMBER.fullmatch, cells))
        cells = [name, *cells] if header else cells
        width = max(map(len, cells))
        columns.append([x.rjust(width) if is_numeric else x.ljust(width) for x in cells])
    return '\n'.join('  '.join(row).rstrip() for row in zip(*columns, strict=True))


def cut_text(text: str, width: int) -> str:
    """A line that takes at most `width` columns of a terminal; what is cut ends in `...`."""
    widths = [_char_width(x) for x in text]
    if sum(widths) <= width:
        return text
    ends = list(itertools.accumulate(widths))
    return text[: sum(end <= width - 3 for end in ends)] + '...'


def _char_width(character: str) -> int:
    """Columns of a terminal that a character takes: East Asian ones two, combining ones none."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in 'WF' else 1
