"""Pools of groups to draw rows from, and the share of the rows that each is to have.

Hides which groups have which languages, and every rule of composition: languages, pairs and
datasets by size, weight or table, with floors. Called by `sampler`.
"""

import collections
import typing
from collections import abc

import numpy as np
from jaxtyping import Float, Int

from hbt import config
from hbt.data import store
from hbt.utils import settings

CHUNK = 2**20  # groups looked at at a time


class Pool(typing.NamedTuple):
    """Groups of a dataset that have a query in one language and a passage in another."""

    dataset: int
    query_language: int
    passage_language: int
    size: int
    groups: np.ndarray | None  # None: every group but the missing
    missing: np.ndarray  # each less its place here, so that bisection finds how many to skip
    key: int  # of the order in which they are drawn

    @property
    def pair(self) -> tuple[int, int]:
        return self.query_language, self.passage_language

    @property
    def monolingual(self) -> bool:
        return self.query_language == self.passage_language

    def pick(self, places: Int[np.ndarray, ' n']) -> Int[np.ndarray, ' n']:
        """The groups at places 0 ... size - 1 of the pool."""
        if self.groups is not None:
            return self.groups[places]
        return places + np.searchsorted(self.missing, places, side='right')


def find(seed: int, s: store.Store, number: int, languages: tuple[str, ...]) -> abc.Iterator[Pool]:
    """Every pool of a dataset that is not empty.

    A group whose query and passage are the same text is in no pool: nothing is to be learned.
    """
    dataset = s.datasets[number]
    for i, asks in enumerate(languages):
        for j, answers in enumerate(languages):
            if asks in dataset.query and answers in dataset.passage:
                query = dataset.query[asks].hashes[dataset.query_indices]
                passage = dataset.passage[answers].hashes[dataset.passage_indices]
                fit = (query != 0) & (passage != 0) & (query != passage)
                size = int(np.count_nonzero(fit))
                few = 2 * size > len(fit)  # are missing
                groups = None if few else np.flatnonzero(fit).astype(np.int32)
                missing = np.flatnonzero(~fit) if few else np.zeros(0, int)
                sequence = np.random.SeedSequence((seed, 5, number, i, j))
                key = int(sequence.generate_state(1, np.uint64)[0])
                if size:
                    yield Pool(number, i, j, size, groups, missing - np.arange(len(missing)), key)


def dataset_weights(c: config.Sampler, s: store.Store) -> dict[int, float]:
    """Number of a dataset -> weight, of those whose weight is not 0. Without a table, 1."""
    names = [dataset.name for dataset in s.datasets]
    given = settings.parse_weights(c.dataset_weights, 'sampler.dataset_weights', 1)
    for (name,) in given:
        if name not in names:
            known = ', '.join(names)
            raise ValueError(f'sampler.dataset_weights: expected some of {known}, got {name!r}')
    weights = {i: given.get((name,), 1.0) for i, name in enumerate(names)}
    return {i: weight for i, weight in weights.items() if weight}


def mono_shares(
    c: config.Sampler, pools: list[Pool], weights: dict[int, float], languages: tuple[str, ...]
) -> tuple[list[Pool], Float[np.ndarray, ' p']]:
    """The pools of monolingual rows and the share of each; they sum to 1.

    A language in proportion to its size to `language_power` (uniformly in the paper, section 3.2),
    then a dataset that has it, by weight times size to `dataset_power`.
    """
    del languages
    first = {pair: n**c.language_power for pair, n in sizes(pools).items()}
    shares = spread(
        pools, first, lambda p: p.pair, lambda p: weights[p.dataset] * p.size**c.dataset_power
    )
    return pools, floored(shares, pools, c.language_floor, 'sampler.language_floor')


