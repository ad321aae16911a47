"""From ranks to the metrics of every query, kept for significance tests, and to their averages."""

import functools
import itertools
import typing
from collections.abc import Callable, Iterable

import jax
import numpy as np
from jaxtyping import Float, Int

from hbt.evaluation import benchmarks, bias, metrics
from hbt.utils import languages

BLOCK_RANKS = 2**20  # ranks whose metrics are computed together
Means = dict[str, float | int]  # metric -> its mean; `queries`: over how many


class QueryMetrics(typing.NamedTuple):
    """Metric -> its value for every query, NaN where it has none."""

    per_language: dict[str, Float[np.ndarray, 'q c']]  # in the corpus of each language alone
    pooled: dict[str, Float[np.ndarray, ' q']]  # in the union of all corpora


def compute_query_metrics(
    benchmark: benchmarks.Benchmark, per_language_ranks: metrics.Ranks, pooled_ranks: metrics.Ranks
) -> QueryMetrics:
    """Every metric of every query, in float64, from the ranks of a `search.SearchResult`."""
    q, r = pooled_ranks.shape
    size = min(q, max(1, BLOCK_RANKS // max(r, 1)))
    grades = (pooled_ranks > 0).astype(np.int32) if benchmark.grades is None else benchmark.grades
    codes = benchmark.relevant_languages, benchmark.query_languages
    inputs = per_language_ranks, pooled_ranks, grades, *codes
    blocks = []
    with jax.enable_x64(True):
        for start in range(0, q, size):
            rows = np.resize(np.arange(start, min(start + size, q)), size)  # one shape
            values = _score_block(*(x[rows] for x in inputs), len(benchmark.languages))
            blocks.append(jax.tree.map(np.asarray, values))
    return jax.tree.map(lambda *x: np.concatenate(x)[:q], *blocks)


@functools.partial(jax.jit, static_argnames='num_languages')
def _score_block(
    per_language_ranks, pooled_ranks, grades, relevant_languages, query_languages, num_languages
) -> QueryMetrics:
    def score_corpus(language):
        """In the corpus of one language; of `num_languages`: in the union. Compiled once."""
        ranks = jax.numpy.where(relevant_languages == language, per_language_ranks, 0)
        ranks = jax.numpy.where(language < num_languages, ranks, pooled_ranks)
        return {
            name: score(ranks, grades=grades) if name in metrics.GRADED_METRICS else score(ranks)
            for name, score in metrics.METRICS.items()
        }

    codes = jax.numpy.arange(num_languages + 1, dtype=relevant_languages.dtype)
    values = jax.vmap(score_corpus, out_axes=1)(codes)
    known = jax.numpy.where(relevant_languages >= 0, pooled_ranks, 0)  # of a known language
    pooled = {
        'rank_distance': bias.rank_distance(pooled_ranks),
        f'peer@{bias.CUTOFF}': bias.peer(known, relevant_languages, num_languages),
        'preference': bias.language_preference(known, relevant_languages, query_languages),
    }
    return QueryMetrics(
        {name: x[:, :num_languages] for name, x in values.items()},
        {name: x[:, num_languages] for name, x in values.items()} | pooled,
    )


def compute_top_k_metrics(
    benchmark: benchmarks.Benchmark,
    queries: Float[np.ndarray, 'q d'],
    documents: Float[np.ndarray, 'n d'],
    top_k: Int[np.ndarray, 'q k'],
) -> dict[str, Float[np.ndarray, ' q']]:
    """The metrics that need the best documents, relevant or not, of the pooled ranking."""
    codes = benchmark.document_languages, benchmark.query_languages
    if len(np.unique(benchmark.document_languages)) < 2:
        return {}
    cutoffs = [k for k in bias.SHARE_CUTOFFS if k <= top_k.shape[1]]
    values = {f'own_share@{k}': bias.own_language_share(top_k, *codes, k) for k in cutoffs}
    if benchmark.parallel is not None:
        best = top_k[:, : bias.CUTOFF]
        values[f'rank_correlation@{best.shape[1]}'] = bias.rank_correlation(
            queries, documents, best, benchmark.parallel, benchmark.query_languages
        )
    return values


def aggregate_metrics(benchmark: benchmarks.Benchmark, values: QueryMetrics) -> dict[str, dict]:
    """The averages of arXiv 2408.10536, and more, as one JSON-ready tree.

    Pair X-C: the queries of language X, with their relevant documents in language C; a query
    without one is dropped, not counted as 0, and `queries` says how many are left.
      metrics    mono, cross: means over the pairs X-X, and over the ordered pairs X-C, C != X;
                 multi: mean over the query languages, on the pooled ranks, with the bias
      languages, scripts, resources: the same three for the query languages of each value
      families   'A-B' -> means over the pairs X-C, C != X, X of script family A and C of B
      pairs      'X-C' -> metrics and `queries`
    What no query can answer is left out, so that no NaN is in the tree.
    """
    names = benchmark.languages
    masks = {x: benchmark.query_languages == code for code, x in enumerate(names)}
    multi = {x: _mean_queries(values.pooled, mask) for x, mask in masks.items()}
    pairs = {}
    for (x, mask), (code, c) in itertools.product(masks.items(), enumerate(names)):
        columns = {name: column[:, code] for name, column in values.per_language.items()}
        pairs[x, c] = _mean_queries(columns, mask)
    multi, pairs = ({key: row for key, row in t.items() if row} for t in (multi, pairs))

    def average_settings(query_languages: Iterable[str]) -> dict[str, Means]:
        rows = {
            'mono': [row for (x, c), row in pairs.items() if x in query_languages and x == c],
            'cross': [row for (x, c), row in pairs.items() if x in query_languages and x != c],
            'multi': [row for x, row in multi.items() if x in query_languages],
        }
        return {setting: _macro_average(x) for setting, x in rows.items() if x}

    def average_by(kind: Callable[[str], str]) -> dict[str, dict[str, Means]]:
        members = {value: [x for x in names if kind(x) == value] for value in map(kind, names)}
        trees = {value: average_settings(xs) for value, xs in sorted(members.items())}
        return {value: tree for value, tree in trees.items() if tree}

    families = {}
    for (x, c), row in pairs.items():
        if x != c:
            key = f'{languages.script_family(x)}-{languages.script_family(c)}'
            families.setdefault(key, []).append(row)
    return {
        'metrics': average_settings(names),
        'languages': average_by(str),
        'scripts': average_by(languages.script),
        'resources': average_by(languages.resource_class),
        'families': {name: _macro_average(rows) for name, rows in sorted(families.items())},
        'pairs': {f'{x}-{c}': row for (x, c), row in pairs.items()},
    }


def _mean_queries(values: dict[str, np.ndarray], mask: np.ndarray) -> Means:
    """Means over the masked queries that have a relevant document; nothing if none has."""
    answerable = mask & ~np.isnan(values['map'])
    if not answerable.any():
        return {}
    means = {name: metrics.mean_defined(x[answerable]) for name, x in values.items()}
    defined = {name: x for name, x in means.items() if not np.isnan(x)}
    return {'queries': int(answerable.sum())} | defined


def _macro_average(rows: list[Means]) -> Means:
    """Each row counts once, however many queries it has."""
    names = dict.fromkeys(name for row in rows for name in row if name != 'queries')
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}
