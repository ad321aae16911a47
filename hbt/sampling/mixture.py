"""Pools of groups to draw pairs from, and the proportion of the pairs that each pool gets.

Languages, language pairs and datasets are weighted by size, by factor or by table, with floors.
"""

import collections
import typing
from collections import abc

import numpy as np
from jaxtyping import Float, Int

from hbt import config
from hbt.data import store
from hbt.utils import settings

CHUNK = 2**20  # groups counted at a time


class Pool(typing.NamedTuple):
    """The groups of a dataset that have a query in one language and a passage in another.

    Each of them is a pair that can be drawn.
    """

    dataset: int
    query_language: int
    passage_language: int
    size: int
    groups: np.ndarray | None  # None: every group but the missing
    missing: np.ndarray  # each less its index here, so that bisection finds how many to skip
    key: int  # of the order in which the groups are drawn

    @property
    def languages(self) -> tuple[int, int]:
        """The ordered language pair."""
        return self.query_language, self.passage_language

    @property
    def monolingual(self) -> bool:
        """Whether query and passage have one language."""
        return self.query_language == self.passage_language

    def select_groups(self, indices: Int[np.ndarray, ' n']) -> Int[np.ndarray, ' n']:
        """The groups at indices 0 ... size - 1 of the pool."""
        if self.groups is not None:
            return self.groups[indices]
        return indices + np.searchsorted(self.missing, indices, side='right')


def find_pools(
    seed: int, s: store.Store, number: int, languages: tuple[str, ...]
) -> abc.Iterator[Pool]:
    """Yields the pools of dataset `number` that are not empty.

    A group whose query and passage are the same text is in no pool: nothing is to be learned.
    """
    dataset = s.datasets[number]
    for i, query_language in enumerate(languages):
        for j, passage_language in enumerate(languages):
            if query_language in dataset.query and passage_language in dataset.passage:
                query = dataset.query[query_language].hashes[dataset.query_indices]
                passage = dataset.passage[passage_language].hashes[dataset.passage_indices]
                fit = (query != 0) & (passage != 0) & (query != passage)
                size = int(np.count_nonzero(fit))
                dense = 2 * size > len(fit)
                groups = None if dense else np.flatnonzero(fit).astype(np.int32)
                missing = np.flatnonzero(~fit) if dense else np.zeros(0, int)
                sequence = np.random.SeedSequence((seed, 5, number, i, j))
                key = int(sequence.generate_state(1, np.uint64)[0])
                if size:
                    yield Pool(number, i, j, size, groups, missing - np.arange(len(missing)), key)


def dataset_weights(c: config.Sampler, s: store.Store) -> dict[int, float]:
    """Number of a dataset -> weight, where it is not 0. Those that the setting omits have 1."""
    names = [dataset.name for dataset in s.datasets]
    table = settings.parse_weights(c.dataset_weights, 'sampler.dataset_weights', 1)
    for (name,) in table:
        if name not in names:
            expected = ', '.join(names)
            raise ValueError(f'sampler.dataset_weights: expected some of {expected}, got {name!r}')
    weights = {i: table.get((name,), 1.0) for i, name in enumerate(names)}
    return {i: weight for i, weight in weights.items() if weight}


def _mono_proportions(
    c: config.Sampler, pools: list[Pool], weights: dict[int, float], languages: tuple[str, ...]
) -> tuple[list[Pool], Float[np.ndarray, ' p']]:
    """A language in proportion to its size to `language_power` (uniformly in the paper, section
    3.2), then a dataset that has it, by weight times size to `dataset_power`.
    """
    del languages
    of_language = {pair: n**c.language_power for pair, n in _sizes(pools).items()}
    proportions = _two_stage(
        pools,
        of_language,
        lambda pool: pool.languages,
        lambda pool: weights[pool.dataset] * pool.size**c.dataset_power,
    )
    return pools, _apply_floor(proportions, pools, c.language_floor, 'sampler.language_floor')


