"""Heat maps, curves, and points with intervals, in which no label or legend covers another."""

import math
import typing
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Bool, Float
from matplotlib import colors, figure
from matplotlib.backends import backend_agg

# Okabe and Ito (2008): told apart by colour-blind people too
COLOURS = '#0072B2 #D55E00 #009E73 #CC79A7 #E69F00 #56B4E9 #000000 #999999'.split()
MARKERS = 'osD^vP*X'
STYLE = {'font.size': 9, 'axes.titlesize': 9.5, 'savefig.facecolor': 'white'}
STYLE |= {'axes.spines.top': False, 'axes.spines.right': False, 'axes.axisbelow': True}
STYLE |= {'axes.grid': True, 'grid.color': '#e4e4e4', 'grid.linewidth': 0.6}
LANGUAGES = ('query language', 'document language')  # labels of the axes of a heat map
GUIDE = {'color': '#777777', 'marker': '', 'linestyle': '--', 'linewidth': 1.0}
SPOKE = {'color': 'k', 'linewidth': 0.9}
ANNOTATED = 12  # rows and columns of a heat map up to which the numbers are written into it
SMALL = 0.1  # largest number of heat maps below which these show a third digit
WIDE = 20  # ratio of the values of a panel of points from which its axis is logarithmic
ACROSS = 3  # panels beside each other


class HeatMap(typing.NamedTuple):
    """Query languages down, document languages across. NaN: no number."""

    title: str
    values: Float[np.ndarray, 'r c']
    framed: Bool[np.ndarray, 'r c'] | None = None


class Line(typing.NamedTuple):
    """The points of one name in a panel of curves."""

    x: Sequence[float]
    y: Sequence[float]
    fit: tuple[Sequence[float], Sequence[float]] | None = None  # a thin line in place of its own
    guide: bool = False  # nothing measured, but what to compare with


class Curves(typing.NamedTuple):
    """A panel of lines."""

    title: str
    lines: Mapping[str, Line]
    x: str  # what its axes say
    y: str = ''
    log_x: bool = False


class Cloud(typing.NamedTuple):
    """A panel of points that have no numbers of their own."""

    title: str
    x: str  # what its axis says
    points: Float[np.ndarray, 'n 2']
    colours: Sequence[str]  # name of each point's colour
    markers: Sequence[str]  # name of each point's marker
    linked: Sequence[Sequence[int]] = ()  # points that lines join


class Point(typing.NamedTuple):
    """A number and the bounds of its interval."""

    mean: float
    low: float | None = None
    high: float | None = None


def draw_heatmaps(
    maps: Sequence[HeatMap], rows, columns, label: str, signed: bool = False, axis_labels=LANGUAGES
) -> figure.Figure:
    """Heat maps with one colour scale, named `label`; if signed, red is below 0, green above."""
    longest = max(len(rows), len(columns))
    annotated = longest <= ANNOTATED
    side = max(0.37 if annotated else 0.24, 2.6 / longest)
    size = side * len(columns) + 1.0, side * len(rows) + 0.95
    values = np.concatenate([x.values.ravel() for x in maps])
    values = values[np.isfinite(values)]
    low, high = (values.min(), values.max()) if values.size else (0.0, 1.0)
    bound = max(abs(low), abs(high))
    digits = 2 if bound >= SMALL else 3
    if signed:
        low, high = -(bound or 1.0), bound or 1.0
    scale = colors.Normalize(low, high if high > low else low + 1e-9)
    palette = mpl.colormaps['PiYG' if signed else 'viridis'].with_extremes(bad='#f0f0f0')
    turned = 90 if max(map(len, columns), default=0) > 3 else 0
    with mpl.rc_context(STYLE | {'axes.grid': False}):
        across = ACROSS - (annotated and len(columns) > 6)
        drawing, panels = _panels(len(maps), size, (0.9, 0.0), across)
        for axes, heatmap in zip(panels, maps, strict=True):
            drawn = axes.imshow(heatmap.values, cmap=palette, norm=scale, aspect='equal')
            axes.set(title=heatmap.title, ylabel=axis_labels[0], xlabel=axis_labels[1])
            axes.set_xticks(range(len(columns)), columns, rotation=turned)
            axes.set_yticks(range(len(rows)), rows)
            axes.tick_params(length=0)
            if annotated:
                _annotate(axes, heatmap.values, drawn, f'{"+" if signed else ""}.{digits}f')
            for row, column in np.argwhere(heatmap.framed) if heatmap.framed is not None else ():
                corner, style = (column - 0.46, row - 0.46), {'edgecolor': 'k', 'linewidth': 0.9}
                axes.add_patch(mpl.patches.Rectangle(corner, 0.92, 0.92, fill=False, **style))
        bar = drawing.colorbar(drawn, ax=list(panels), shrink=0.8, pad=0.02)
        bar.set_label(label)
        bar.outline.set_visible(False)
    return drawing


