"""Tables of the console."""

import itertools
import re
import unicodedata
from collections import abc

WIDTH = 80  # columns of a terminal, unless somebody made it wider
SMALLEST = 10  # columns that a text keeps
_NUMBER = re.compile(r'[-+]?[\d.,]+(e[-+]?\d+)?%?|-|nan|')


def format_table(
    header: abc.Sequence[str], rows: abc.Iterable[abc.Sequence], width: int | None = WIDTH
) -> str:
    """Cells in aligned columns, two spaces apart; columns of numbers are aligned on the right.

    The header may be empty; None is an empty cell, and a row that ends early has empty cells. In a
    table wider than `width`, first the header and then the longest texts go over several lines;
    numbers stay whole.
    """
    texts = [['' if x is None else str(x) for x in row] for row in rows]
    columns = list(itertools.zip_longest(header, *texts, fillvalue=''))
    columns = [column if header else column[1:] for column in columns]
    first = 1 if header else 0
    numeric = [all(map(_NUMBER.fullmatch, column[first:])) for column in columns]
    widths = _column_widths(columns, first, numeric, width)
    lines = []
    for i, row in enumerate(zip(*columns, strict=True)):
        cells = [_wrap(cell, size) for cell, size in zip(row, widths, strict=True)]
        height = max(map(len, cells))
        missing = [[''] * (height - len(x)) for x in cells]
        pairs = zip(missing, cells, strict=True)
        cells = [gap + x if i < first else x + gap for gap, x in pairs]
        for parts in zip(*cells, strict=True):
            padded = map(_pad, parts, widths, numeric)
            lines.append('  '.join(padded).rstrip())
    return '\n'.join(lines)


def _column_widths(
    columns: abc.Sequence[abc.Sequence[str]],
    first: int,
    numeric: abc.Sequence[bool],
    width: int | None,
) -> list[int]:
    """Widths that make a table of `width`, as far as they can; rows begin with `first`."""
    widths = [max(map(text_width, column)) for column in columns]
    limit = sum(widths) if width is None else width - 2 * (len(columns) - 1)
    if sum(widths) <= limit:
        return widths
    for i, column in enumerate(columns):
        words = [word for name in column[:first] for word in name.split()]
        widths[i] = max(map(text_width, [*words, *column[first:]]), default=0)
    while sum(widths) > limit:
        size, i = max((0 if numeric[i] else size, i) for i, size in enumerate(widths))
        if size <= SMALLEST:
            break
        widths[i] -= 1
    return widths


def _wrap(text: str, width: int) -> list[str]:
    """Lines of a cell, cut between words, or within those that are too long."""
    if text_width(text) <= width:
        return [text]
    lines = ['']
    for word in text.split():
        if lines[-1] and text_width(f'{lines[-1]} {word}') <= width:
            lines[-1] += f' {word}'
            continue
        lines.append('')
        for character in word:
            if text_width(lines[-1] + character) > width:
                lines.append('')
            lines[-1] += character
    return lines[1:]


def _pad(text: str, width: int, on_the_left: bool) -> str:
    gap = ' ' * (width - text_width(text))
    return gap + text if on_the_left else text + gap


def cut_text(text: str, width: int) -> str:
    """A line that takes at most `width` columns of a terminal; what is cut ends in `...`."""
    widths = [_char_width(x) for x in text]
    if sum(widths) <= width:
        return text
    ends = list(itertools.accumulate(widths))
    return text[: sum(end <= width - 3 for end in ends)] + '...'


def text_width(text: str) -> int:
    """Columns of a terminal that a text takes."""
    return sum(map(_char_width, text))


def _char_width(character: str) -> int:
    """Columns of a terminal that a character takes: East Asian ones two, combining ones none."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in 'WF' else 1
