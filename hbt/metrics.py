"""Retrieval metrics from the ranks of the relevant documents alone.

Hides the definitions (trec_eval's) and how they are averaged over queries, language pairs and
languages. `ranks[q, r]` are 1-based; 0 is padding, or a document outside the searched corpus.
A query without any relevant document scores NaN, and `mean` passes over it.
Called by `hbt.evaluate`.
"""

import functools
import math
from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

Ranks = Int[Array | np.ndarray, 'q r']
Row = dict[str, float | int]  # metric -> mean over `queries` of them


def average_precision(ranks: Ranks, k: int | None = None) -> Float[Array, ' q']:
    """Mean of the precisions at the relevant ranks up to k, over all relevant documents.

    The divisor is their number also where k is smaller, as in trec_eval's `map_cut`.
    """
    ordered = jnp.sort(_within(ranks, k), axis=1)  # q r
    nth = jnp.arange(1, ranks.shape[1] + 1, dtype=jnp.float32)
    return (nth[None] / ordered).sum(axis=1) / _relevant(ranks)


def reciprocal_rank(ranks: Ranks, k: int | None = None) -> Float[Array, ' q']:
    """One over the rank of the first relevant document; 0 where that is beyond k."""
    return jnp.where(_relevant(ranks) > 0, 1.0 / _within(ranks, k).min(axis=1), jnp.nan)


def recall(ranks: Ranks, k: int) -> Float[Array, ' q']:
    """Share of the relevant documents that are among the first k."""
    return _float(jnp.isfinite(_within(ranks, k)).sum(axis=1)) / _relevant(ranks)


def ndcg(ranks: Ranks, k: int) -> Float[Array, ' q']:
    """Discounted cumulative gain at k with gains 0 and 1, over that of the best ranking."""
    gain = (1.0 / jnp.log2(1.0 + _within(ranks, k))).sum(axis=1)
    best = jnp.cumsum(1.0 / jnp.log2(2.0 + jnp.arange(k, dtype=jnp.float32)))  # k
    relevant = _relevant(ranks)
    ideal = best[jnp.clip(relevant.astype(jnp.int32), 1, k) - 1]
    return jnp.where(relevant > 0, gain / ideal, jnp.nan)


def rank_distance(ranks: Ranks) -> Float[Array, ' q']:
    """Language bias: the last minus the first rank of the relevant documents, in documents."""
    distance = _float(ranks).max(axis=1) - _within(ranks).min(axis=1)
    return jnp.where(_relevant(ranks) > 0, distance, jnp.nan)


def mean(values: Float[Array | np.ndarray, '...']) -> float:
    """Mean in float64 of the values that are not NaN; NaN if all are."""
    kept = np.asarray(values, np.float64)
    kept = kept[~np.isnan(kept)]
    return float(kept.mean()) if kept.size else math.nan


def summarise(
    own: Ranks,
    pooled: Ranks,
    query_language: list[str],
    relevant_language: Shaped[np.ndarray, 'q r'],
    languages: list[str],
) -> dict[str, dict]:
    """Every number of the evaluation protocol (arXiv 2408.10536) as one JSON-ready tree.

    `own` ranks a relevant document within the corpus of its language, `pooled` in the union
    of all corpora; `relevant_language` names that language (any value where the rank is 0).

    Pair X-C: the queries of language X, with their relevant documents in language C; a query
    without one is dropped, not counted as 0, and `queries` says how many are left.
      metrics    mono, cross: means over the pairs X-X, and over the ordered pairs X-C, C != X;
                 multi: mean over the query languages, on the pooled ranks, with `rank_distance`
      languages  the same three for the queries of one language
      pairs      'X-C' -> metrics and `queries`
    What no query can answer is left out, so that no NaN is in the tree.
    """
    query_language = np.asarray(query_language)
    multi = _by_language(pooled, query_language, languages, SCORES | BIAS)
    found = {
        language: _by_language(
            np.where(relevant_language == language, own, 0), query_language, languages, SCORES
        )
        for language in languages
    }
    pairs = {(x, c): found[c][x] for x in languages for c in languages if x in found[c]}

    def settings(queries: list[str]) -> dict[str, Row]:
        chosen = {
            'mono': [row for (x, c), row in pairs.items() if x in queries and x == c],
            'cross': [row for (x, c), row in pairs.items() if x in queries and x != c],
            'multi': [row for x, row in multi.items() if x in queries],
        }
        return {setting: _average(rows) for setting, rows in chosen.items() if rows}

    each = {x: settings([x]) for x in languages}
    return {
        'metrics': settings(languages),
        'languages': {x: tree for x, tree in each.items() if tree},
        'pairs': {f'{x}-{c}': row for (x, c), row in pairs.items()},
    }


def _by_language(
    ranks: Ranks,
    query_language: Shaped[np.ndarray, ' q'],
    languages: list[str],
    scores: Mapping[str, Callable[[Ranks], Float[Array, ' q']]],
) -> dict[str, Row]:
    """Means over the queries of each language, where any of them has a relevant document."""
    answerable = np.asarray(ranks > 0).any(axis=1)
    values = {name: np.asarray(score(ranks)) for name, score in scores.items()}
    table = {}
    for language in languages:
        rows = answerable & (query_language == language)
        if rows.any():
            means = {name: mean(value[rows]) for name, value in values.items()}
            table[language] = {'queries': int(rows.sum())} | means
    return table


def _average(rows: list[Row]) -> Row:
    """Macro-average: each row counts once, however many queries it has."""
    names = [name for name in rows[0] if name != 'queries']
    return {name: float(np.mean([row[name] for row in rows])) for name in names}


def _within(ranks: Ranks, k: int | None = None) -> Float[Array, 'q r']:
    """The ranks up to k; padding and the rest at infinity, where they add nothing to a sum."""
    found = (ranks > 0) if k is None else (ranks > 0) & (ranks <= k)
    return jnp.where(found, _float(ranks), jnp.inf)


def _relevant(ranks: Ranks) -> Float[Array, ' q']:
    return _float((ranks > 0).sum(axis=1))


def _float(x: Array | np.ndarray) -> Array:
    return jnp.asarray(x, jnp.float32)


SCORES = {
    'map': average_precision,
    'mrr': reciprocal_rank,
    'recall@1': functools.partial(recall, k=1),
    'recall@10': functools.partial(recall, k=10),
}
BIAS = {'rank_distance': rank_distance}
