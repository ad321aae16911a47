"""Kinds of pictures: heat maps, curves, points with intervals; each as a matplotlib figure.

Hides sizes, colours, and where labels and legends go, so that none is cut off or covers another.
Called by `figures`.
"""

import math
import typing
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Bool, Float
from matplotlib import colors, figure
from matplotlib.backends import backend_agg

COLOURS = (  # Okabe and Ito (2008): told apart by colour-blind people too
    *('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000', '#999999'),
)
MARKS = 'osD^vP*X'
STYLE = {
    'font.size': 9,
    'axes.titlesize': 9.5,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'grid.color': '#e4e4e4',
    'grid.linewidth': 0.6,
    'axes.axisbelow': True,
    'savefig.facecolor': 'white',
}
GUIDE = {'color': '#777777', 'marker': '', 'linestyle': '--', 'linewidth': 1.0}
WRITTEN = 12  # rows and columns of a heat map up to which the numbers are written into it
SMALL = 0.1  # largest number of heat maps below which these show a third digit
WIDE = 20  # ratio of the values of a panel of points from which its axis is logarithmic
ACROSS = 3  # panels beside each other


class Grid(typing.NamedTuple):
    """One heat map: query languages down, document languages across. NaN: no number."""

    title: str
    values: Float[np.ndarray, 'r c']
    marked: Bool[np.ndarray, 'r c'] | None = None  # cells that get a frame


class Line(typing.NamedTuple):
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    fit: tuple[Sequence[float], Sequence[float]] | None = None  # another line, thin, of its colour
    joined: bool = True  # the points, by a line
    guide: bool = False  # nothing measured, but what to compare with


class Axes(typing.NamedTuple):
    """What a panel of curves says of its axes."""

    title: str
    x: str
    y: str = ''
    log: str = ''  # '', 'x', 'y', or 'xy'


class Point(typing.NamedTuple):
    mean: float
    low: float | None = None
    high: float | None = None


