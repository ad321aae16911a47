"""Pools of groups to draw pairs from, and the proportion of the pairs that each pool gets."""

import collections
import itertools
import typing
from collections import abc

import numpy as np
from jaxtyping import Float, Int

from hbt import config
from hbt.data import store
from hbt.utils import settings

CHUNK = 2**20  # groups counted at a time


class Pool(typing.NamedTuple):
    """The groups of a dataset that have a query in one language and a passage in another."""

    dataset: int
    languages: tuple[int, int]  # of query and passage
    size: int
    groups: np.ndarray | None  # None: every group but the missing
    missing: np.ndarray  # each less its index here, so that bisection finds how many to skip
    key: int  # of the order in which the groups are drawn

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
    for (i, query_language), (j, passage_language) in itertools.product(
        enumerate(languages), repeat=2
    ):
        if query_language not in dataset.query or passage_language not in dataset.passage:
            continue
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
            yield Pool(number, (i, j), size, groups, missing - np.arange(len(missing)), key)


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


def _mono_proportions(c: config.Sampler, pools: list[Pool], weights: dict[int, float], languages):
    """A language by its size to `language_power` (uniformly in the paper, section 3.2), then a
    dataset that has it, by weight times size to `dataset_power`.
    """
    del languages
    of_language = {pair: n**c.language_power for pair, n in _sizes(pools).items()}
    of_pool = [weights[pool.dataset] * pool.size**c.dataset_power for pool in pools]
    proportions = _two_stage(of_language, [pool.languages for pool in pools], of_pool)
    return pools, _apply_floor(proportions, pools, c.language_floor, 'sampler.language_floor')


def _cross_proportions(c: config.Sampler, pools: list[Pool], weights: dict[int, float], languages):
    """With `cross_first` 'dataset', a dataset by weight times size to `dataset_power`, then an
    ordered pair of its languages by the table, or by size to `pair_power`. With 'pair', a language
    pair first, then a dataset that has it.
    """
    table = _pair_table(c, pools, languages)
    pools = [pool for pool in pools if not table or pool.languages in table]
    if c.cross_first == 'dataset':
        datasets = [pool.dataset for pool in pools]
        sizes = {i: count_groups([x for x in pools if x.dataset == i]) for i in set(datasets)}
        of_dataset = {i: weights[i] * sizes[i] ** c.dataset_power for i in dict.fromkeys(datasets)}
        of_pool = [table[x.languages] if table else x.size**c.pair_power for x in pools]
        proportions = _two_stage(of_dataset, datasets, of_pool)
    else:
        of_pair = table or {pair: n**c.pair_power for pair, n in _sizes(pools).items()}
        of_pool = [weights[pool.dataset] * pool.size**c.dataset_power for pool in pools]
        proportions = _two_stage(of_pair, [pool.languages for pool in pools], of_pool)
    return pools, _apply_floor(proportions, pools, c.pair_floor, 'sampler.pair_floor')


def _pair_table(c: config.Sampler, pools: list[Pool], languages) -> dict[tuple[int, int], float]:
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


def count_groups(pools: list[Pool]) -> int:
    """Groups that are in at least one of the pools of a dataset."""
    last = [int(pool.select_groups(np.array([pool.size - 1]))[0]) for pool in pools]
    if max(pool.size for pool in pools) == max(last) + 1:
        return max(last) + 1
    mask = np.zeros(max(last) + 1, bool)
    for pool in pools:
        for start in range(0, pool.size, CHUNK):
            mask[pool.select_groups(np.arange(start, min(start + CHUNK, pool.size)))] = True
    return int(np.count_nonzero(mask))


def _two_stage(weights: dict, keys: list, of_pool: list[float]) -> Float[np.ndarray, ' p']:
    """Proportions of drawing a key by `weights`, then one of the pools of this key by `of_pool`."""
    totals, total = collections.Counter(), sum(weights.values())
    for key, weight in zip(keys, of_pool, strict=True):
        totals[key] += weight
    return np.array(of_pool) * [weights[key] / total / totals[key] for key in keys]


def _apply_floor(proportions, pools: list[Pool], floor: float, name: str) -> np.ndarray:
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
