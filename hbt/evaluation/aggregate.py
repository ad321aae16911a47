"""Every number of an evaluation: from ranks to values per query, and from these to one tree.

Hides the three settings and how values are averaged over queries, languages, pairs and groups of
languages. What is known per query is kept, for confidence intervals and tests.
Called by `evaluate` and `report`.
"""

import typing
from collections.abc import Callable, Iterable

import jax
import numpy as np
from jaxtyping import Float, Int

from hbt.evaluation import benchmarks, bias, metrics
from hbt.utils import languages

BLOCK_RANKS = 2**20  # ranks that are looked at together
Row = dict[str, float | int]  # metric -> mean over `queries` of them


class QueryMetrics(typing.NamedTuple):
    """Metric -> its value for every query, NaN where it has none.

    `per_language`: for every corpus language alone; `pooled`: in the union of all corpora.
    """

    per_language: dict[str, Float[np.ndarray, 'q c']]
    pooled: dict[str, Float[np.ndarray, ' q']]


def compute_query_metrics(
    benchmark: benchmarks.Benchmark, own: metrics.Ranks, pooled: metrics.Ranks
) -> QueryMetrics:
    """Every metric of every query, in float64."""
    q, r = own.shape
    size = min(q, max(1, BLOCK_RANKS // max(r, 1)))
    grades = (own > 0).astype(np.int32) if benchmark.grades is None else benchmark.grades
    inputs = own, pooled, benchmark.relevant_languages, grades, benchmark.query_languages
    parts = []
    with jax.enable_x64(True):
        for start in range(0, q, size):
            rows = np.resize(np.arange(start, min(start + size, q)), size)  # one shape
            part = _scored(*(np.asarray(x)[rows] for x in inputs), count=len(benchmark.languages))
            parts.append(jax.tree.map(np.asarray, part))
    return jax.tree.map(lambda *x: np.concatenate(x)[:q], *parts)


def _score(own, pooled, relevant_languages, grades, query_languages, count: int) -> QueryMetrics:
    def scores(language):
        """In the corpus of one language; in the union where it is `count`: compiled once."""
        ranks = jax.numpy.where(relevant_languages == language, own, 0)
        ranks = jax.numpy.where(language < count, ranks, pooled)
        return {
            name: score(ranks, grades=grades) if name in metrics.GRADED_METRICS else score(ranks)
            for name, score in metrics.METRICS.items()
        }

    every = jax.vmap(scores, out_axes=1)(
        jax.numpy.arange(count + 1, dtype=relevant_languages.dtype)
    )
    return QueryMetrics(
        {name: x[:, :count] for name, x in every.items()},
        {name: x[:, count] for name, x in every.items()}
        | {
            'rank_distance': bias.rank_distance(pooled),
            f'peer@{bias.CUTOFF}': bias.peer(pooled, relevant_languages, count),
            'preference': bias.language_preference(pooled, relevant_languages, query_languages),
        },
    )


_scored = jax.jit(_score, static_argnames='count')


def compute_top_k_metrics(
    benchmark: benchmarks.Benchmark,
    queries: Float[np.ndarray, 'q d'],
    documents: Float[np.ndarray, 'n d'],
    top: Int[np.ndarray, 'q k'],
) -> dict[str, Float[np.ndarray, ' q']]:
    """The values that need the first documents, relevant or not, of the pooled ranking."""
    own, corpus = benchmark.query_languages, benchmark.document_languages
    if len(np.unique(corpus)) < 2:
        return {}
    depths = [k for k in bias.SHARE_CUTOFFS if k <= top.shape[1]]
    found = {f'own_share@{k}': bias.own_language_share(top, corpus, own, k) for k in depths}
    if benchmark.parallel is not None:
        best = top[:, : bias.CUTOFF]
        found[f'rank_correlation@{best.shape[1]}'] = bias.rank_correlation(
            queries, documents, best, benchmark.parallel, own
        )
    return found


def aggregate_metrics(benchmark: benchmarks.Benchmark, found: QueryMetrics) -> dict[str, dict]:
    """The protocol of arXiv 2408.10536, and more, as one JSON-ready tree.

    Pair X-C: the queries of language X, with their relevant documents in language C; a query
    without one is dropped, not counted as 0, and `queries` says how many are left.
      metrics    mono, cross: means over the pairs X-X, and over the ordered pairs X-C, C != X;
                 multi: mean over the query languages, on the pooled ranks, with the bias
      languages  the same three for the queries of one language
      scripts    the same three for the query languages of one script
      resources  the same three for the query languages of one class of resources
      families   'A-B' -> means over the pairs X-C, C != X, X of script family A and C of B
      pairs      'X-C' -> metrics and `queries`
    What no query can answer is left out, so that no NaN is in the tree.
    """
    names = benchmark.languages
    rows = {x: benchmark.query_languages == code for code, x in enumerate(names)}
    multi = {x: _row(found.pooled, rows[x]) for x in names}
    pairs = {
        (x, c): _row({name: value[:, code] for name, value in found.per_language.items()}, rows[x])
        for x in names
        for code, c in enumerate(names)
    }
    multi, pairs = ({key: row for key, row in t.items() if row} for t in (multi, pairs))

    def settings(queries: Iterable[str]) -> dict[str, Row]:
        chosen = {
            'mono': [row for (x, c), row in pairs.items() if x in queries and x == c],
            'cross': [row for (x, c), row in pairs.items() if x in queries and x != c],
            'multi': [row for x, row in multi.items() if x in queries],
        }
        return {setting: _average(some) for setting, some in chosen.items() if some}

    def by(kind: Callable[[str], str]) -> dict[str, dict[str, Row]]:
        groups = {value: [x for x in names if kind(x) == value] for value in map(kind, names)}
        trees = {value: settings(group) for value, group in sorted(groups.items())}
        return {value: tree for value, tree in trees.items() if tree}

    family = languages.family
    families = sorted({f'{family(x)}-{family(c)}' for x, c in pairs if x != c})
    return {
        'metrics': settings(names),
        'languages': by(str),
        'scripts': by(languages.script),
        'resources': by(languages.resources),
        'families': {
            name: _average(
                [
                    row
                    for (x, c), row in pairs.items()
                    if x != c and f'{family(x)}-{family(c)}' == name
                ]
            )
            for name in families
        },
        'pairs': {f'{x}-{c}': row for (x, c), row in pairs.items()},
    }


def _row(scores: dict[str, np.ndarray], rows: np.ndarray) -> Row:
    """Means over the queries that have a relevant document; nothing if none has."""
    answerable = rows & ~np.isnan(scores['map'])
    if not answerable.any():
        return {}
    means = {name: metrics.mean_defined(value[answerable]) for name, value in scores.items()}
    known = {name: value for name, value in means.items() if not np.isnan(value)}
    return {'queries': int(answerable.sum())} | known


def _average(rows: list[Row]) -> Row:
    """Macro-average: each row counts once, however many queries it has."""
    named = dict.fromkeys(name for row in rows for name in row if name != 'queries')
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in named}
