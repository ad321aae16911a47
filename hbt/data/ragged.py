"""Texts as tokens in flat arrays: tables of texts, their truncation, padding, and hashes."""

import hashlib
import typing
from collections import abc

import numpy as np
from jaxtyping import Int, UInt64

_Ints = Int[np.ndarray, ' n']
_Hashes = UInt64[np.ndarray, ' n']
_BUCKETS = (16, 32, 64, 96, 128, 192, 256, 384, 512)  # widths that are compiled


class TokenTable(typing.NamedTuple):
    """Texts of one side and language. Text i is tokens[starts[i] : starts[i] + lengths[i]]."""

    tokens: np.ndarray  # all tokens
    starts: np.ndarray
    lengths: np.ndarray  # 0 where the language lacks the text
    hashes: np.ndarray  # of the text, 0 where there is none


def make_table(tokens: np.ndarray, lengths: _Ints, hashes: _Hashes) -> TokenTable:
    """A table of texts that follow each other in `tokens`."""
    return TokenTable(tokens, np.cumsum(lengths, dtype=np.int64) - lengths, lengths, hashes)


def truncated_lengths(table: TokenTable, indices: _Ints, limit: int) -> _Ints:
    """Tokens of each text when it is truncated to `limit`."""
    return np.minimum(table.lengths[indices], limit)


def token_ids(table: TokenTable, index: int | np.integer) -> list[int]:
    """The tokens of one text."""
    start = table.starts[index]
    return table.tokens[start : start + table.lengths[index]].tolist()


def truncate(ids: list[int], limit: int, end: int | None) -> list[int]:
    """At most `limit` tokens; a text that is too long keeps its `end` token, if there is one."""
    if len(ids) <= limit:
        return ids
    return ids[:limit] if end is None else [*ids[: limit - 1], end]


def truncate_texts(table: TokenTable, indices: _Ints, limit: int, end: int | None) -> TokenTable:
    """Some texts of a table, each truncated to `limit` tokens, as a table of their own."""
    lengths = truncated_lengths(table, indices, limit)
    _, tokens = concatenate_texts(table, indices, lengths, end)
    return make_table(tokens, lengths, table.hashes[indices])


def concatenate_texts(
    table: TokenTable, indices: _Ints, lengths: _Ints, end: int | None
) -> tuple[Int[np.ndarray, ' m'], Int[np.ndarray, ' m']]:
    """The first `lengths` tokens of each text, one text after another; longer ones keep the end.

    Returns the position of each token in its text, and the tokens.
    """
    ends = np.cumsum(lengths)
    positions = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    tokens = table.tokens[np.repeat(table.starts[indices], lengths) + positions].astype(np.int32)
    if end is not None:
        truncated = table.lengths[indices] > lengths
        tokens[ends[truncated] - 1] = end
    return positions, tokens


def pad_texts(
    table: TokenTable, indices: _Ints, width: int, pad: int, end: int | None
) -> Int[np.ndarray, 'n width']:
    """Tokens of each text, padded on the right; a text that is too long keeps its end token."""
    lengths = truncated_lengths(table, indices, width)
    mask = np.arange(width) < lengths[:, None]
    out = np.full(mask.shape, pad, np.int32)
    _, out[mask] = concatenate_texts(table, indices, lengths, end)
    return out


def bucket_width(length: int) -> int:
    """The smallest width to pad texts of this many tokens to."""
    return next((width for width in _BUCKETS if width >= length), length)


def hash_texts(texts: abc.Iterable[str]) -> _Hashes:
    """64 bits of each text, never 0. A run of white space counts as one space."""
    return hash_keys(' '.join(text.split()) for text in texts)


def hash_tokens(table: TokenTable) -> _Hashes:
    """64 bits of the tokens of each text, equal for texts that a model cannot tell; 0 for none."""
    data, size = memoryview(table.tokens.view(np.uint8)), table.tokens.itemsize
    starts, present = table.starts * size, np.flatnonzero(table.hashes)
    ends = starts + table.lengths * size
    digests = (
        hashlib.blake2b(data[start:end], digest_size=8).digest()
        for start, end in zip(starts[present].tolist(), ends[present].tolist(), strict=True)
    )
    hashes = np.zeros(len(table.hashes), np.uint64)
    hashes[present] = np.maximum(np.frombuffer(b''.join(digests), '<u8'), 1)
    return hashes


def hash_keys(keys: abc.Iterable[str]) -> _Hashes:
    """64 bits of each string, never 0."""
    data = b''.join(hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
    hashes = np.frombuffer(data, '<u8').astype(np.uint64)
    hashes[hashes == 0] = 1
    return hashes


class PackedRows(typing.NamedTuple):
    """Texts side by side in rows of one width."""

    tokens: Int[typing.Any, 'r w']
    segment_ids: Int[typing.Any, 'r w']  # 1, 2, ...: which text of its row; 0: padding
