"""Texts of many lengths, packed into rows of one width, in few shapes: each is compiled once."""

import numpy as np
from jaxtyping import Int

from hbt import config

SLOT_TOKENS = 8  # tokens of a row for each text that it may hold
STEPS_PER_DOUBLING = 3  # row counts that are compiled between a number and its double


def row_width(c: config.Data) -> int:
    """The width of rows that hold the longest query or passage."""
    return -(-max(c.query_length, c.passage_length) // SLOT_TOKENS) * SLOT_TOKENS


def slots_per_row(width: int) -> int:
    """How many texts a row of this width may hold."""
    return width // SLOT_TOKENS


def round_row_count(rows: int) -> int:
    """The next of few row counts: `STEPS_PER_DOUBLING` of them between a number and its double."""
    step = 1
    while rows > 2 * STEPS_PER_DOUBLING * step:
        step *= 2
    return max(-(-rows // step) * step, 1)


def chunk_rows(tokens: int, width: int, rows: int) -> int:
    """How many of `rows` are encoded at a time, for about so many tokens; 0 tokens: all."""
    return min(max(1, tokens // width), rows) if tokens else rows


def computed_rows(tokens: int, width: int, rows: int) -> int:
    """Rows that are computed for so many rows: the last chunk is filled up."""
    size = chunk_rows(tokens, width, rows)
    return -(-rows // size) * size


def pack_texts(lengths: Int[np.ndarray, ' n'], width: int) -> tuple[int, Int[np.ndarray, '3 n']]:
    """Packs the texts of a device by best fit decreasing.

    Returns the number of rows, and of each text its row, its first token in the row and its slot,
    the segment id less one; -1 for a text without tokens.
    """
    placement = np.full((3, len(lengths)), -1)
    order = np.argsort(-lengths, kind='stable')[: np.count_nonzero(lengths)]
    counts: list[int] = []  # texts of each row
    open_rows: list[list[int]] = [[] for _ in range(width + 1)]  # by the tokens that are left
    room = 0  # bit n: there are open rows with n tokens left
    result = []
    for length in lengths[order].tolist():
        fitting = room >> length
        if fitting:
            left = length + (fitting & -fitting).bit_length() - 1
            row = open_rows[left].pop()
            if not open_rows[left]:
                room ^= 1 << left
        else:
            left, row = width, len(counts)
            counts.append(0)
        result.append((row, width - left, counts[row]))
        counts[row] += 1
        left -= length
        if counts[row] < slots_per_row(width):
            open_rows[left].append(row)
            room |= 1 << left
    if result:
        placement[:, order] = np.array(result).T
    return len(counts), placement


def deal_pairs(tokens: Int[np.ndarray, 't b'], devices: int) -> Int[np.ndarray, 't b']:
    """Deals pairs, the longest first, to and fro; returns their indices, device by device."""
    turns = np.arange(tokens.shape[1]).reshape(-1, devices)
    turns[1::2] = turns[1::2, ::-1]
    return np.argsort(-tokens, axis=1, kind='stable')[:, turns.T.reshape(-1)]