def heatmaps(
    grids: Sequence[Grid],
    rows: Sequence[str],
    columns: Sequence[str],
    label: str,
    signed: bool = False,
    axes: tuple[str, str] = ('query language', 'document language'),
) -> figure.Figure:
    """Heat maps with one colour scale; `signed`: white is 0, blue above it and red below."""
    written = max(len(rows), len(columns)) <= WRITTEN
    across = min(len(grids), ACROSS - (written and len(columns) > 6))
    down = math.ceil(len(grids) / across)
    side = max(0.37 if written else 0.24, 2.6 / max(len(rows), len(columns)))
    width, height = side * len(columns) + 1.0, side * len(rows) + 0.95
    values = np.concatenate([grid.values.ravel() for grid in grids])
    known = values[np.isfinite(values)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
    digits = 2 if max(abs(low), abs(high)) >= SMALL else 3
    if signed:
        bound = max(abs(low), abs(high)) or 1.0
        low, high = -bound, bound
    scale = colors.Normalize(low, high if high > low else low + 1e-9)
    palette = mpl.colormaps['RdBu' if signed else 'viridis'].with_extremes(bad='#f0f0f0')
    with mpl.rc_context(STYLE | {'axes.grid': False}):
        drawing = _figure(across * width + 0.9, down * height)
        places = drawing.subplots(down, across, squeeze=False)
        for place in places.flat[len(grids) :]:
            place.set_visible(False)
        for place, grid in zip(places.flat, grids, strict=False):
            drawn = place.imshow(grid.values, cmap=palette, norm=scale, aspect='equal')
            place.set_title(grid.title)
            place.set_xticks(range(len(columns)), columns, rotation=_turn(columns))
            place.set_yticks(range(len(rows)), rows)
            place.set_ylabel(axes[0])
            place.set_xlabel(axes[1])
            place.tick_params(length=0)
            if written:
                _write(place, grid.values, palette, scale, digits, signed)
            if grid.marked is not None:
                _frame(place, grid.marked)
        bar = drawing.colorbar(drawn, ax=places, shrink=0.8, pad=0.02)
        bar.set_label(label)
        bar.outline.set_visible(False)
    return drawing


def curves(panels: Sequence[tuple[Axes, Mapping[str, Line]]], marks: bool = True) -> figure.Figure:
    """Panels of lines; a name has one colour in all of them, and stands once in the legend."""
    names = list(dict.fromkeys(name for _, lines in panels for name in lines))
    across = min(len(panels), ACROSS)
    down = math.ceil(len(panels) / across)
    with mpl.rc_context(STYLE):
        drawing = _figure(3.5 * across + 0.4, 2.7 * down + 0.2 + 0.22 * math.ceil(len(names) / 4))
        places = drawing.subplots(down, across, squeeze=False)
        for place in places.flat[len(panels) :]:
            place.set_visible(False)
        shown = {}
        for place, (axes, lines) in zip(places.flat, panels, strict=False):
            for name, line in lines.items():
                style = _style(names.index(name))
                mark = style['marker'] if marks or len(line.x) < 2 else ''
                changed = {'marker': mark} | ({} if line.joined else {'linestyle': 'none'})
                changed |= GUIDE if line.guide else {}
                (shown[name],) = place.plot(line.x, line.y, **style | changed, markersize=4)
                if line.fit is not None:
                    place.plot(*line.fit, color=style['color'], linewidth=0.9, linestyle='--')
                if line.low is not None:
                    place.fill_between(
                        line.x, line.low, line.high, color=style['color'], alpha=0.15, linewidth=0
                    )
            place.set_title(axes.title)
            place.set_xlabel(axes.x)
            place.set_ylabel(axes.y)
            _scales(place, axes, lines)
        _legend(drawing, shown)
    return drawing


def dots(
    panels: Sequence[tuple[str, Mapping[str, Sequence[Point | None]]]], rows: Sequence[str]
) -> figure.Figure:
    """Panels of rows; in every row a point for each name, with its interval as a line."""
    names = list(dict.fromkeys(name for _, points in panels for name in points))
    across = min(len(panels), ACROSS)
    down = math.ceil(len(panels) / across)
    height = max(0.3, 0.13 * len(names) + 0.1) * len(rows) + 0.75
    with mpl.rc_context(STYLE):
        drawing = _figure(
            3.3 * across + 0.9, height * down + 0.22 * math.ceil(len(names) / 4) + 0.2
        )
        places = drawing.subplots(down, across, squeeze=False, sharey=True)
        for place in places.flat[len(panels) :]:
            place.set_visible(False)
        shown = {}
        for place, (title, points) in zip(places.flat, panels, strict=False):
            for name, found in points.items():
                i = names.index(name)
                offset = (i - (len(names) - 1) / 2) * min(0.8 / len(names), 0.22)
                kept = [(row, x) for row, x in enumerate(found) if x is not None]
                if kept:
                    shown[name] = _dots(place, kept, offset, _style(i))
            place.set_title(title)
            place.set_yticks(range(len(rows)), rows)
            place.set_ylim(len(rows) - 0.5, -0.5)
            place.grid(axis='y', visible=False)
            _spread_out(place, points)
            for edge in np.arange(len(rows) - 1) + 0.5:
                place.axhline(edge, color='#e4e4e4', linewidth=0.6)
        _legend(drawing, shown)
    return drawing


def _dots(place, kept: list[tuple[int, Point]], offset: float, style: dict):
    y = [row + offset for row, _ in kept]
    x = [point.mean for _, point in kept]
    for height, (_, point) in zip(y, kept, strict=True):
        if point.low is not None:
            place.plot(
                [point.low, point.high], [height, height], color=style['color'], linewidth=1.4
            )
    (drawn,) = place.plot(
        x, y, color=style['color'], marker=style['marker'], linestyle='none', markersize=4.5
    )
    return drawn


def _figure(width: float, height: float) -> figure.Figure:
    drawing = figure.Figure(figsize=(width, height), layout='constrained')
    drawing.get_layout_engine().set(h_pad=0.09, w_pad=0.09)
    backend_agg.FigureCanvasAgg(drawing)
    return drawing


def _style(i: int) -> dict:
    return {
        'color': COLOURS[i % len(COLOURS)],
        'marker': MARKS[i % len(MARKS)],
        'linestyle': ('-', '--', ':', '-.')[i // len(COLOURS) % 4],
        'linewidth': 1.5,
    }


def _legend(drawing: figure.Figure, shown: dict) -> None:
    """Under all panels; nothing where one name is all there is."""
    if len(shown) > 1:
        drawing.legend(
            shown.values(),
            shown,
            loc='outside lower center',
            ncols=min(4, len(shown)),
            frameon=False,
        )


def _scales(place, axes: Axes, lines: Mapping[str, Line]) -> None:
    """Log axes tick at the values that there are, if these are few."""
    if 'x' in axes.log:
        ticks = sorted({x for line in lines.values() for x in line.x})
        place.set_xscale('log')
        if len(ticks) <= 8:
            place.set_xticks(ticks, [_short(x) for x in ticks])
            place.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    if 'y' in axes.log:
        place.set_yscale('log')
        plain = mpl.ticker.FuncFormatter(lambda y, _: _short(y))
        place.yaxis.set_major_formatter(plain)
        place.yaxis.set_minor_formatter(plain)


def _spread_out(place, points: Mapping[str, Sequence[Point | None]]) -> None:
    """A log axis where the values are of several magnitudes, so that the small ones differ too."""
    found = [x.mean for some in points.values() for x in some if x is not None]
    if found and min(found) > 1 and max(found) > WIDE * min(found):
        place.set_xscale('log')
        place.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda x, _: _short(x)))
        place.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    else:
        place.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5))


def _short(x: float) -> str:
    for size, letter in ((1e9, ' G'), (1e6, ' M'), (1e4, ' k')):
        if x >= size:
            return f'{x / (1e3 if letter == " k" else size):.3g}{letter}'
    return f'{x:.3g}' if x < 100 else f'{x:.0f}'


def _turn(names: Sequence[str]) -> int:
    return 90 if max(map(len, names), default=0) > 3 else 0


def _write(place, values, palette, scale, digits: int, signed: bool) -> None:
    """The number of every cell, without the zero before the point."""
    for (row, column), value in np.ndenumerate(values):
        if not np.isfinite(value):
            continue
        red, green, blue, _ = palette(scale(value))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        text = f'{value:{"+" if signed else ""}.{digits}f}'.replace('0.', '.', 1)
        place.text(
            column, row, text, ha='center', va='center', fontsize=6.6, color='w' if dark else 'k'
        )


def _frame(place, marked) -> None:
    for row, column in np.argwhere(marked):
        place.add_patch(
            mpl.patches.Rectangle(
                (column - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor='k', linewidth=0.9
            )
        )
