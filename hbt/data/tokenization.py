"""From texts to token ids; from a block of a source to arrays, in any process."""

import array
import pathlib
import typing
from collections import abc

import numpy as np
import tokenizers

from hbt.data import ragged, tokenizer_files


class Config(typing.NamedTuple):
    """What the tokens of a text depend on."""

    tokenizer_file: str
    settings: dict[str, str | int]  # <side>_prefix, <side>_length
    dtype: str


class EncodedTexts(typing.NamedTuple):
    """Texts of one side and language, or ids as bytes, that are added to a table of the store."""

    indices: np.ndarray  # n; in the table; of groups, counted from the first text of the block
    table: ragged.TokenTable  # n
    num_truncated: int = 0


class GroupBlock(typing.NamedTuple):
    """A block of groups. The passages of a group are numbered: the positive one, then negatives."""

    num_passages: int
    texts: dict[tuple[str, str], EncodedTexts]  # by side and language
    ids: EncodedTexts
    positives: np.ndarray  # groups; number of the passage
    negatives: dict[str, tuple[np.ndarray, np.ndarray]]  # language -> count per group, numbers


_CACHE: dict[str, tokenizers.Tokenizer] = {}  # the last tokenizer of this process, by its file


def cache_tokenizer(file: str, tokenizer: tokenizers.Tokenizer) -> None:
    """Sets the tokenizer of a file for this process and those forked from it."""
    _CACHE.clear()
    _CACHE[file] = tokenizer


def _load_tokenizer(file: str) -> tokenizers.Tokenizer:
    if file not in _CACHE:
        cache_tokenizer(file, tokenizer_files.load_tokenizer(pathlib.Path(file)))
    return _CACHE[file]


def encode_texts(
    tokenizer, texts: abc.Sequence[str], prefix: str, limit: int, dtype: str = 'int32'
) -> tuple[ragged.TokenTable, int]:
    """Tokenises `prefix + text` for every text; those over `limit` tokens keep their end token.

    Returns the table of all texts, and how many were truncated.
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
    tokens = np.frombuffer(tokens, dtype)
    return ragged.make_table(tokens, lengths, ragged.hash_texts(texts)), len(truncated)


def encode_groups(parse: abc.Callable, config: Config, block) -> GroupBlock:
    """Encodes a block of a source of groups."""
    groups = parse(block)
    texts = {}  # (side, language) -> number of the text -> text
    positives, negatives, num_passages = np.empty(len(groups), np.int64), {}, 0
    for i, group in enumerate(groups):
        positives[i] = num_passages
        for side, number in (('query', i), ('passage', num_passages)):
            for language, text in getattr(group, side).items():
                texts.setdefault((side, language), {})[number] = text
        num_passages += 1
        for language, passages in group.negatives.items():
            counts, numbers = negatives.setdefault(language, (np.zeros(len(groups), np.int64), []))
            counts[i] = len(passages)
            for text in passages:
                texts.setdefault(('passage', language), {})[num_passages] = text
                numbers.append(num_passages)
                num_passages += 1
    sizes = {'query': len(groups), 'passage': num_passages}
    encoded = {key: _fill_gaps(texts[key], sizes[key[0]], key[0], config) for key in sorted(texts)}
    ids = _encode_ids([group.id for group in groups], np.arange(len(groups)))
    negatives = {x: (counts, np.array(numbers)) for x, (counts, numbers) in negatives.items()}
    return GroupBlock(num_passages, encoded, ids, positives, negatives)


def encode_collection_texts(
    parse: abc.Callable, side: str, keys_file: str, config: Config, block
) -> tuple[EncodedTexts, EncodedTexts, list[str]]:
    """The texts of a block whose hashed keys are in the file, their ids, and places for errors."""
    keys = np.memmap(keys_file, np.uint64, 'r')
    texts = parse(block)
    hashes = ragged.hash_keys(x.key for x in texts)
    indices = np.searchsorted(keys, hashes)
    linked = np.flatnonzero(keys[np.minimum(indices, len(keys) - 1)] == hashes)
    texts, indices = [texts[i] for i in linked], indices[linked]
    encoded = EncodedTexts(indices, *_encode_side([x.text for x in texts], side, config))
    return encoded, _encode_ids([x.key for x in texts], indices), [x.where for x in texts]


def hash_links(parse: abc.Callable, block) -> dict[str, np.ndarray]:
    """Hashed keys of the texts that a block of links names, and how many negatives each has."""
    links = parse(block)
    return {
        'query': ragged.hash_keys(x.query_key for x in links),
        'passage': ragged.hash_keys(x.passage_key for x in links),
        'negatives': ragged.hash_keys(key for x in links for key in x.negative_keys),
        'counts': np.array([len(x.negative_keys) for x in links], np.int32),
    }


def _encode_side(texts: list[str], side: str, config: Config) -> tuple[ragged.TokenTable, int]:
    prefix, limit = config.settings[f'{side}_prefix'], config.settings[f'{side}_length']
    return encode_texts(_load_tokenizer(config.tokenizer_file), texts, prefix, limit, config.dtype)


def _fill_gaps(texts: dict[int, str], size: int, side: str, config: Config) -> EncodedTexts:
    """A table of `size` texts, of which those without a number are empty."""
    numbers = list(texts)
    table, truncated = _encode_side(list(texts.values()), side, config)
    lengths, hashes = np.zeros(size, np.int32), np.zeros(size, np.uint64)
    lengths[numbers], hashes[numbers] = table.lengths, table.hashes
    table = ragged.make_table(table.tokens, lengths, hashes)
    return EncodedTexts(np.arange(size), table, truncated)


def _encode_ids(ids: list[str], indices: np.ndarray) -> EncodedTexts:
    data = [x.encode() for x in ids]
    lengths = np.fromiter(map(len, data), np.int32, len(data))
    tokens = np.frombuffer(b''.join(data), np.uint8)
    return EncodedTexts(indices, ragged.make_table(tokens, lengths, ragged.hash_keys(ids)))
