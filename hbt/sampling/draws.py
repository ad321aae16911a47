"""Random numbers with random access: draws by weight, and walks over rows without replacement.

Hides all randomness of the data. Draw i is a pure function of (key, i), and so is how often its
value came before: nothing is remembered between steps. Called by `sampler`.
"""

import functools
from collections import abc

import numpy as np
from jaxtyping import Int, UInt64

BLOCK = 4096  # draws made at a time

Weights = abc.Sequence[float | int] | np.ndarray | abc.Callable[[np.ndarray], np.ndarray]


class Stream:
    """An endless sequence of independent draws of 0, 1, ... by weight.

    Blocks of draws are made when asked for; the running counts at their borders are kept.
    """

    def __init__(self, key: abc.Sequence[int], weights: Weights, size: int | None = None):
        """`weights` are constant, or a function of the numbers of n draws, [n] -> [n size]."""
        self.key, self.weights = key, weights
        size = size or len(weights)
        self.before = [np.zeros(size, np.int64)]  # counts at the start of each block
        if not callable(weights):
            total = np.cumsum(np.asarray(weights, np.float64))
            self.edges = total / total[-1]
        self.block = functools.lru_cache(2)(self.make_block)

    def draw(self, number: int) -> Int[np.ndarray, ' n']:
        """The draws of a block."""
        uniform = np.random.default_rng([*self.key, number]).random(BLOCK)
        if not callable(self.weights):
            return np.searchsorted(self.edges, uniform, side='right')
        total = np.cumsum(self.weights(number * BLOCK + np.arange(BLOCK)), axis=1)
        return (uniform[:, None] * total[:, -1:] >= total).sum(1)

    def counts(self, number: int) -> Int[np.ndarray, ' k']:
        """How often each value comes before a block."""
        while len(self.before) <= number:
            counts = np.bincount(self.draw(len(self.before) - 1), minlength=len(self.before[0]))
            self.before.append(self.before[-1] + counts)
        return self.before[number]

    def make_block(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        draws, before = self.draw(number), self.counts(number)
        order = np.argsort(draws.astype(np.uint16), kind='stable')
        ordered = draws[order]
        nth = np.empty(BLOCK, np.int64)
        nth[order] = np.arange(BLOCK) - np.searchsorted(ordered, ordered) + before[ordered]
        if len(self.before) == number + 1:
            self.before.append(before + np.bincount(draws, minlength=len(before)))
        return draws, nth

    def at(self, start: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws start ... start + size - 1, and for each how many equal ones precede it."""
        first, last = start // BLOCK, (start + size - 1) // BLOCK
        blocks = [self.block(i) for i in range(first, last + 1)]
        here = slice(start - first * BLOCK, start - first * BLOCK + size)
        draws, nth = (np.concatenate(x)[here] for x in zip(*blocks, strict=True))
        return draws, nth

    def count(self, stop: int) -> Int[np.ndarray, ' k']:
        """How often each value is drawn before draw `stop`."""
        whole, rest = divmod(stop, BLOCK)
        counts = self.counts(whole)
        return counts + np.bincount(self.draw(whole)[:rest], minlength=len(counts))


def permute(
    index: Int[np.ndarray, ' n'], size: Int[np.ndarray, ' n'], key: UInt64[np.ndarray, ' n']
) -> Int[np.ndarray, ' n']:
    """Row at a place of an endless walk over `size` rows, each row once an epoch.

    Place i is in epoch i // size; the order of an epoch follows from it and the key. A Feistel
    network of six rounds over the next power of two (cycle walking, Black and Rogaway 2002): no
    table, no memory.
    """
    size = size.astype(np.uint64)
    epoch, row = np.divmod(index.astype(np.uint64), size)
    seed = mix(key ^ mix(epoch + np.uint64(1)))
    bits = np.frexp((size - np.uint64(1)).astype(np.float64))[1].astype(np.uint64)
    bits += (np.uint64(1) << bits) < size  # where the float was rounded down
    rounds, todo = mix(np.arange(6, dtype=np.uint64)), slice(None)
    while True:
        low = bits[todo] >> np.uint64(1)
        widths = low, bits[todo] - low
        masks = [(np.uint64(1) << width) - np.uint64(1) for width in widths]
        left, right, keys = row[todo] >> low, row[todo] & masks[0], seed[todo]
        for number, salt in enumerate(rounds):
            left, right = right, left ^ (mix(right + keys + salt) & masks[1 - number % 2])
        row[todo] = (left << low) | right
        outside = row[todo] >= size[todo]
        if not outside.any():
            return row.astype(np.int64)
        todo = np.flatnonzero(outside) if isinstance(todo, slice) else todo[outside]


def mix(x):
    """A bijection of 64-bit integers that spreads every bit (splitmix64, Steele et al. 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