def draw_curves(panels: Sequence[Curves], markers: bool = True) -> figure.Figure:
    """Panels of lines; a name has one colour in all of them, and stands once in the legend."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    with mpl.rc_context(STYLE):
        drawing, all_axes = _panels(len(panels), (3.5, 2.7), (0.4, _legend_height(names)))
        handles = {}
        for axes, panel in zip(all_axes, panels, strict=True):
            for name, line in panel.lines.items():
                style = _style(names.index(name))
                color = style['color']
                style |= {} if markers or len(line.x) < 2 else {'marker': ''}
                style |= {} if line.fit is None else {'linestyle': 'none'}
                style |= GUIDE if line.guide else {}
                (handles[name],) = axes.plot(line.x, line.y, **style, markersize=4)
                if line.fit is not None:
                    axes.plot(*line.fit, color=color, linewidth=0.9, linestyle='--')
            axes.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
            if panel.log_x:
                _set_log_ticks(axes, panel.lines)
        _add_legend(drawing, handles)
    return drawing


def draw_points(
    panels: Sequence[tuple[str, Mapping[str, Sequence[Point | None]]]], rows: Sequence[str]
) -> figure.Figure:
    """Panels (title, name -> a point for each row), with intervals as lines."""
    names = list(dict.fromkeys(name for _, points in panels for name in points))
    height = max(0.3, 0.13 * len(names) + 0.1) * len(rows) + 0.75
    with mpl.rc_context(STYLE):
        extra = 0.9, _legend_height(names)
        drawing, all_axes = _panels(len(panels), (3.3, height), extra, sharey=True)
        handles = {}
        for axes, (title, named) in zip(all_axes, panels, strict=True):
            for name, points in named.items():
                i = names.index(name)
                offset = (i - (len(names) - 1) / 2) * min(0.8 / len(names), 0.22)
                placed = [(row + offset, x) for row, x in enumerate(points) if x is not None]
                if placed:
                    handles[name] = _draw_series(axes, placed, _style(i))
            axes.set_title(title)
            axes.set_yticks(range(len(rows)), rows)
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.grid(axis='y', visible=False)
            _set_point_scale(axes, named)
            for edge in np.arange(len(rows) - 1) + 0.5:
                axes.axhline(edge, color='#e4e4e4', linewidth=0.6)
        _add_legend(drawing, handles)
    return drawing


def draw_clouds(clouds: Sequence[Cloud]) -> figure.Figure:
    """Clouds of points, two beside each other; the legend has colours and markers."""
    names = sorted({x for cloud in clouds for x in cloud.colours})
    kinds = sorted({x for cloud in clouds for x in cloud.markers}, reverse=True)
    shades = mpl.colormaps['tab20'].colors  # ten colours, each dark and light
    palette = COLOURS if len(names) <= len(COLOURS) else shades[::2] + shades[1::2]
    palette = {name: palette[i % len(palette)] for i, name in enumerate(names)}
    with mpl.rc_context(STYLE | {'axes.grid': False}):
        extra = 0.2, _legend_height([*names, *kinds], 7)
        drawing, all_axes = _panels(len(clouds), (4.3, 4.1), extra, 2)
        for axes, cloud in zip(all_axes, clouds, strict=True):
            order = np.random.default_rng(0).permutation(len(cloud.points))  # none lies on top
            for i, kind in enumerate(kinds):
                rows = [j for j in order if cloud.markers[j] == kind]
                inks = [palette[cloud.colours[j]] for j in rows]
                style = {'marker': 'ox'[i % 2], 's': 9, 'linewidths': 0.7, 'rasterized': True}
                axes.scatter(*cloud.points[rows].T, c=inks, **style)
            for members in cloud.linked:
                points = cloud.points[list(members)]
                for point in points:
                    axes.plot(*zip(points.mean(axis=0), point, strict=True), **SPOKE)
            axes.set(title=cloud.title, xlabel=cloud.x, xticks=[], yticks=[])
            axes.set_aspect('equal', 'datalim')
        style = {'linestyle': 'none', 'markersize': 5}
        lines = {x: {'marker': 's', 'color': palette[x]} for x in names}
        lines |= {x: {'marker': 'ox'[i % 2], 'color': '#555555'} for i, x in enumerate(kinds)}
        handles = {name: mpl.lines.Line2D([], [], **x, **style) for name, x in lines.items()}
        _add_legend(drawing, handles, 7)
    return drawing


def _panels(count: int, size, extra, across: int = ACROSS, sharey: bool = False):
    """A figure and the axes of its panels, each of this size; `extra`: of the whole figure."""
    across = min(count, across)
    down = math.ceil(count / across)
    shape = across * size[0] + extra[0], down * size[1] + extra[1]
    drawing = figure.Figure(figsize=shape, layout='constrained')
    drawing.get_layout_engine().set(h_pad=0.09, w_pad=0.09)
    backend_agg.FigureCanvasAgg(drawing)
    all_axes = drawing.subplots(down, across, squeeze=False, sharey=sharey).ravel()
    for axes in all_axes[count:]:
        axes.set_visible(False)
    return drawing, all_axes[:count]


def _draw_series(axes, placed: list[tuple[float, Point]], style: dict):
    """The points of one name at their heights, with their intervals."""
    for y, point in placed:
        if point.low is not None:
            axes.plot([point.low, point.high], [y, y], color=style['color'], linewidth=1.4)
    x, heights = [point.mean for _, point in placed], [y for y, _ in placed]
    return axes.plot(x, heights, **style | {'linestyle': 'none'}, markersize=4.5)[0]


def _style(i: int) -> dict:
    line = {'linestyle': ('-', '--', ':', '-.')[i // len(COLOURS) % 4], 'linewidth': 1.5}
    return {'color': COLOURS[i % len(COLOURS)], 'marker': MARKERS[i % len(MARKERS)], **line}


def _legend_height(names: Sequence[str], columns: int = 4) -> float:
    return 0.22 * math.ceil(len(names) / columns) + 0.2


def _add_legend(drawing: figure.Figure, handles: dict, columns: int = 4) -> None:
    """Under all panels; nothing where one name is all there is."""
    if len(handles) > 1:
        position = {'loc': 'outside lower center', 'ncols': min(columns, len(handles))}
        drawing.legend(handles.values(), handles, frameon=False, **position)


def _set_log_ticks(axes, lines: Mapping[str, Line]) -> None:
    """A log axis that ticks at the values that there are, if these are few."""
    ticks = sorted({x for line in lines.values() for x in line.x})
    axes.set_xscale('log')
    if len(ticks) <= 8:
        axes.set_xticks(ticks, [_shorten(x) for x in ticks])
        axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())


def _set_point_scale(axes, named: Mapping[str, Sequence[Point | None]]) -> None:
    """A log axis where the values are of several magnitudes, so that the small ones differ too."""
    means = [x.mean for points in named.values() for x in points if x is not None]
    if means and min(means) > 1 and max(means) > WIDE * min(means):
        axes.set_xscale('log')
        axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda x, _: _shorten(x)))
        axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    else:
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5))


def _shorten(x: float) -> str:
    for size, unit, letter in ((1e9, 1e9, ' G'), (1e6, 1e6, ' M'), (1e4, 1e3, ' k')):
        if x >= size:
            return f'{x / unit:.3g}{letter}'
    return f'{x:.3g}' if x < 100 else f'{x:.0f}'


def _annotate(axes, values: Float[np.ndarray, 'r c'], drawn, form: str) -> None:
    """Writes the number of every cell, without the zero before the point."""
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            red, green, blue, _ = drawn.to_rgba(value)
            ink = 'w' if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else 'k'
            text = f'{value:{form}}'.replace('0.', '.', 1)
            axes.text(column, row, text, ha='center', va='center', fontsize=6.6, color=ink)