def cross_shares(
    c: config.Sampler, pools: list[Pool], weights: dict[int, float], languages: tuple[str, ...]
) -> tuple[list[Pool], Float[np.ndarray, ' p']]:
    """The pools of cross-lingual rows and the share of each; they sum to 1.

    With `cross_first` 'dataset', a dataset by weight times size to `dataset_power`, then an
    ordered pair of its languages by the table, or by size to `pair_power`. With 'pair', a pair
    first, then a dataset that has it.
    """
    table = pair_table(c, pools, languages)
    pools = [p for p in pools if not table or p.pair in table]

    def of_pair(pool):
        return table[pool.pair] if table else pool.size**c.pair_power

    def of_dataset(pool):
        return weights[pool.dataset] * pool.size**c.dataset_power

    if c.cross_first == 'dataset':
        found = collections.defaultdict(list)
        for pool in pools:
            found[pool.dataset].append(pool)
        first = {i: weights[i] * covered(x) ** c.dataset_power for i, x in found.items()}
        shares = spread(pools, first, lambda p: p.dataset, of_pair)
    else:
        first = table or {pair: n**c.pair_power for pair, n in sizes(pools).items()}
        shares = spread(pools, first, lambda p: p.pair, of_dataset)
    return pools, floored(shares, pools, c.pair_floor, 'sampler.pair_floor')


SHARES = {'mono': mono_shares, 'cross': cross_shares}


def pair_table(
    c: config.Sampler, pools: list[Pool], languages: tuple[str, ...]
) -> dict[tuple[int, int], float]:
    """The weights of `sampler.pairs` by numbers of languages; empty without a table."""
    known = {tuple(languages[i] for i in pool.pair): pool.pair for pool in pools}
    given = settings.parse_weights(c.pairs, 'sampler.pairs', 2)
    for pair in given:
        if pair not in known:
            shown = ', '.join(sorted(':'.join(x) for x in known))
            raise ValueError(
                f'sampler.pairs: expected pairs that rows have ({shown}), got {":".join(pair)}'
            )
    return {known[pair]: weight for pair, weight in given.items() if weight}


def sizes(pools: list[Pool]) -> collections.Counter:
    """Rows of each pair in all datasets."""
    total = collections.Counter()
    for pool in pools:
        total[pool.pair] += pool.size
    return total


def covered(pools: list[Pool]) -> int:
    """Groups of a dataset that are in some of these pools."""
    last = [int(pool.pick(np.array([pool.size - 1]))[0]) for pool in pools]
    if max(pool.size for pool in pools) == max(last) + 1:
        return max(last) + 1
    seen = np.zeros(max(last) + 1, bool)
    for pool in pools:
        for start in range(0, pool.size, CHUNK):
            seen[pool.pick(np.arange(start, min(start + CHUNK, pool.size)))] = True
    return int(np.count_nonzero(seen))


def spread(
    pools: list[Pool], first: dict, outer: abc.Callable, inner: abc.Callable
) -> Float[np.ndarray, ' p']:
    """Weights `first` of what `outer` tells of a pool, divided by the weight `inner` of a pool."""
    weights = np.array([inner(pool) for pool in pools], np.float64)
    totals, whole = collections.Counter(), sum(first.values())
    for pool, weight in zip(pools, weights, strict=True):
        totals[outer(pool)] += weight
    outers = [outer(pool) for pool in pools]
    return weights * [first[x] / whole / totals[x] for x in outers]


def floored(
    shares: Float[np.ndarray, ' p'], pools: list[Pool], floor: float, name: str
) -> Float[np.ndarray, ' p']:
    """Shares after those of a pair, or language, below `floor` were raised to it.

    The others shrink by one factor, and the datasets keep their proportions within a pair.
    """
    before = collections.Counter()
    for pool, share in zip(pools, shares, strict=True):
        before[pool.pair] += share
    n = len(before)
    if floor * n > 1:
        raise ValueError(f'{name}: expected at most {1 / n:.4g}, 1 in {n} of them, got {floor}')
    old = np.array([*before.values()])
    new, low = old, np.zeros(n, bool)
    while (new < floor * (1 - 1e-12)).any():
        low |= new < floor
        new = np.where(low, floor, old * (1 - floor * low.sum()) / old[~low].sum())
    factor = dict(zip(before, new / old, strict=True))
    return shares * [factor[pool.pair] for pool in pools]
