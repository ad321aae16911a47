"""What a run is to draw and what it has drawn: shares of languages, pairs and datasets.

Hides how the plan is summed up: nothing is counted while training, draws are counted again from
the settings alone. Called by `main`; as a program it shows the plan of a config before training.
"""

import collections
import os
import pathlib
import typing

import numpy as np

from hbt import config
from hbt.sampling import sampler, schedule
from hbt.utils import files


class Proportion(typing.NamedTuple):
    """One pool. Planned: expected share of all rows; drawn: rows."""

    kind: str
    dataset: str
    query: str
    passage: str
    planned: float
    drawn: int


def count_proportions(s: sampler.Sampler, steps: int, done: int) -> list[Proportion]:
    """The pools of a run of `steps`, with the rows that its first `done` steps have drawn."""
    c, found = s.config, []
    both = c.sampler.kind == 'multitask'
    mean = 0.5 if both else mean_alpha(c.sampler, steps)
    batches = [done, done] if both else s.kinds.count(done)
    for number, (kind, part) in enumerate(zip(sampler.KINDS, (mean, 1 - mean), strict=True)):
        if kind not in s.mixtures:
            continue
        mix = s.mixtures[kind]
        rows = mix.drawn(int(batches[number]), c.batch_size)
        for pool, share, n in zip(mix.pools, mix.shares, rows, strict=True):
            languages = [s.languages[i] for i in pool.pair]
            name = s.store.datasets[pool.dataset].name
            found.append(Proportion(kind, name, *languages, float(part * share), int(n)))
    return found


def mean_alpha(c: config.Sampler, steps: int) -> float:
    """Over all steps, or 100,000 of them evenly spaced."""
    return float(np.mean(schedule.alpha_at(c, np.linspace(0, steps - 1, min(steps, 100_000)))))


def format_proportions(found: list[Proportion]) -> str:
    """Planned and drawn percentages by kind, dataset and language, and the rarest pairs."""
    rows = sum(share.drawn for share in found)
    lines = [f'{"rows":<24}{"planned %":>10}{"drawn %":>10}']

    def add(title, key, keep=lambda share: True, least=0):
        planned, drawn = collections.Counter(), collections.Counter()
        for share in filter(keep, found):
            planned[key(share)] += share.planned
            drawn[key(share)] += share.drawn
        for name in sorted(planned, key=planned.get)[:least] if least else sorted(planned):
            seen = f'{100 * drawn[name] / rows:>10.2f}' if rows else f'{"-":>10}'
            lines.append(f'{title + " " + name:<24}{100 * planned[name]:>10.2f}{seen}')

    add('kind', lambda x: x.kind)
    add('dataset', lambda x: x.dataset)
    add('query', lambda x: x.query)
    add('passage', lambda x: x.passage)
    add('rarest', lambda x: f'{x.query}>{x.passage}', lambda x: x.kind == 'cross', least=3)
    return '\n'.join(lines)


def write_proportions(found: list[Proportion], folder: str | os.PathLike) -> None:
    """Writes every pool to `proportions.tsv`, and heatmaps of the pairs to `proportions.png`."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = sum(share.drawn for share in found)
    lines = ['\t'.join(('kind', 'dataset', 'query', 'passage', 'planned', 'drawn', 'rows'))]
    for x in found:
        part = f'{x.drawn / rows:.8f}' if rows else ''
        lines.append('\t'.join((*x[:4], f'{x.planned:.8f}', part, str(x.drawn))))
    files.write_text(folder / 'proportions.tsv', '\n'.join(lines) + '\n')
    plot_proportions(found, folder / 'proportions.png')


def plot_proportions(found: list[Proportion], path: pathlib.Path) -> None:
    # Imported here: it takes a second, and most programs draw nothing.
    from matplotlib import figure

    languages = sorted({x for share in found for x in (share.query, share.passage)})
    shown = {'planned %': [x.planned for x in found]}
    rows = sum(x.drawn for x in found)
    if rows:
        shown['drawn %'] = [x.drawn / rows for x in found]
    size = 2 + 0.4 * len(languages)
    chart = figure.Figure(figsize=(size * len(shown) + 1, size), layout='constrained')
    panels = chart.subplots(1, len(shown), squeeze=False)[0]
    for panel, (title, values) in zip(panels, shown.items(), strict=True):
        grid = np.zeros((len(languages), len(languages)))
        for share, value in zip(found, values, strict=True):
            grid[languages.index(share.query), languages.index(share.passage)] += 100 * value
        chart.colorbar(panel.imshow(grid, vmin=0), ax=panel)
        panel.set(title=title, xlabel='passage', ylabel='query')
        panel.set_xticks(range(len(languages)), languages, rotation=90)
        panel.set_yticks(range(len(languages)), languages)
    chart.savefig(path)
