"""Language bias of one pooled ranking over the corpora of all languages, which are codes."""

import types
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erfc, gammaln, xlogy
from jaxtyping import Array, Float, Int

from hbt.evaluation import metrics

AnyArray = Array | np.ndarray
Languages = Int[AnyArray, 'q r']  # of the relevant documents
SHARE_CUTOFFS = (1, 5, 10, 20, 50, 100)  # of the share of the query's own language
CUTOFF = 20  # of PEER and of rank correlation, as in MIMO (arXiv 2605.31171)
BLOCK_ELEMENTS = 2**24  # of document embeddings that are compared at a time: 64 MiB


def rank_distance(ranks: metrics.Ranks) -> Float[Array, ' q']:
    """Last minus first rank of the relevant documents, NaN unless all are ranked (2408.10536)."""
    last = jnp.asarray(ranks, float).max(axis=1, initial=0.0)
    first = metrics.ranks_within(ranks).min(axis=1, initial=jnp.inf)
    complete = (metrics.count_relevant(ranks) > 0) & (last < metrics.UNRANKED)
    return jnp.where(complete, last - first, jnp.nan)


def language_preference(
    ranks: metrics.Ranks, relevant_languages: Languages, query_languages: Int[AnyArray, ' q']
) -> Float[Array, ' q']:
    """1 where the first relevant document is in the query's language, else 0.

    Its mean is the language preference rate (MLAIRE, arXiv 2605.07249). NaN unless documents in
    the query's language and in another one are relevant, and at least one of them is ranked.
    """
    same = relevant_languages == query_languages[:, None]
    own, other = (ranks > 0) & same, (ranks > 0) & ~same
    finite = metrics.ranks_within(ranks)
    first = finite.min(axis=1, initial=jnp.inf)
    first_own = jnp.where(own, finite, jnp.inf).min(axis=1, initial=jnp.inf)
    defined = own.any(axis=1) & other.any(axis=1) & jnp.isfinite(first)
    return jnp.where(defined, jnp.asarray(first_own == first, float), jnp.nan)


def peer(
    ranks: metrics.Ranks,
    relevant_languages: Languages,
    num_languages: int,
    k: int = CUTOFF,
    grades: Int[AnyArray, 'q r'] | None = None,
    weights: Mapping[int, float] = types.MappingProxyType({1: 1.0}),
) -> Float[Array, ' q']:
    """PEER at k (Yang et al., SIGIR 2024, arXiv 2405.00978): 1 is fair, near 0 is biased.

    For each grade, the p-value of the Kruskal-Wallis test that the ranks of its documents come
    from one distribution in all languages; then their weighted sum. Documents beyond the first k
    share one rank. 1 where no document is among the first k, where only one language is relevant,
    and where all ranks are equal. Without `grades`, all are 1; `weights` are by grade.
    """
    grades = jnp.asarray(jnp.asarray(ranks) > 0, jnp.int32) if grades is None else grades
    total = sum(
        jnp.where((member := (ranks > 0) & (grades == grade)).any(axis=1), weight, 0.0)
        * _kruskal_wallis(jnp.asarray(ranks), member, relevant_languages, num_languages, k)
        for grade, weight in weights.items()
    )
    return jnp.where(metrics.count_relevant(ranks) > 0, total, jnp.nan)


def _kruskal_wallis(ranks, member, relevant_languages, num_languages: int, k: int) -> Array:
    """P-value of the Kruskal-Wallis test of the members' ranks by language."""

    def total(x, mask):
        return jnp.where(mask, x, 0.0).sum(axis=1, keepdims=True)

    ranks, ones = jnp.asarray(ranks, float), jnp.ones(ranks.shape, float)
    relevant_languages = jnp.asarray(relevant_languages)
    beyond = member & (ranks > k)
    size = total(ones, member)
    ranks = jnp.where(beyond, (2 * size + total(ones, beyond) + 1) / 2, ranks)
    mean = total(ranks, member) / size
    within = total((ranks - mean) ** 2, member)

    def between_part(language):
        """Part of a language in the sum of squares between languages, and whether it occurs."""
        mask = member & (relevant_languages == language)
        count = total(ones, mask)
        return total(ranks - mean, mask) ** 2 / jnp.maximum(count, 1), jnp.asarray(count > 0, float)

    codes = jnp.arange(num_languages, dtype=relevant_languages.dtype)
    between, samples = (x.sum(axis=0) for x in jax.vmap(between_part)(codes))
    statistic = (size - 1) * between / jnp.where(within > 0, within, 1.0)
    p = _chi_squared_tail(statistic, jnp.maximum(samples - 1, 1), num_languages)
    fair = (samples < 2) | (total(ones, beyond) == size) | (within == 0)
    return jnp.where(fair, 1.0, p)[:, 0]


