"""Language bias of one pooled ranking over the corpora of all languages.

Hides five definitions and their sources. `ranks` are those of `metrics`, `languages[q, r]` is the
language code of each relevant document, `asked[q]` that of the query. Called by `summary`.
"""

import types
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erfc, gammaln, xlogy
from jaxtyping import Array, Float, Int

from hbt.evaluation import metrics

Codes = Int[Array | np.ndarray, 'q r']
SHARE_CUTOFFS = (1, 5, 10, 20, 50, 100)  # depths of the curve of the query's own language
CUTOFF = 20  # of PEER and of rank correlation, as in MIMO (arXiv 2605.31171)
BLOCK_ELEMENTS = 2**24  # numbers of documents' embeddings that are compared at a time: 64 MiB


def rank_distance(ranks: metrics.Ranks) -> Float[Array, ' q']:
    """The last minus the first rank of the relevant documents (arXiv 2408.10536, section 4.1).

    NaN where one of them is not ranked: the distance is of whole rankings.
    """
    last = jnp.asarray(ranks, float).max(axis=1, initial=0.0)
    first = jnp.where(ranks > 0, jnp.asarray(ranks, float), jnp.inf).min(axis=1, initial=jnp.inf)
    whole = (metrics.count_relevant(ranks) > 0) & (last < metrics.UNRANKED)
    return jnp.where(whole, last - first, jnp.nan)


def language_preference(
    ranks: metrics.Ranks, languages: Codes, asked: Int[Array | np.ndarray, ' q']
) -> Float[Array, ' q']:
    """1 where the first relevant document is of the query's language, else 0.

    Its mean is the language preference rate (MLAIRE, arXiv 2605.07249). NaN unless documents of
    the query's language and of another one are relevant, and one of all is ranked.
    """
    mine = (ranks > 0) & (languages == asked[:, None])
    others = (ranks > 0) & (languages != asked[:, None])
    found = jnp.where(metrics.is_ranked(ranks), jnp.asarray(ranks, float), jnp.inf)
    first = found.min(axis=1, initial=jnp.inf)
    own = jnp.where(mine, found, jnp.inf).min(axis=1, initial=jnp.inf)
    known = mine.any(axis=1) & others.any(axis=1) & jnp.isfinite(first)
    return jnp.where(known, jnp.asarray(own == first, float), jnp.nan)


def peer(
    ranks: metrics.Ranks,
    languages: Codes,
    count: int,
    k: int = CUTOFF,
    grades: Int[Array | np.ndarray, 'q r'] | None = None,
    weights: Mapping[int, float] = types.MappingProxyType({1: 1.0}),
) -> Float[Array, ' q']:
    """PEER at k (Yang et al., SIGIR 2024, arXiv 2405.00978): 1 is fair, near 0 is biased.

    Of each grade, the p-value of Kruskal and Wallis' test that the ranks of its documents come
    from one distribution in all of `count` languages; then their weighted sum. Only documents in
    the first k have ranks of their own, the others share one beyond these. 1 where nothing is in
    the first k, where only one language is relevant, and where all ranks are equal.
    """
    grades = jnp.asarray(jnp.asarray(ranks) > 0, jnp.int32) if grades is None else grades
    total = sum(
        jnp.where((member := (ranks > 0) & (grades == grade)).any(axis=1), weight, 0.0)
        * _kruskal(jnp.asarray(ranks), member, languages, count, k)
        for grade, weight in weights.items()
    )
    return jnp.where(metrics.count_relevant(ranks) > 0, total, jnp.nan)


def _kruskal(ranks: metrics.Ranks, member, languages: Codes, count: int, k: int) -> Array:
    """Kruskal and Wallis' p-value of the members' ranks by language, as in `peer_measure`."""

    def total(x, where):
        return jnp.where(where, x, 0.0).sum(axis=1, keepdims=True)

    ranks, ones = jnp.asarray(ranks, float), jnp.ones(ranks.shape, float)
    languages = jnp.asarray(languages)
    missing = member & (ranks > k)
    size = total(ones, member)
    beyond = (2 * size + total(ones, missing) + 1) / 2
    ranks = jnp.where(missing, beyond, ranks)
    mean = total(ranks, member) / size
    within = total((ranks - mean) ** 2, member)

    def one(language):
        """Its part of the sum of squares between the languages, and whether it is there."""
        mine = member & (languages == language)
        own = total(ones, mine)
        squared = total(ranks - mean, mine) ** 2 / jnp.maximum(own, 1)
        return squared, jnp.asarray(own > 0, float)

    between, groups = (
        x.sum(axis=0) for x in jax.vmap(one)(jnp.arange(count, dtype=languages.dtype))
    )
    statistic = (size - 1) * between / jnp.where(within > 0, within, 1.0)
    p = _chi_squared(statistic, jnp.maximum(groups - 1, 1), count)
    fair = (groups < 2) | (total(ones, missing) == size) | (within == 0)
    return jnp.where(fair, 1.0, p)[:, 0]


