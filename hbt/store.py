"""Tokens on disk: memory-mapped arrays per dataset, side and language, written once.

Hides the layout of a store. Row g of every array of a dataset is translation group g; a language
that a group lacks has length 0 and hash 0. Written by `prepare`, read by `sampler` and `main`.
"""

import json
import os
import pathlib
import typing

import numpy as np
from jaxtyping import Int

SIDES = ('query', 'passage', 'negatives')
VERSION = 1
BUCKETS = (16, 32, 64, 96, 128, 192, 256, 384, 512)  # widths that are compiled
MISSING = 'no store there; make one with python -m hbt.prepare --input=FILE --tokenizer=NAME --out='


class Table(typing.NamedTuple):
    """Texts of one side and language. Text i is tokens[offsets[i] : offsets[i + 1]]."""

    tokens: np.ndarray  # all tokens
    offsets: np.ndarray  # texts + 1
    hashes: np.ndarray  # texts; of the text, 0 where there is none
    rows: np.ndarray | None  # groups + 1, negatives only: group g has texts rows[g] : rows[g + 1]


class Dataset(typing.NamedTuple):
    """One source. Groups of equal class share a text and are never negatives of each other."""

    name: str
    groups: int
    query: dict[str, Table]
    passage: dict[str, Table]
    negatives: dict[str, Table]
    query_class: np.ndarray  # groups
    passage_class: np.ndarray  # groups
    negative_class: dict[str, np.ndarray]  # language -> texts; -1: equal to no passage
    base: int  # groups of the datasets before this one: makes classes unique over the store
    ids: tuple[np.ndarray, np.ndarray]  # bytes and offsets

    def id(self, group: int | np.integer) -> str:
        """The id that the source gives to a group."""
        data, offsets = self.ids
        return bytes(data[offsets[group] : offsets[group + 1]]).decode()


class Store(typing.NamedTuple):
    path: pathlib.Path
    manifest: dict
    datasets: tuple[Dataset, ...]

    @property
    def languages(self) -> tuple[str, ...]:
        """Every language of every dataset, sorted."""
        return tuple(sorted({x for d in self.datasets for s in (d.query, d.passage) for x in s}))


def open(path: str | os.PathLike) -> Store:
    """Opens a store without reading its arrays.

    Raises ValueError where it is missing, of another version, or a file has not the size that the
    manifest gives.
    """
    path = pathlib.Path(path)
    manifest = read_manifest(path)
    for name, known in manifest['files'].items():
        file, size = path / name, known['bytes']
        found = file.stat().st_size if file.exists() else 'no file'
        if found != size:
            raise ValueError(f'{file}: expected {size} bytes, got {found}; prepare the store again')
    base, datasets = 0, []
    for entry in manifest['datasets']:
        datasets.append(open_dataset(path, manifest, entry, base))
        base += entry['groups']
    return Store(path, manifest, tuple(datasets))


def read_manifest(path: pathlib.Path) -> dict:
    """The manifest of a store; ValueError where there is none or it is of another version."""
    file = path / 'manifest.json'
    if not file.exists():
        raise ValueError(f'{path}: {MISSING}{path}')
    try:
        manifest = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f'{file}: expected JSON, got {error}') from None
    version = manifest.get('version') if isinstance(manifest, dict) else None
    if version != VERSION:
        raise ValueError(f'{file}: expected a store of version {VERSION}, got {version}')
    return manifest


def open_dataset(path, manifest, entry, base) -> Dataset:
    folder = path / entry['name']
    token_type = manifest['tokenizer']['dtype']

    def array(name, dtype):
        file = folder / name
        empty = file.stat().st_size == 0  # memmap refuses empty files
        return np.zeros(0, dtype) if empty else np.memmap(file, dtype, 'r')

    def table(side, language):
        stem = f'{side}.{language}'
        rows = array(f'{stem}.rows', np.int64) if side == 'negatives' else None
        return Table(
            array(f'{stem}.tokens', token_type),
            array(f'{stem}.offsets', np.int64),
            array(f'{stem}.hashes', np.uint64),
            rows,
        )

    tables = {side: {x: table(side, x) for x in entry[side]} for side in SIDES}
    return Dataset(
        name=entry['name'],
        groups=entry['groups'],
        **tables,
        query_class=array('query.class', np.int32),
        passage_class=array('passage.class', np.int32),
        negative_class={x: array(f'negatives.{x}.class', np.int32) for x in entry['negatives']},
        base=base,
        ids=(array('ids', np.uint8), array('ids.offsets', np.int64)),
    )


def lengths(table: Table, texts: Int[np.ndarray, 'n'], limit: int) -> Int[np.ndarray, 'n']:
    """Tokens of each text when it is cut to `limit`."""
    return np.minimum(table.offsets[texts + 1] - table.offsets[texts], limit)


def cut(ids: list[int], limit: int, end: int | None) -> list[int]:
    """At most `limit` tokens; a text that is too long keeps its `end` token, if there is one."""
    if len(ids) <= limit:
        return ids
    return ids[:limit] if end is None else [*ids[: limit - 1], end]


def bucket(length: int) -> int:
    """The smallest width to pad texts of this many tokens to."""
    return next((width for width in BUCKETS if width >= length), length)


def gather(
    table: Table, texts: Int[np.ndarray, 'n'], width: int, pad: int, end: int | None
) -> Int[np.ndarray, 'n width']:
    """Tokens of each text, padded on the right; one that is too long is cut and keeps its end."""
    starts = table.offsets[texts]
    full = table.offsets[texts + 1] - starts
    column = np.arange(width)
    real = column < full[:, None]
    out = np.full(real.shape, pad, np.int32)
    out[real] = table.tokens[(starts[:, None] + column)[real]]
    if end is not None:
        out[full > width, -1] = end
    return out


def stream(
    table: Table, texts: Int[np.ndarray, 'n'], lengths: Int[np.ndarray, 'n'], end: int | None
) -> tuple[Int[np.ndarray, 'm'], Int[np.ndarray, 'm']]:
    """The first `lengths` tokens of each text, one after another: (place in its text, token).

    A text that is longer keeps its end token.
    """
    last = np.cumsum(lengths)
    place = np.arange(last[-1] if len(last) else 0) - np.repeat(last - lengths, lengths)
    tokens = table.tokens[np.repeat(table.offsets[texts], lengths) + place].astype(np.int32)
    if end is not None:
        cut = table.offsets[texts + 1] - table.offsets[texts] > lengths
        tokens[last[cut] - 1] = end
    return place, tokens
