"""Tables and figures as a tree of data; numbers stay numbers until they are written.

Hides how numbers are shown. Called by `tables`, `trends`, `published` and `figures`, which make the
parts, and by `notations`, which writes them.
"""

import functools
import io
import math
import typing

import matplotlib as mpl
from matplotlib import figure


class Value(typing.NamedTuple):
    """A number with the bounds of its confidence interval, or with its spread over seeds."""

    mean: float
    low: float | None = None
    high: float | None = None
    spread: float | None = None


Cell = str | int | float | Value | None


class Column(typing.NamedTuple):
    """A name, how its numbers are shown (FORMS), and the heading it shares with its neighbours."""

    name: str
    form: str = 'text'
    group: str = ''


class Table(typing.NamedTuple):
    name: str  # of its files
    title: str
    columns: list[Column]
    rows: list[list[Cell]]
    note: str = ''
    strong: frozenset[tuple[int, int]] = frozenset()  # (row, column) of what stands out


class Figure(typing.NamedTuple):
    name: str  # of its files
    title: str
    drawing: figure.Figure
    note: str = ''


class Section(typing.NamedTuple):
    title: str
    text: str
    parts: list[Table | Figure]


def best(table: Table, groups: list[tuple[list[tuple[int, int]], bool]]) -> Table:
    """The table with the best number of every group of cells standing out.

    A group is its cells and whether the largest is best; none stands out of fewer than two.
    """
    strong = set(table.strong)
    for cells, highest in groups:
        found = {(i, j): number(table.rows[i][j]) for i, j in cells}
        known = {cell: x for cell, x in found.items() if x is not None}
        if len(known) > 1:
            wanted = (max if highest else min)(known.values())
            strong |= {cell for cell, x in known.items() if x == wanted}
    return table._replace(strong=frozenset(strong))


def number(cell: Cell) -> float | None:
    x = cell.mean if isinstance(cell, Value) else cell
    return x if isinstance(x, int | float) and not math.isnan(x) else None


def shown(cell: Cell, form: str) -> str:
    """A cell as people read it; empty where there is no number."""
    if cell is None or isinstance(cell, str):
        return cell or ''
    if not isinstance(cell, Value):
        return '' if math.isnan(cell) else FORMS[form](cell)
    text, extra = shown(cell.mean, form), ''
    if cell.spread is not None and not math.isnan(cell.spread):
        extra += f' ± {FORMS[form](cell.spread).lstrip("+")}'
    if cell.low is not None and not math.isnan(cell.low):
        extra += f' [{FORMS[form](cell.low)}, {FORMS[form](cell.high)}]'
    return text + extra


@functools.cache
def image(part: Figure, kind: str) -> bytes:
    """The figure as svg, pdf or png; the same bytes for the same figure."""
    out = io.BytesIO()
    dates = {'svg': {'Date': None}, 'pdf': {'CreationDate': None}, 'png': {}}
    with mpl.rc_context({'svg.hashsalt': part.name}):
        part.drawing.savefig(out, format=kind, metadata=dates[kind], bbox_inches='tight', dpi=130)
    return out.getvalue()


def texts(table: Table) -> list[list[str]]:
    forms = [column.form for column in table.columns]
    return [[shown(x, form) for x, form in zip(row, forms, strict=True)] for row in table.rows]


def spans(table: Table) -> list[tuple[str, int]]:
    """Neighbouring columns of one heading: [(heading, how many)]."""
    spans = []
    for column in table.columns:
        if spans and spans[-1][0] == column.group:
            spans[-1] = (column.group, spans[-1][1] + 1)
        else:
            spans.append((column.group, 1))
    return spans


def _probability(p: float) -> str:
    return '< .001' if p < 0.001 else f'{p:.3f}'


def _number(x: float) -> str:
    """A score, a distance, or a coefficient of any size, in a column that has all of them."""
    return f'{x:,.1f}' if abs(x) >= 10 else f'{x:.4f}' if abs(x) >= 0.001 or not x else f'{x:.3g}'


FORMS = {
    'text': str,
    'right': str,
    'score': lambda x: f'{x:.4f}',
    'thousandths': lambda x: f'{x:.3f}',
    'whole': lambda x: f'{x:,.0f}',
    'signed': lambda x: f'{x:+.4f}',
    'distance': lambda x: f'{x:,.1f}',
    'p': _probability,
    'count': lambda x: f'{x:,}',
    'percent': lambda x: f'{100 * x:.1f} %',
    'number': _number,
    'signed number': lambda x: '+' * (x >= 0) + _number(x),
}
