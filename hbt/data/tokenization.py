"""From a block of a source to arrays of tokens: the part of `prepare` that runs in many processes.

Hides the tokenizer and its speed: one thread of the library in every process is as fast as all of
its threads in one, and the rest of the work runs beside it. Called by `prepare`.
"""

import array
import os
import typing
from collections import abc

import numpy as np
import tokenizers

from hbt.data import ragged, tokenizer_files


class Setting(typing.NamedTuple):
    """What the tokens of a text depend on."""

    query_prefix: str
    passage_prefix: str
    query_length: int
    passage_length: int
    dtype: str


class Tokens(typing.NamedTuple):
    """Texts of one side and language. Text i is row `rows[i]` of the table."""

    rows: np.ndarray  # n; in a block of groups, counted from its first
    table: ragged.TokenTable  # n; starts are counted from the block's first token
    texts: int
    truncated: int


class Names(typing.NamedTuple):
    """Ids of texts, as bytes."""

    rows: np.ndarray
    lengths: np.ndarray
    hashes: np.ndarray
    data: bytes


class Block(typing.NamedTuple):
    """What a block of a source becomes."""

    groups: int
    passages: int
    tokens: dict[tuple[str, str], Tokens]
    names: dict[str, Names]
    places: list[str]  # of the texts, for errors; of collections only
    passage: np.ndarray  # groups; the row of the positive passage
    negatives: dict[str, tuple[np.ndarray, np.ndarray]]  # language -> how many a group has, rows


class Links(typing.NamedTuple):
    """Hashed keys of a block of links."""

    query: np.ndarray
    passage: np.ndarray
    count: np.ndarray
    negatives: np.ndarray


TOKENIZER: dict[str, tokenizers.Tokenizer] = {}  # of this process, by file


def start() -> None:
    """Before the first block of a process that is one of many."""
    os.environ['TOKENIZERS_PARALLELISM'] = 'false'


def load(file: str) -> tokenizers.Tokenizer:
    """The tokenizer of a file, which this process and those forked from it read once."""
    if file not in TOKENIZER:
        TOKENIZER.clear()
        TOKENIZER[file] = tokenizers.Tokenizer.from_file(file)
        TOKENIZER[file].no_padding()
        TOKENIZER[file].no_truncation()
    return TOKENIZER[file]


def groups(read: abc.Callable, block, file: str, setting: Setting) -> Block:
    """A block of rows: passage rows are the positive of a group, then its negatives."""
    found = read(block)
    passages, texts = 0, {}  # (side, language) -> row -> text
    positive, negatives = np.empty(len(found), np.int64), {}
    for i, row in enumerate(found):
        positive[i] = passages
        for language, text in row.query.items():
            texts.setdefault(('query', language), {})[i] = text
        for language, text in row.passage.items():
            texts.setdefault(('passage', language), {})[passages] = text
        passages += 1
        for language, wrong in row.negatives.items():
            counts, places = negatives.setdefault(language, (np.zeros(len(found), np.int64), []))
            counts[i] = len(wrong)
            for text in wrong:
                texts.setdefault(('passage', language), {})[passages] = text
                places.append(passages)
                passages += 1
    sizes = {'query': len(found), 'passage': passages}
    tokens = {
        (side, language): widen(encode(list(t.values()), side, file, setting), list(t), sizes[side])
        for (side, language), t in sorted(texts.items())
    }
    return Block(
        len(found),
        passages,
        tokens,
        {'query': names([row.id for row in found], np.arange(len(found)))},
        [],
        positive,
        {x: (counts, np.array(places)) for x, (counts, places) in negatives.items()},
    )


def widen(tokens: Tokens, at: list[int], size: int) -> Tokens:
    """The same texts in a table of `size` rows without gaps."""
    lengths, hashes = np.zeros(size, np.int32), np.zeros(size, np.uint64)
    lengths[at], hashes[at] = tokens.table.lengths, tokens.table.hashes
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    table = ragged.TokenTable(tokens.table.tokens, starts, lengths, hashes)
    return tokens._replace(rows=np.arange(size), table=table)


def texts(
    read: abc.Callable, block, side: str, language: str, known: str, file: str, setting: Setting
) -> Block:
    """A block of texts of a collection; those whose key is not in the file `known` are dropped."""
    keys = np.memmap(known, np.uint64, 'r')
    found = read(block)
    hashes = ragged.hash_keys(x.key for x in found)
    at = np.searchsorted(keys, hashes)
    mine = np.flatnonzero(keys[np.minimum(at, len(keys) - 1)] == hashes)
    kept = [found[i] for i in mine]
    tokens = encode([x.text for x in kept], side, file, setting)._replace(rows=at[mine])
    return Block(
        0,
        0,
        {(side, language): tokens},
        {side: names([x.key for x in kept], at[mine])},
        [x.where for x in kept],
        np.zeros(0, np.int64),
        {},
    )


def links(read: abc.Callable, block) -> Links:
    found = read(block)
    return Links(
        ragged.hash_keys(x.query_key for x in found),
        ragged.hash_keys(x.passage_key for x in found),
        np.array([len(x.negative_keys) for x in found], np.int64),
        ragged.hash_keys(key for x in found for key in x.negative_keys),
    )


def encode(found: list[str], side: str, file: str, setting: Setting) -> Tokens:
    """Tokens of texts with the prefix of their side, cut to its length; `rows` are missing."""
    prefix, limit = getattr(setting, f'{side}_prefix'), getattr(setting, f'{side}_length')
    table, truncated = encode_texts(load(file), found, prefix, limit, setting.dtype)
    return Tokens(np.zeros(0, int), table, len(found), truncated)


def encode_texts(
    tokenizer: tokenizers.Tokenizer,
    texts: abc.Sequence[str],
    prefix: str,
    limit: int,
    dtype: str = 'int32',
) -> tuple[ragged.TokenTable, int]:
    """Tokenises `prefix + text` for every text.

    Returns:
      The table of all texts, and how many had more than `limit` tokens: those are truncated and
      keep their end token.
    """
    ids = [x.ids for x in tokenizer.encode_batch_fast([prefix + text for text in texts])]
    full = np.fromiter(map(len, ids), np.int32, len(ids))
    truncated, end = np.flatnonzero(full > limit), tokenizer_files.end_id(tokenizer)
    for i in truncated:
        ids[i] = ragged.truncate(ids[i], limit, end)
    lengths = np.minimum(full, limit)
    tokens = array.array(np.dtype(dtype).char)
    for text in ids:
        tokens.fromlist(text)  # four times as fast as by an iterator
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    tokens = np.frombuffer(tokens, dtype)
    return ragged.TokenTable(tokens, starts, lengths, ragged.hash_texts(texts)), len(truncated)


def names(found: list[str], at: np.ndarray) -> Names:
    data = [name.encode() for name in found]
    lengths = np.fromiter(map(len, data), np.int32, len(data))
    return Names(at, lengths, ragged.hash_keys(found), b''.join(data))
