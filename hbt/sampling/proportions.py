"""Planned and drawn proportions of languages, pairs and datasets; all draws are counted again."""

import collections
import os
import pathlib
import typing

import numpy as np

from hbt import config
from hbt.sampling import sampler, schedule
from hbt.utils import files, text_table


class Proportion(typing.NamedTuple):
    """One pool of a training run."""

    kind: str  # of batches
    dataset: str
    query_language: str
    passage_language: str
    planned: float  # expected proportion of all pairs
    drawn: int  # pairs


def count_proportions(s: sampler.Sampler, steps: int, done: int) -> list[Proportion]:
    """Proportions of the pools in a run of `steps`, and the pairs that its first `done` drew."""
    c, proportions = s.config, []
    alpha = 0.5 if c.sampler.kind == 'multitask' else mean_alpha(c.sampler, steps)
    parts, batches = {'mono': alpha, 'cross': 1 - alpha}, s.count_batches(done)
    for kind, mixture in s.mixtures.items():
        pairs = mixture.count_pairs(batches[kind], c.batch_size)
        for pool, proportion, n in zip(mixture.pools, mixture.proportions, pairs, strict=True):
            languages = [s.languages[i] for i in pool.languages]
            name, planned = s.store.datasets[pool.dataset].name, float(parts[kind] * proportion)
            proportions.append(Proportion(kind, name, *languages, planned, int(n)))
    return proportions


def mean_alpha(c: config.Sampler, steps: int) -> float:
    """Mean of alpha over so many steps, or over 100,000 of them, evenly spaced."""
    return float(np.mean(schedule.alpha_at(c, np.linspace(0, steps - 1, min(steps, 100_000)))))


def format_proportions(proportions: list[Proportion]) -> str:
    """Planned and drawn percentages by kind, dataset and language, and of the rarest pairs."""
    total, rows = sum(x.drawn for x in proportions), []

    def add(title, key, selected=proportions, rarest=None):
        planned, drawn = collections.Counter(), collections.Counter()
        for x in selected:
            planned[key(x)] += x.planned
            drawn[key(x)] += x.drawn
        for name in sorted(planned, key=planned.get)[:rarest] if rarest else sorted(planned):
            percent = f'{100 * drawn[name] / total:.2f}' if total else '-'
            rows.append((f'{title} {name}', f'{100 * planned[name]:.2f}', percent))

    add('kind', lambda x: x.kind)
    add('dataset', lambda x: x.dataset)
    add('query', lambda x: x.query_language)
    add('passage', lambda x: x.passage_language)
    cross = [x for x in proportions if x.kind == 'cross']
    add('rarest', lambda x: f'{x.query_language}>{x.passage_language}', cross, rarest=3)
    return text_table.format_table(('pairs', 'planned %', 'drawn %'), rows)


def write_proportions(
    proportions: list[Proportion], folder: str | os.PathLike
) -> tuple[pathlib.Path, pathlib.Path]:
    """Writes every pool to `proportions.tsv`, and heatmaps to `proportions.png`; returns these."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(x.drawn for x in proportions)
    lines = ['kind\tdataset\tquery_language\tpassage_language\tplanned\tdrawn\tpairs\n']
    for x in proportions:
        drawn = f'{x.drawn / total:.8f}' if total else ''
        lines.append('\t'.join((*x[:4], f'{x.planned:.8f}', drawn, f'{x.drawn}\n')))
    paths = folder / 'proportions.tsv', folder / 'proportions.png'
    files.write_text(paths[0], ''.join(lines))
    draw_proportions(proportions).savefig(paths[1])
    return paths


def draw_proportions(proportions: list[Proportion]):
    """A figure of matplotlib: heatmaps of the language pairs, planned and drawn on one scale."""
    # Imported here: it takes a second, and most programs draw nothing.
    from matplotlib import figure

    languages = sorted({y for x in proportions for y in (x.query_language, x.passage_language)})
    maps = {'planned %': [x.planned for x in proportions]}
    total = sum(x.drawn for x in proportions)
    if total:
        maps['drawn %'] = [x.drawn / total for x in proportions]
    grids = np.zeros((len(maps), len(languages), len(languages)))
    for grid, values in zip(grids, maps.values(), strict=True):
        for x, value in zip(proportions, values, strict=True):
            row_column = languages.index(x.query_language), languages.index(x.passage_language)
            grid[row_column] += 100 * value
    size = 2 + 0.4 * len(languages)
    chart = figure.Figure(figsize=(size * len(maps) + 1, size), layout='constrained')
    panels = chart.subplots(1, len(maps), squeeze=False)[0]
    for panel, title, grid in zip(panels, maps, grids, strict=True):
        drawn = panel.imshow(grid, vmin=0, vmax=grids.max() or 1)
        panel.set(title=title, xlabel='passage', ylabel='query')
        panel.set_xticks(range(len(languages)), languages, rotation=90)
        panel.set_yticks(range(len(languages)), languages)
    chart.colorbar(drawn, ax=list(panels))
    return chart