def _chi_squared(x: Float[Array, 'q 1'], freedom: Float[Array, 'q 1'], most: int) -> Array:
    """Probability of more than x, for whole degrees of freedom up to `most`.

    The finite sum compiles in a fraction of the second and a half that `gammaincc` takes.
    """
    odd = freedom % 2
    order = odd / 2 + jnp.asarray(jnp.arange(most // 2 + 1), x.dtype)[None]  # q k
    terms = jnp.exp(xlogy(order, x / 2) - x / 2 - gammaln(order + 1))
    inside = order < (freedom - 0.5) / 2
    first = jnp.where(odd > 0, erfc(jnp.sqrt(x / 2)), 0.0)
    return first + jnp.where(inside, terms, 0.0).sum(axis=1, keepdims=True)


def rank_correlation(
    queries: Float[np.ndarray, 'q d'],
    documents: Float[np.ndarray, 'n d'],
    top: Int[np.ndarray, 'q k'],
    parallel: Int[np.ndarray, ' q'],
    asked: Int[np.ndarray, ' q'],
) -> Float[np.ndarray, ' q']:
    """Mean Spearman correlation of a query's ranking with those of its translations.

    Its mean is MRC at k (Yang, Jiang and Baldwin, MRL 2024, arXiv 2509.06195), each pair on the
    documents that are among the first k of either, as MIMO does it (arXiv 2605.31171). Queries of
    equal `parallel` are translations; NaN for one that has none (`parallel` -1, or no other).
    """
    out = np.full(len(queries), np.nan)
    rows = np.flatnonzero(parallel >= 0)
    rows = rows[np.argsort(parallel[rows], kind='stable')]
    if not len(rows):
        return out
    starts = np.flatnonzero(np.diff(parallel[rows], prepend=-1))
    members = np.full((len(starts), int(np.diff(starts, append=len(rows)).max())), -1)
    group = np.searchsorted(starts, np.arange(len(rows)), side='right') - 1
    members[group, np.arange(len(rows)) - starts[group]] = rows
    most = members.shape[1] * top.shape[1]  # documents of a group
    size = (
        len(members)
        if documents.size <= BLOCK_ELEMENTS
        else max(1, BLOCK_ELEMENTS // (most * queries.shape[1]))
    )
    for start in range(0, len(members), size):
        some = np.full((min(size, len(members)), members.shape[1]), -1)
        some[: len(members) - start] = members[start : start + size]
        lists = np.where(some[:, :, None] >= 0, top[some], -1)  # g m k
        known = np.unique(lists[lists >= 0])
        held = np.zeros((min(len(documents), most * size), queries.shape[1]), np.float32)
        held[: len(known)] = documents[known]
        found = _correlations(
            np.asarray(queries[some], np.float32),
            held,
            np.where(lists >= 0, np.searchsorted(known, lists), -1),
            np.where(some >= 0, asked[some], -1),
        )
        out[some[some >= 0]] = np.asarray(found)[some >= 0]
    return out


@jax.jit
def _correlations(queries, documents, lists, asked) -> Float[Array, 'g m']:
    """For each member of a group of translations, the mean over those of other languages."""
    a, b = np.triu_indices(asked.shape[1], 1)

    def group(given):
        """One at a time: what it gathers stays in the cache."""
        queries, lists, asked = given  # m d; m k; m
        near = documents[jnp.maximum(lists, 0)]
        scores = jnp.einsum('md,okd->mok', queries, near, precision=jax.lax.Precision.HIGHEST)
        found = jax.vmap(pair, (None, None, None, 0, 0))(scores, lists, asked, a, b)
        totals, counts = jnp.zeros((2, *asked.shape), found.dtype)
        for ends in (a, b):
            totals = totals.at[ends].add(jnp.where(jnp.isfinite(found), found, 0.0))
            counts = counts.at[ends].add(jnp.isfinite(found).astype(found.dtype))
        return totals / counts

    def pair(scores, lists, asked, a, b):
        """Of members a and b of one group: scores m m k; lists m k."""
        again = (lists[b][:, None] == lists[a][None]).any(axis=1)
        kept = jnp.concatenate([lists[a] >= 0, (lists[b] >= 0) & ~again])
        x = jnp.concatenate([scores[a, a], scores[a, b]])
        y = jnp.concatenate([scores[b, a], scores[b, b]])
        known = (asked[a] >= 0) & (asked[b] >= 0) & (asked[a] != asked[b])
        return jnp.where(known, _spearman(x, y, kept), jnp.nan)

    return jax.lax.map(group, (queries, lists, asked))


def _spearman(x: Float[Array, ' n'], y: Float[Array, ' n'], kept) -> Float[Array, '']:
    """Rank correlation where `kept`, equal values sharing their mean rank; NaN for constants."""

    def centred(x):
        """Twice the rank, less its mean: how many are smaller, less how many are greater."""
        signs = jnp.sign(x[:, None] - x[None])
        return jnp.where(kept, jnp.where(kept[None], signs, 0.0).sum(axis=1), 0.0)

    x, y = centred(x), centred(y)
    return (x * y).sum() / jnp.sqrt((x * x).sum() * (y * y).sum())


def own_language_share(
    top: Int[np.ndarray, 'q k'], corpus: Int[np.ndarray, ' n'], asked: Int[np.ndarray, ' q'], k: int
) -> Float[np.ndarray, ' q']:
    """Share of documents of the query's own language among the first k (Multi-EuP, 2311.01870)."""
    best = top[:, :k]
    return ((corpus[best] == asked[:, None]) & (best >= 0)).mean(axis=1)
