import itertools

import numpy as np
import pytest
from matplotlib import text

from hbt.evaluation import plots

LANGUAGES = 'ar bn de en es fa fi fr hi id ja ko ru sw te th yo zh'.split()
SYSTEMS = [f'a system with a long name, number {i}' for i in range(7)]


def texts(drawing):
    """(text, box on the canvas) of all visible texts."""
    drawing.draw_without_rendering()
    renderer = drawing.canvas.get_renderer()
    boxes, outside = [], ticks_outside(drawing)
    for label in drawing.findobj(lambda x: isinstance(x, text.Text) and x not in outside):
        axis = getattr(label, 'axes', None)
        shown = label.get_visible() and (axis is None or axis.get_visible())
        if shown and label.get_text().strip():
            boxes.append((label.get_text(), label.get_window_extent(renderer)))
    return boxes


def ticks_outside(drawing):
    """Labels of ticks beyond the limits of their axis, which are not drawn."""
    labels = set()
    for axes in drawing.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low <= tick.get_loc() <= high:
                    labels |= {tick.label1, tick.label2}
    return labels


def overlapping(drawing):
    pairs = []
    for (one, first), (other, second) in itertools.combinations(texts(drawing), 2):
        x = min(first.x1, second.x1) - max(first.x0, second.x0)
        y = min(first.y1, second.y1) - max(first.y0, second.y0)
        if x > 1 and y > 1 and (one, first.bounds) != (other, second.bounds):
            pairs.append((one, other))
    return pairs


def grids(count, rows, columns):
    generator = np.random.default_rng(0)
    return [
        plots.HeatMap(name, generator.uniform(-1, 1, (len(rows), len(columns))))
        for name in SYSTEMS[:count]
    ]


@pytest.mark.parametrize('count', [1, 3])
@pytest.mark.parametrize('names', [LANGUAGES[:2], LANGUAGES[:11], LANGUAGES])
def test_nothing_overlaps_in_heat_maps(count, names):
    drawing = plots.draw_heatmaps(grids(count, names, names), names, names, 'mAP', signed=True)
    assert not overlapping(drawing)


def test_long_names_of_rows_and_columns_do_not_overlap_in_heat_maps():
    names = ['Middle Eastern', 'Southeast Asian', 'European', 'East Asian']
    assert not overlapping(plots.draw_heatmaps(grids(3, names, names), names, names, 'mAP'))


def test_numbers_are_written_into_small_heat_maps_and_missing_ones_are_left_out():
    values = np.array([[0.25, np.nan], [0.5, 1.0]])
    drawing = plots.draw_heatmaps([plots.HeatMap('one', values)], ['de', 'en'], ['de', 'en'], 'mAP')
    written = [name for name, _ in texts(drawing)]
    assert {'.25', '.50', '1.00'} <= set(written) and 'nan' not in ' '.join(written)


@pytest.mark.parametrize('count', [1, 5, 7])
def test_nothing_overlaps_in_curves(count):
    x = [1.0, 5.0, 10.0, 20.0, 50.0, 100.0]
    lines = {name: plots.Line(x, [y + i for y in x]) for i, name in enumerate(SYSTEMS)}
    panel = plots.Curves('a title', lines, 'first k documents', '%', log_x=True)
    assert not overlapping(plots.draw_curves([panel] * count))


@pytest.mark.parametrize('scale', [1e-3, 1.0, 1e4])
def test_nothing_overlaps_in_points(scale):
    generator = np.random.default_rng(1)
    panels = []
    for title in ('mono mAP', 'cross mAP', 'multi mAP', 'rank distance'):
        values = {
            name: (scale * generator.uniform(1, 2, len(LANGUAGES))).tolist() for name in SYSTEMS
        }
        panels.append(
            (title, {k: [plots.Point(x, x * 0.9, x * 1.1) for x in v] for k, v in values.items()})
        )
    assert not overlapping(plots.draw_points(panels, LANGUAGES))


@pytest.mark.parametrize('count', [1, 4])
@pytest.mark.parametrize('names', [LANGUAGES[:2], LANGUAGES])
def test_nothing_overlaps_in_clouds(count, names):
    generator = np.random.default_rng(0)
    clouds = [
        plots.Cloud(
            f'a run, before training\nlanguage explains {i} %, question {i} %',
            'plane',
            generator.standard_normal((2 * len(names), 2)) * (i + 1),
            [*names, *names],
            ['question'] * len(names) + ['answer'] * len(names),
            [range(len(names))],
        )
        for i in range(count)
    ]
    drawing = plots.draw_clouds(clouds)
    assert not overlapping(drawing)
    assert {*names, 'question', 'answer'} <= {name for name, _ in texts(drawing)}


def test_languages_have_one_colour_each_in_clouds():
    points = np.zeros((18, 2)) + np.arange(18)[:, None]
    cloud = plots.Cloud('', '', points, LANGUAGES, ['question'] * 18)
    (scatter,) = plots.draw_clouds([cloud]).axes[0].collections
    assert len({tuple(x) for x in scatter.get_facecolors()}) == 18


def test_a_panel_of_several_magnitudes_has_a_log_axis():
    def scale(*values):
        drawing = plots.draw_points([('t', {'a': [plots.Point(x) for x in values]})], LANGUAGES[:2])
        return drawing.axes[0].get_xscale()

    assert scale(15.0, 1569.0) == 'log' and scale(150.0, 400.0) == 'linear'
    assert scale(0.0, 1.0) == 'linear'


def test_no_colour_with_its_mark_and_line_comes_twice():
    styles = [tuple(sorted(plots._style(i).items())) for i in range(32)]
    assert len(set(styles)) == 32
