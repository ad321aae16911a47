"""Retrieval metrics from the ranks of the relevant documents alone, defined as in trec_eval.

`ranks[q, r]` are 1-based; 0 is padding, or a document outside the corpus; UNRANKED is a relevant
document that the ranking lacks. A query without relevant documents scores NaN. Sums are in the
widest float that is enabled.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

Ranks = Int[Array | np.ndarray, 'q r']
UNRANKED = np.iinfo(np.int32).max


def average_precision(ranks: Ranks, k: int | None = None) -> Float[Array, ' q']:
    """Mean of the precisions at the relevant ranks up to k, over all relevant documents.

    The divisor is their number also where k is smaller, as in trec_eval's `map_cut`.
    """
    ordered = jnp.sort(ranks_within(ranks, k), axis=1)  # q r
    nth = _float(jnp.arange(1, ranks.shape[1] + 1))
    return (nth[None] / ordered).sum(axis=1) / count_relevant(ranks)


def reciprocal_rank(ranks: Ranks, k: int | None = None) -> Float[Array, ' q']:
    """One over the rank of the first relevant document; 0 where that is beyond k."""
    return _if_answerable(ranks, 1.0 / ranks_within(ranks, k).min(axis=1, initial=jnp.inf))


def recall(ranks: Ranks, k: int) -> Float[Array, ' q']:
    """Share of the relevant documents that are among the first k."""
    return _float(jnp.isfinite(ranks_within(ranks, k)).sum(axis=1)) / count_relevant(ranks)


def success(ranks: Ranks, k: int) -> Float[Array, ' q']:
    """1 where a relevant document is among the first k, else 0."""
    return _if_answerable(ranks, _float(jnp.isfinite(ranks_within(ranks, k)).any(axis=1)))


def r_precision(ranks: Ranks) -> Float[Array, ' q']:
    """Share of relevant documents among the first R, R being their number."""
    count = count_relevant(ranks)
    return _float((ranks_within(ranks) <= count[:, None]).sum(axis=1)) / count


def ndcg(
    ranks: Ranks, k: int | None = None, grades: Num[Array | np.ndarray, 'q r'] | None = None
) -> Float[Array, ' q']:
    """Discounted cumulative gain at k, over that of the best ranking: trec_eval's `ndcg_cut`.

    `grades` are the gains of the documents, which rank i divides by log2(1 + i); None: all are 1.
    """
    gains = _float(ranks > 0) if grades is None else jnp.where(ranks > 0, _float(grades), 0.0)
    best = -jnp.sort(-gains, axis=1)[:, :k]
    discounts = jnp.log2(_float(jnp.arange(best.shape[1])) + 2.0)
    gain = (gains / jnp.log2(1.0 + ranks_within(ranks, k))).sum(axis=1)
    return _if_answerable(ranks, gain / (best / discounts[None]).sum(axis=1))


def mean_defined(values: Float[Array | np.ndarray, '...']) -> float:
    """Mean in float64 of the values that are not NaN; NaN if all are."""
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else math.nan


def count_relevant(ranks: Ranks) -> Float[Array, ' q']:
    """Number of relevant documents of each query."""
    return _float((ranks > 0).sum(axis=1))


def ranks_within(ranks: Ranks, k: int | None = None) -> Float[Array, 'q r']:
    """The ranks up to k; padding and the rest at infinity, where they add nothing to a sum."""
    ranked = (ranks > 0) & (ranks <= (UNRANKED - 1 if k is None else k))
    return jnp.where(ranked, _float(ranks), jnp.inf)


def _if_answerable(ranks: Ranks, values: Float[Array, ' q']) -> Float[Array, ' q']:
    """NaN for a query without a relevant document."""
    return jnp.where(count_relevant(ranks) > 0, values, jnp.nan)


def _float(x: Array | np.ndarray) -> Array:
    return jnp.asarray(x, float)


METRICS = {  # reported in every setting
    'map': average_precision,
    'map@10': functools.partial(average_precision, k=10),
    'mrr': reciprocal_rank,
    'mrr@10': functools.partial(reciprocal_rank, k=10),
    'mrr@100': functools.partial(reciprocal_rank, k=100),
    'ndcg@10': functools.partial(ndcg, k=10),
    'recall@1': functools.partial(recall, k=1),
    'recall@5': functools.partial(recall, k=5),
    'recall@10': functools.partial(recall, k=10),
    'recall@100': functools.partial(recall, k=100),
    'success@1': functools.partial(success, k=1),
    'success@10': functools.partial(success, k=10),
    'r_precision': r_precision,
}
GRADED_METRICS = ('ndcg@10',)  # these take grades too
