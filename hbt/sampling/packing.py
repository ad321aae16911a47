"""Texts of many lengths into rows of one width, in few shapes.

Hides which device and which row a text goes to. Everything follows from the lengths of the texts
of all devices, so all hosts find the same shapes. Called by `batches`.
"""

import typing
from collections import abc

import numpy as np
from jaxtyping import Int

SLOT = 8  # tokens of a row for each text that it may hold
STEPS = 3  # row counts that are compiled between a number and its double


class Placement(typing.NamedTuple):
    """Where each text of a device went; -1 for one without tokens."""

    row: Int[np.ndarray, ' n']
    start: Int[np.ndarray, ' n']  # its first token in the row
    slot: Int[np.ndarray, ' n']  # its number in the row


def row_width(longest: int) -> int:
    """The width of rows for texts of up to so many tokens."""
    return -(-longest // SLOT) * SLOT


def slots_per_row(width: int) -> int:
    """How many texts a row of this width may hold."""
    return width // SLOT


def round_row_count(rows: int) -> int:
    """The next of few row counts: `STEPS` of them between a number and its double."""
    step = 1
    while rows > 2 * STEPS * step:
        step *= 2
    return max(-(-rows // step) * step, 1)


def chunk_rows(tokens: int, width: int, rows: int) -> int:
    """How many of so many rows are encoded at a time, for about so many tokens; 0: all."""
    return min(max(1, tokens // width), rows) if tokens else rows


def computed_rows(tokens: int, width: int, rows: int) -> int:
    """Rows that are encoded for so many: the last chunk is filled up."""
    size = chunk_rows(tokens, width, rows)
    return -(-rows // size) * size


def pack_texts(lengths: Int[np.ndarray, ' n'], width: int) -> tuple[int, Placement]:
    """(rows, places): the longest texts first, each in the fullest row that has room for it."""
    places = np.full((3, len(lengths)), -1)
    order = np.argsort(-lengths, kind='stable')[: np.count_nonzero(lengths)]
    held: list[int] = []  # texts of each row
    open_rows: list[list[int]] = [[] for _ in range(width + 1)]  # by the tokens that are left
    some = 0  # bit n: there are rows with n tokens left
    result = []
    for length in lengths[order].tolist():
        roomy = some >> length
        if roomy:
            left = length + (roomy & -roomy).bit_length() - 1
            row = open_rows[left].pop()
            if not open_rows[left]:
                some ^= 1 << left
        else:
            left, row = width, len(held)
            held.append(0)
        result.append((row, width - left, held[row]))
        held[row] += 1
        left -= length
        if held[row] < slots_per_row(width):
            open_rows[left].append(row)
            some |= 1 << left
    if result:
        places[:, order] = np.array(result).T
    return len(held), Placement(*places)


def deal_pairs(tokens: Int[np.ndarray, 't b'], devices: int) -> Int[np.ndarray, 't b']:
    """Rows of each task in the order of the devices that get them, nearly equal in tokens.

    Each device gets as many rows: the longest are dealt to and fro.
    """
    turns = np.arange(tokens.shape[1]).reshape(-1, devices)
    turns[1::2] = turns[1::2, ::-1]
    return np.argsort(-tokens, axis=1, kind='stable')[:, turns.T.reshape(-1)]


def pack_devices(
    lengths: abc.Iterable[Int[np.ndarray, ' n']], width: int
) -> tuple[int, list[Placement]]:
    """Rows of a device, enough for each of them, and the places of the texts of each device."""
    counts, places = zip(*(pack_texts(x, width) for x in lengths), strict=True)
    return round_row_count(max(counts)), list(places)
