"""Draws by weight, and walks over groups without replacement, as pure functions of (key, index)."""

import functools
from collections import abc

import numpy as np
from jaxtyping import Int, UInt64

BLOCK = 4096  # draws made at a time

Weights = abc.Sequence[float | int] | np.ndarray | abc.Callable[[np.ndarray], np.ndarray]


class Stream:
    """An endless sequence of independent draws of 0, 1, ... by weight, made in blocks."""

    def __init__(self, key: abc.Sequence[int], weights: Weights, size: int | None = None):
        """`weights` are constant, or a function from indices of draws, [n] -> [n size]."""
        self.key, self.weights = key, weights
        size = size or len(weights)
        self._counts_before = [np.zeros(size, np.int64)]  # at the start of each block
        if not callable(weights):
            total = np.cumsum(np.asarray(weights, np.float64))
            self._edges = total / total[-1]
        self._block = functools.lru_cache(2)(self._make_block)

    def draws_from(self, start: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws start ... start + size - 1, and for each how many equal ones precede it."""
        first, last = start // BLOCK, (start + size - 1) // BLOCK
        blocks = [self._block(i) for i in range(first, last + 1)]
        part = slice(start - first * BLOCK, start - first * BLOCK + size)
        return tuple(np.concatenate(x)[part] for x in zip(*blocks, strict=True))

    def counts_before(self, stop: int) -> Int[np.ndarray, ' k']:
        """How often each value is drawn before draw `stop`."""
        number, rest = divmod(stop, BLOCK)
        counts = self._counts_before_block(number)
        return counts + np.bincount(self._draw_block(number)[:rest], minlength=len(counts))

    def _draw_block(self, number: int) -> Int[np.ndarray, ' n']:
        uniform = np.random.default_rng([*self.key, number]).random(BLOCK)
        if not callable(self.weights):
            return np.searchsorted(self._edges, uniform, side='right')
        total = np.cumsum(self.weights(number * BLOCK + np.arange(BLOCK)), axis=1)
        return (uniform[:, None] * total[:, -1:] >= total).sum(1)

    def _counts_before_block(self, number: int) -> Int[np.ndarray, ' k']:
        counts = self._counts_before
        while len(counts) <= number:
            draws = self._draw_block(len(counts) - 1)
            counts.append(counts[-1] + np.bincount(draws, minlength=len(counts[0])))
        return counts[number]

    def _make_block(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The draws of a block, and how many equal ones precede each."""
        draws, before = self._draw_block(number), self._counts_before_block(number)
        narrow = draws.astype(np.min_scalar_type(len(before) - 1))  # 16 bits are sorted faster
        order = np.argsort(narrow, kind='stable')
        ordered = draws[order]
        nth = np.empty(BLOCK, np.int64)
        nth[order] = np.arange(BLOCK) - np.searchsorted(ordered, ordered) + before[ordered]
        return draws, nth


def permute(
    index: Int[np.ndarray, ' n'], size: Int[np.ndarray, ' n'], key: UInt64[np.ndarray, ' n']
) -> Int[np.ndarray, ' n']:
    """The elements at positions of endless walks over `size` elements, each once an epoch.

    The order of epoch i // size follows from it and the key. A Feistel network of six rounds over
    the next power of two (cycle walking, Black and Rogaway 2002): no table, no memory.
    """
    size = size.astype(np.uint64)
    epoch, element = np.divmod(index.astype(np.uint64), size)
    seed = _mix_bits(key ^ _mix_bits(epoch + np.uint64(1)))
    bits = np.frexp((size - np.uint64(1)).astype(np.float64))[1].astype(np.uint64)
    bits += (np.uint64(1) << bits) < size  # where the float was rounded down
    rounds, todo = _mix_bits(np.arange(6, dtype=np.uint64)), slice(None)
    while True:
        low = bits[todo] >> np.uint64(1)
        widths = low, bits[todo] - low
        masks = [(np.uint64(1) << width) - np.uint64(1) for width in widths]
        left, right, keys = element[todo] >> low, element[todo] & masks[0], seed[todo]
        for number, salt in enumerate(rounds):
            left, right = right, left ^ (_mix_bits(right + keys + salt) & masks[1 - number % 2])
        element[todo] = (left << low) | right
        outside = element[todo] >= size[todo]
        if not outside.any():
            return element.astype(np.int64)
        todo = np.flatnonzero(outside) if isinstance(todo, slice) else todo[outside]


def _mix_bits(x):
    """A bijection of 64-bit integers that spreads every bit (splitmix64, Steele et al. 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
