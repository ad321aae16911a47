"""Tokens on disk: memory-mapped arrays per dataset, side and language, written once.

Hides the layout of a store: each text once, and groups as integers that point to texts. A language
that a text lacks has length 0 and hash 0. Written by `writer`, read by `sampler` and `main`.
"""

import hashlib
import json
import os
import pathlib
import typing
from concurrent import futures

import numpy as np
from jaxtyping import Int

from hbt.data import ragged
from hbt.utils import files

VERSION = 2
MISSING = 'no store there; make one with python -m hbt.prepare --input=FILE --tokenizer=NAME --out='


class Negatives(typing.NamedTuple):
    """Hard negatives in one language: group g has the passages texts[rows[g] : rows[g + 1]]."""

    rows: np.ndarray  # groups + 1
    texts: np.ndarray  # rows of the passage tables


class Ids(typing.NamedTuple):
    """Names of texts, as the source gives them."""

    data: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    def __getitem__(self, text: int | np.integer) -> str:
        start = self.starts[text]
        return bytes(self.data[start : start + self.lengths[text]]).decode()


class Dataset(typing.NamedTuple):
    """One source. Group g pairs a query with a passage, by their rows in the tables of texts.

    Row i of a side is one text in all languages. Texts of equal class are never negatives of each
    other.
    """

    name: str
    groups: int
    query: dict[str, ragged.TokenTable]
    passage: dict[str, ragged.TokenTable]
    negatives: dict[str, Negatives]
    query_rows: np.ndarray  # groups
    passage_rows: np.ndarray  # groups
    query_class: np.ndarray  # texts
    passage_class: np.ndarray  # texts
    base: int  # texts of the datasets before this one: makes classes unique over the store
    query_ids: Ids
    passage_ids: Ids | None  # none: a passage has no name of its own

    def texts(
        self, side: str, language: str, groups: Int[np.ndarray, ' n']
    ) -> tuple[ragged.TokenTable, Int[np.ndarray, ' n'], Int[np.ndarray, ' n']]:
        """The table of a side of groups, their rows in it, and identities unique in the store."""
        if side == 'query':
            rows = self.query_rows[groups]
            return self.query[language], rows, self.base + self.query_class[rows]
        rows = self.passage_rows[groups]
        return self.passage[language], rows, self.base + self.passage_class[rows]

    def id(self, group: int | np.integer) -> str:
        """The id that the source gives to a group; in a collection, those of query and passage."""
        name = self.query_ids[self.query_rows[group]]
        if self.passage_ids is None:
            return name
        return f'{name}/{self.passage_ids[self.passage_rows[group]]}'


class Store(typing.NamedTuple):
    path: pathlib.Path
    manifest: dict
    datasets: tuple[Dataset, ...]

    @property
    def languages(self) -> tuple[str, ...]:
        """Every language of every dataset, sorted."""
        return tuple(sorted({x for d in self.datasets for s in (d.query, d.passage) for x in s}))


def open_store(path: str | os.PathLike) -> Store:
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
        base += max(len(datasets[-1].query_class), len(datasets[-1].passage_class))
    return Store(path, manifest, tuple(datasets))


def verify_store(s: Store) -> None:
    """Reads every file; ValueError for one whose bytes are not those that were written."""
    with futures.ThreadPoolExecutor() as pool:
        names = list(s.manifest['files'])
        found = pool.map(lambda name: files.sha256(s.path / name), names)
        for name, got in zip(names, found, strict=True):
            wanted = s.manifest['files'][name]['sha256']
            if got != wanted:
                raise ValueError(
                    f'{s.path / name}: expected bytes of the sum {wanted}, got {got}; the file has '
                    'changed, prepare the store again'
                )


def seal_manifest(manifest: dict) -> dict:
    """The manifest with a sum of itself."""
    told = {key: value for key, value in manifest.items() if key != 'seal'}
    text = json.dumps(told, sort_keys=True)
    return told | {'seal': hashlib.sha256(text.encode()).hexdigest()}


def read_manifest(path: pathlib.Path) -> dict:
    """The manifest of a store; ValueError if there is none, of another version, or changed."""
    file = path / 'manifest.json'
    if not file.exists():
        raise ValueError(f'{path}: {MISSING}{path}')
    manifest = files.read_json(file, dict)
    if manifest.get('version') != VERSION:
        raise ValueError(
            f'{file}: expected a store of version {VERSION}, got {manifest.get("version")}; '
            'prepare it again'
        )
    if manifest != seal_manifest(manifest):
        raise ValueError(f'{file}: expected it as it was written; prepare the store again')
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
        return ragged.TokenTable(
            array(f'{stem}.tokens', token_type),
            array(f'{stem}.starts', np.int64),
            array(f'{stem}.lengths', np.int32),
            array(f'{stem}.hashes', np.uint64),
        )

    def ids(side):
        if not (folder / f'{side}.ids').exists():
            return None
        stem = f'{side}.ids'
        parts = (stem, np.uint8), (f'{stem}.starts', np.int64), (f'{stem}.lengths', np.int32)
        return Ids(*(array(*part) for part in parts))

    tables = {side: {x: table(side, x) for x in entry[side]} for side in ('query', 'passage')}
    negatives = {
        x: Negatives(
            array(f'negatives.{x}.rows', np.int64), array(f'negatives.{x}.texts', np.int32)
        )
        for x in entry['negatives']
    }
    if '' in negatives:  # the same in all languages
        negatives = dict.fromkeys(tables['passage'], negatives[''])
    return Dataset(
        name=entry['name'],
        groups=entry['groups'],
        **tables,
        negatives=negatives,
        query_rows=array('query.rows', np.int32),
        passage_rows=array('passage.rows', np.int32),
        query_class=array('query.class', np.int32),
        passage_class=array('passage.class', np.int32),
        base=base,
        query_ids=ids('query'),
        passage_ids=ids('passage'),
    )