def _cross_proportions(
    c: config.Sampler, pools: list[Pool], weights: dict[int, float], languages: tuple[str, ...]
) -> tuple[list[Pool], Float[np.ndarray, ' p']]:
    """With `cross_first` 'dataset', a dataset by weight times size to `dataset_power`, then an
    ordered pair of its languages by the table, or by size to `pair_power`. With 'pair', a language
    pair first, then a dataset that has it.
    """
    table = _pair_table(c, pools, languages)
    pools = [pool for pool in pools if not table or pool.languages in table]

    def weigh_pair(pool):
        return table[pool.languages] if table else pool.size**c.pair_power

    def weigh_dataset(pool):
        return weights[pool.dataset] * pool.size**c.dataset_power

    if c.cross_first == 'dataset':
        by_dataset = collections.defaultdict(list)
        for pool in pools:
            by_dataset[pool.dataset].append(pool)
        of_dataset = {
            i: weights[i] * _count_groups(x) ** c.dataset_power for i, x in by_dataset.items()
        }
        proportions = _two_stage(pools, of_dataset, lambda pool: pool.dataset, weigh_pair)
    else:
        of_pair = table or {pair: n**c.pair_power for pair, n in _sizes(pools).items()}
        proportions = _two_stage(pools, of_pair, lambda pool: pool.languages, weigh_dataset)
    return pools, _apply_floor(proportions, pools, c.pair_floor, 'sampler.pair_floor')


def _pair_table(
    c: config.Sampler, pools: list[Pool], languages: tuple[str, ...]
) -> dict[tuple[int, int], float]:
    """The weights of `sampler.pairs` by numbers of languages; empty without a table."""
    pairs = {tuple(languages[i] for i in pool.languages): pool.languages for pool in pools}
    table = settings.parse_weights(c.pairs, 'sampler.pairs', 2)
    for pair in table:
        if pair not in pairs:
            expected = ', '.join(sorted(':'.join(x) for x in pairs))
            raise ValueError(
                f'sampler.pairs: expected pairs that groups have ({expected}), got {":".join(pair)}'
            )
    return {pairs[pair]: weight for pair, weight in table.items() if weight}


def _sizes(pools: list[Pool]) -> collections.Counter:
    """Groups of each language pair in all datasets."""
    total = collections.Counter()
    for pool in pools:
        total[pool.languages] += pool.size
    return total


def _count_groups(pools: list[Pool]) -> int:
    """Groups that are in at least one of the pools of a dataset."""
    last = [int(pool.select_groups(np.array([pool.size - 1]))[0]) for pool in pools]
    if max(pool.size for pool in pools) == max(last) + 1:
        return max(last) + 1
    mask = np.zeros(max(last) + 1, bool)
    for pool in pools:
        for start in range(0, pool.size, CHUNK):
            mask[pool.select_groups(np.arange(start, min(start + CHUNK, pool.size)))] = True
    return int(np.count_nonzero(mask))


def _two_stage(
    pools: list[Pool], weights: dict, key_of: abc.Callable, weigh: abc.Callable
) -> Float[np.ndarray, ' p']:
    """Proportions of drawing a key by `weights`, then a pool of this key by `weigh`."""
    inner = np.array([weigh(pool) for pool in pools], np.float64)
    totals, total = collections.Counter(), sum(weights.values())
    keys = [key_of(pool) for pool in pools]
    for key, weight in zip(keys, inner, strict=True):
        totals[key] += weight
    return inner * [weights[key] / total / totals[key] for key in keys]


def _apply_floor(
    proportions: Float[np.ndarray, ' p'], pools: list[Pool], floor: float, name: str
) -> Float[np.ndarray, ' p']:
    """Raises the proportion of each language pair below `floor` to it.

    The others shrink by one factor, and the datasets keep their proportions within a pair.
    """
    before = collections.Counter()
    for pool, proportion in zip(pools, proportions, strict=True):
        before[pool.languages] += proportion
    n = len(before)
    if floor * n > 1:
        raise ValueError(f'{name}: expected at most {1 / n:.4g}, 1 in {n} of them, got {floor}')
    old = np.array([*before.values()])
    new, low = old, np.zeros(n, bool)
    while (new < floor * (1 - 1e-12)).any():
        low |= new < floor
        new = np.where(low, floor, old * (1 - floor * low.sum()) / old[~low].sum())
    factor = dict(zip(before, new / old, strict=True))
    return proportions * [factor[pool.languages] for pool in pools]


# Kind of batch -> function from (settings, pools, dataset weights, languages) to the pools that are
# drawn from and their proportions [p], which sum to 1.
PROPORTIONS = {'mono': _mono_proportions, 'cross': _cross_proportions}
