"""Figures of one benchmark, for one or several models: every pair of languages, and language bias.

`trees` are parts of `numbers` of a result (see `aggregate.aggregate_metrics`), by name of a model.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib import figure

from hbt.evaluation import bias, plots, results

SHARES = {float(k): f'own_share@{k}' for k in bias.SHARE_CUTOFFS}  # cut-off -> metric
Trees = Mapping[str, Mapping[str, dict]]


def draw_result(result: results.Result, metric: str) -> dict[str, figure.Figure]:
    """Name -> figure of an evaluation: `metric` of its pairs, and its bias, where it has these."""
    numbers = result.numbers
    pairs = list_pairs(result.languages, numbers['pairs'])
    drawings = {metric: draw_pairs({'': numbers['pairs']}, pairs, metric, metric)}
    own_share = draw_own_share({'own language': numbers['metrics']}, numbers)
    return drawings | ({'own_share': own_share} if own_share else {})


def list_pairs(languages: Sequence[str], tree: Mapping[str, dict]) -> list[tuple[str, str]]:
    """Ordered pairs (query language, document language) that have queries."""
    return [(x, y) for x in languages for y in languages if f'{x}-{y}' in tree]


def pair_sides(pairs: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Languages of queries, and of documents, of some pairs."""
    return list(dict.fromkeys(x for x, _ in pairs)), sorted({y for _, y in pairs})


def make_grid(values: Mapping[str, float], rows, columns) -> Float[np.ndarray, 'r c']:
    """The numbers of pairs `X-C`, X down and C across; NaN where there is none."""
    return np.array([[values.get(f'{x}-{y}', np.nan) for y in columns] for x in rows], float)


def make_heatmaps(trees: Trees, metric: str, rows, columns) -> list[plots.HeatMap]:
    """A map of every model, of a metric of pairs."""
    maps = []
    for label, tree in trees.items():
        values = {pair: row[metric] for pair, row in tree.items() if metric in row}
        maps.append(plots.HeatMap(label, make_grid(values, rows, columns)))
    return maps


def draw_pairs(
    trees: Trees, pairs: Sequence[tuple[str, str]], metric: str, label: str
) -> figure.Figure:
    """The metric of every pair of languages, called `label`; `trees` are `pairs` of results."""
    rows, columns = pair_sides(pairs)
    return plots.draw_heatmaps(make_heatmaps(trees, metric, rows, columns), rows, columns, label)


def draw_own_share(trees: Trees, numbers: dict) -> figure.Figure | None:
    """Share of the query's own language in the first k; None where that was not measured.

    `trees` are `metrics` of results, `numbers` those of any of them: their corpus is the same.
    """
    lines = {}
    for label, tree in trees.items():
        shares = tree.get('multi', {})
        points = {k: 100 * shares[name] for k, name in SHARES.items() if name in shares}
        if points:
            lines[label] = plots.Line([*points], [*points.values()])
    if not lines:
        return None
    documents = [numbers['manifest']['documents'].get(x, 0) for x in numbers['languages']]
    fair = 100 * float(np.mean([n / sum(documents) for n in documents]))
    depths = [k for line in lines.values() for k in line.x]
    ends = [min(depths), max(depths)]
    lines['share of a language in the corpus'] = plots.Line(ends, [fair, fair], guide=True)
    heading = 'documents in the language of the query'
    return plots.draw_curves([plots.Curves(heading, lines, 'first k documents', '%', True)])