def _chi_squared_tail(x: Float[Array, 'q 1'], freedom: Float[Array, 'q 1'], limit: int) -> Array:
    """Probability of more than x, for whole degrees of freedom up to `limit`."""
    # This finite sum compiles in a fraction of the second and a half that `gammaincc` takes.
    odd = freedom % 2
    order = odd / 2 + jnp.asarray(jnp.arange(limit // 2 + 1), x.dtype)[None]  # q k
    terms = jnp.exp(xlogy(order, x / 2) - x / 2 - gammaln(order + 1))
    inside = order < (freedom - 0.5) / 2
    first = jnp.where(odd > 0, erfc(jnp.sqrt(x / 2)), 0.0)
    return first + jnp.where(inside, terms, 0.0).sum(axis=1, keepdims=True)


def rank_correlation(
    queries: Float[np.ndarray, 'q d'],
    documents: Float[np.ndarray, 'n d'],
    top_k: Int[np.ndarray, 'q k'],
    parallel: Int[np.ndarray, ' q'],
    query_languages: Int[np.ndarray, ' q'],
) -> Float[np.ndarray, ' q']:
    """Mean Spearman correlation of a query's ranking with those of its translations.

    Its mean is MRC at k (Yang, Jiang and Baldwin, MRL 2024, arXiv 2509.06195), each pair on the
    documents that are among the first k of either, as in MIMO (arXiv 2605.31171). `top_k` are
    indices, then -1; `parallel` is equal for translations; a query with -1 or without any is NaN.
    """
    correlations = np.full(len(queries), np.nan)
    members = _translation_groups(parallel)
    if not members.size:
        return correlations
    size, width = members.shape
    depth = width * top_k.shape[1]  # documents of a group, at most
    if documents.size > BLOCK_ELEMENTS:
        size = min(size, max(1, BLOCK_ELEMENTS // (depth * queries.shape[1])))
    for start in range(0, len(members), size):
        block = np.full((size, width), -1)  # one shape
        block[: len(members) - start] = members[start : start + size]
        lists = np.where(block[:, :, None] >= 0, top_k[block], -1)  # g m k
        listed = np.unique(lists[lists >= 0])
        vectors = np.zeros((min(len(documents), depth * size), queries.shape[1]), np.float32)
        vectors[: len(listed)] = documents[listed]
        means = _correlate(
            np.asarray(queries[block], np.float32),
            vectors,
            np.where(lists >= 0, np.searchsorted(listed, lists), -1),
            np.where(block >= 0, query_languages[block], -1),
        )
        correlations[block[block >= 0]] = np.asarray(means)[block >= 0]
    return correlations


def _translation_groups(parallel: Int[np.ndarray, ' q']) -> Int[np.ndarray, 'g m']:
    """The queries of every group of translations, then -1."""
    rows = np.flatnonzero(parallel >= 0)
    rows = rows[np.argsort(parallel[rows], kind='stable')]
    sizes = np.unique(parallel[rows], return_counts=True)[1]
    members = np.full((len(sizes), sizes.max(initial=0)), -1)
    members[np.arange(members.shape[1]) < sizes[:, None]] = rows
    return members


@jax.jit
def _correlate(queries, documents, lists, query_languages) -> Float[Array, 'g m']:
    """For each member of a group of translations, the mean over those in other languages."""
    a, b = np.triu_indices(query_languages.shape[1], 1)

    def correlate_group(group):
        """One at a time: what it gathers stays in the cache."""
        queries, lists, codes = group  # m d; m k; m
        nearest = documents[jnp.maximum(lists, 0)]
        scores = jnp.einsum('md,okd->mok', queries, nearest, precision=jax.lax.Precision.HIGHEST)
        values = jax.vmap(correlate_pair, (None, None, None, 0, 0))(scores, lists, codes, a, b)
        totals, counts = jnp.zeros((2, *codes.shape), values.dtype)
        for ends in (a, b):
            totals = totals.at[ends].add(jnp.where(jnp.isfinite(values), values, 0.0))
            counts = counts.at[ends].add(jnp.isfinite(values).astype(values.dtype))
        return totals / counts

    def correlate_pair(scores, lists, codes, a, b):
        """Of members a and b of one group: scores m m k; lists m k."""
        repeated = (lists[b][:, None] == lists[a][None]).any(axis=1)
        mask = jnp.concatenate([lists[a] >= 0, (lists[b] >= 0) & ~repeated])
        x = jnp.concatenate([scores[a, a], scores[a, b]])
        y = jnp.concatenate([scores[b, a], scores[b, b]])
        defined = (codes[a] >= 0) & (codes[b] >= 0) & (codes[a] != codes[b])
        return jnp.where(defined, _spearman(x, y, mask), jnp.nan)

    return jax.lax.map(correlate_group, (queries, lists, query_languages))


def _spearman(x: Float[Array, ' n'], y: Float[Array, ' n'], mask) -> Float[Array, '']:
    """Rank correlation under the mask, equal values sharing their mean rank; NaN for constants."""

    def centre(x):
        """Twice the rank, less its mean: how many are smaller, less how many are greater."""
        signs = jnp.sign(x[:, None] - x[None])
        return jnp.where(mask, jnp.where(mask[None], signs, 0.0).sum(axis=1), 0.0)

    x, y = centre(x), centre(y)
    return (x * y).sum() / jnp.sqrt((x * x).sum() * (y * y).sum())


def own_language_share(
    top_k: Int[np.ndarray, 'q k'], document_languages, query_languages, k: int
) -> Float[np.ndarray, ' q']:
    """Share of documents in the query's language among the first k (Multi-EuP, 2311.01870)."""
    best = top_k[:, :k]
    return ((document_languages[best] == query_languages[:, None]) & (best >= 0)).mean(axis=1)
