"""Which rows make a batch: monolingual, cross-lingual, hybrid.

Hides all randomness of the data. A batch is a pure function of (settings, store, step): nothing
is remembered between steps, so a run resumes exactly, on any number of hosts. Called by `main`.
"""

import collections
import typing
from collections import abc

import numpy as np
from jaxtyping import Int, UInt64

from hbt import batches, config, store

BLOCK = 4096  # draws made at a time
KINDS = ('mono', 'cross')


class Pool(typing.NamedTuple):
    """Groups of a dataset that have a query in one language and a passage in another."""

    dataset: int
    query_language: int
    passage_language: int
    groups: np.ndarray | None  # None: all of them
    size: int
    key: int  # of the order in which they are drawn


class Stream:
    """An endless sequence of independent draws from `weights`, with random access.

    Draw i is a pure function of (key, i), and so is how often its value came before. Blocks of
    draws are made when asked for; the running counts at their borders are kept.
    """

    def __init__(self, key: abc.Sequence[int], weights: abc.Sequence[float | int]):
        self.key = key
        total = np.cumsum(np.asarray(weights, np.float64))
        self.edges = total / total[-1]
        self.before = [np.zeros(len(weights), np.int64)]  # counts at the start of each block

    def block(self, number: int) -> Int[np.ndarray, ' n']:
        uniform = np.random.default_rng([*self.key, number]).random(BLOCK)
        return np.searchsorted(self.edges, uniform, side='right')

    def at(self, start: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws start ... start + size - 1, and for each how many equal ones precede it."""
        first, last = start // BLOCK, (start + size - 1) // BLOCK
        while len(self.before) <= first:
            counts = np.bincount(self.block(len(self.before) - 1), minlength=len(self.edges))
            self.before.append(self.before[-1] + counts)
        draws = np.concatenate([self.block(i) for i in range(first, last + 1)])
        stop = start + size - first * BLOCK
        draws = draws[:stop]
        order = np.argsort(draws, kind='stable')
        ranks = np.arange(stop) - np.searchsorted(draws[order], draws[order])
        nth = np.empty(stop, np.int64)
        nth[order] = ranks
        nth += self.before[first][draws]
        return draws[-size:], nth[-size:]

    def one(self, i: int) -> tuple[int, int]:
        """Draw i, and how many equal ones precede it."""
        (draw,), (nth,) = self.at(i, 1)
        return int(draw), int(nth)


def permute(
    index: Int[np.ndarray, ' n'], size: Int[np.ndarray, ' n'], key: UInt64[np.ndarray, ' n']
) -> Int[np.ndarray, ' n']:
    """Row at a place of an endless walk over `size` rows, each row once an epoch.

    Place i is in epoch i // size; the order of an epoch follows from it and the key. A Feistel
    network of six rounds over the next power of four (cycle walking, Black and Rogaway 2002): no
    table, no memory.
    """
    size = size.astype(np.uint64)
    epoch, row = np.divmod(index.astype(np.uint64), size)
    seed = mix(key ^ mix(epoch + np.uint64(1)))
    half = np.maximum(np.ceil(np.log2(np.maximum(size, 2)) / 2), 1).astype(np.uint64)
    half += (np.uint64(1) << (half + half)) < size  # where the logarithm was rounded down
    rounds, todo = mix(np.arange(6, dtype=np.uint64)), np.arange(len(row))
    while len(todo):
        bits = half[todo]
        mask = (np.uint64(1) << bits) - np.uint64(1)
        left, right = row[todo] >> bits, row[todo] & mask
        for number in rounds:
            left, right = right, left ^ (mix(right + seed[todo] + number) & mask)
        row[todo] = (left << bits) | right
        todo = todo[row[todo] >= size[todo]]
    return row.astype(np.int64)


def mix(x):
    """A bijection of 64-bit integers that spreads every bit (splitmix64, Steele et al. 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class Sampler:
    """Plans and batches of one run over one store."""

    def __init__(self, c: config.Config, s: store.Store, devices: int = 1):
        """Divides every batch over so many devices.

        ValueError for settings that the store does not fit, or if nothing can be drawn.
        """
        self.config, self.store, self.devices = c, s, devices
        self.languages = check_fit(c, s)
        pools = [p for i in range(len(s.datasets)) for p in find_pools(c, s, i, self.languages)]
        self.mono = [p for p in pools if p.query_language == p.passage_language]
        self.cross = {i: [] for i in range(len(s.datasets))}
        for pool in pools:
            if pool.query_language != pool.passage_language:
                self.cross[pool.dataset].append(pool)
        self.cross = {i: found for i, found in self.cross.items() if found}
        alpha = c.sampler.alpha
        for kind, share, found in (('mono', alpha, self.mono), ('cross', 1 - alpha, self.cross)):
            if share > 0 and not found:
                raise ValueError(
                    f'sampler.alpha: {alpha} asks for {kind} batches, but no row of {s.path} in '
                    f'{", ".join(self.languages)} can be in one'
                )
        self.kinds = Stream((c.seed, 1), (alpha, 1 - alpha))
        if self.mono:
            self.mono_pools = Stream((c.seed, 2), mono_weights(self.mono))
        if self.cross:
            sizes = [cross_groups(found) for found in self.cross.values()]
            self.cross_datasets = Stream((c.seed, 3), sizes)
        self.pairs = {i: Stream((c.seed, 4, i), [1] * len(p)) for i, p in self.cross.items()}

    def plan(self, step: int) -> batches.Plan:
        """The global batch of a step, the same on every host (paper, section 3.2).

        Monolingual with probability alpha: a language uniformly, then a dataset by size. Otherwise
        a dataset by size, then for each row an ordered pair of different languages uniformly.
        """
        rows = self.config.batch_size
        kind, nth = self.kinds.one(step)
        if kind == 0:
            choice, nth = self.mono_pools.one(nth)
            pools, choices = self.mono, np.full(rows, choice)
            places = nth * rows + np.arange(rows)
        else:
            choice, nth = self.cross_datasets.one(nth)
            dataset = list(self.cross)[choice]
            pools = self.cross[dataset]
            choices, places = self.pairs[dataset].at(nth * rows, rows)
        sizes, keys = np.array([p.size for p in pools]), np.array([p.key for p in pools], np.uint64)
        groups = permute(places, sizes[choices], keys[choices])
        for i in np.unique(choices):
            if pools[i].groups is not None:
                here = choices == i
                groups[here] = pools[i].groups[groups[here]]
        languages = np.array([pools[i][1:3] for i in choices])
        return batches.Plan(step, KINDS[kind], pools[choices[0]].dataset, groups, *languages.T)

    def batch(
        self, step: int, mine: range | None = None
    ) -> tuple[list[batches.Plan], batches.Batch]:
        """The plans of a step, and its texts on the devices in `mine`, or on all."""
        plans = self.plans(step)
        mine = range(self.devices) if mine is None else mine
        return plans, batches.assemble(
            self.config, self.store, self.languages, plans, self.devices, mine
        )

    def plans(self, step: int) -> list[batches.Plan]:
        """The tasks of a step."""
        return [self.plan(step)]


def check_fit(c: config.Config, s: store.Store) -> tuple[str, ...]:
    """The languages to train on; ValueError where the settings ask for what the store has not."""
    for name, had in s.manifest['settings'].items():
        wanted = getattr(c.data, name)
        if wanted != had and not (name.endswith('_length') and wanted < had):
            raise ValueError(f'data.{name}: expected {had!r}, as {s.path} has it, got {wanted!r}')
    languages = tuple(c.sampler.languages) or s.languages
    for language in languages:
        if language not in s.languages:
            known = ', '.join(s.languages)
            raise ValueError(f'sampler.languages: expected some of {known}, got {language!r}')
    return languages


def find_pools(
    c: config.Config, s: store.Store, number: int, languages: tuple[str, ...]
) -> abc.Iterator[Pool]:
    """Every pool of a dataset that is not empty.

    A group whose query and passage are the same text is in no pool: nothing is to be learned.
    """
    dataset = s.datasets[number]
    for i, asks in enumerate(languages):
        for j, answers in enumerate(languages):
            if asks in dataset.query and answers in dataset.passage:
                query = dataset.query[asks].hashes
                passage = dataset.passage[answers].hashes
                fit = (query != 0) & (passage != 0) & (query != passage)
                size = int(np.count_nonzero(fit))
                if size:
                    groups = None if size == len(fit) else np.flatnonzero(fit).astype(np.int32)
                    key = np.random.SeedSequence((c.seed, 5, number, i, j))
                    yield Pool(number, i, j, groups, size, int(key.generate_state(1, np.uint64)[0]))


def mono_weights(pools: list[Pool]) -> list[float]:
    """Languages uniformly, and the datasets that have one by their size in it."""
    total = collections.Counter()
    for pool in pools:
        total[pool.query_language] += pool.size
    return [pool.size / total[pool.query_language] for pool in pools]


def cross_groups(pools: list[Pool]) -> int:
    """Groups of a dataset that can stand in a cross-lingual row."""
    if any(pool.groups is None for pool in pools):
        return max(pool.size for pool in pools)
    return len(np.unique(np.concatenate([pool.groups for pool in pools])))
