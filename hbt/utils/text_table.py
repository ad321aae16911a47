"""Tables of the console."""

import re
from collections import abc

_NUMBER = re.compile(r'[-+]?[\d.,]+(e[-+]?\d+)?%?|-|nan|')


def format_table(header: abc.Sequence[str], rows: abc.Iterable[abc.Sequence]) -> str:
    """Cells in aligned columns, two spaces apart; columns of numbers are aligned on the right.

    The header may be empty; None is an empty cell, and a row that ends early has empty cells.
    """
    texts = [['' if x is None else str(x) for x in row] for row in rows]
    count = max(map(len, [header, *texts]))
    texts = [row + [''] * (count - len(row)) for row in texts]
    numeric = [all(_NUMBER.fullmatch(row[i]) for row in texts) for i in range(count)]
    lines = [[*header, *[''] * (count - len(header))], *texts] if header else texts
    widths = [max(len(row[i]) for row in lines) for i in range(count)]
    return '\n'.join(
        '  '.join(
            x.rjust(width) if right else x.ljust(width)
            for x, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in lines
    )
