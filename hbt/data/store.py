"""Tokens on disk, written once: memory-mapped arrays of every dataset, side and language.

manifest.json         settings, counts, size and checksum of every file, checksum of itself
tokenizer.json        with which the texts were tokenised
cleaning.tsv          what was found in the texts, where that was asked for
DATASET/              SIDE is query or passage; text i of a side is one text in all languages
  SIDE.LANGUAGE.{tokens,starts,lengths,hashes}    a `ragged.TokenTable`
  SIDE.ids.{tokens,starts,lengths,hashes}         ids as bytes; of passages in collections only
  SIDE.clusters                                   duplicate cluster of every text
  SIDE.indices                                    which text each group has
  negatives.LANGUAGE.{offsets,passages}           `Negatives`; no language: the same for all
"""

import json
import os
import pathlib
import typing
from concurrent import futures

import numpy as np
from jaxtyping import Int

from hbt.data import ragged
from hbt.utils import files

VERSION = 3  # of the layout
CLUSTERS = 'of all datasets'  # numbers duplicate clusters; of older stores, those of each
SIDES = ('query', 'passage')
TABLE_TYPES = {'starts': np.int64, 'lengths': np.int32, 'hashes': np.uint64}  # next to the tokens


class Negatives(typing.NamedTuple):
    """Hard negatives in a language. Group g has passages[offsets[g] : offsets[g + 1]]."""

    offsets: np.ndarray  # groups + 1
    passages: np.ndarray  # indices of the passage tables


class Dataset(typing.NamedTuple):
    """One source. Texts of a duplicate cluster are never negatives of each other."""

    name: str
    num_groups: int
    query: dict[str, ragged.TokenTable]  # by language
    passage: dict[str, ragged.TokenTable]
    negatives: dict[str, Negatives]
    query_indices: np.ndarray  # groups
    passage_indices: np.ndarray  # groups
    query_clusters: np.ndarray  # texts
    passage_clusters: np.ndarray  # texts
    cluster_offset: int  # added to clusters: 0, or of older stores what makes them unique
    query_ids: ragged.TokenTable  # of bytes
    passage_ids: ragged.TokenTable | None = None  # where passages have ids of their own

    def clusters(self, side: str, texts: Int[np.ndarray, ' n']) -> Int[np.ndarray, ' n']:
        """The duplicate cluster of texts of a side, over all datasets."""
        return self.cluster_offset + getattr(self, f'{side}_clusters')[texts]

    def texts_of_groups(
        self, side: str, language: str, groups: Int[np.ndarray, ' n']
    ) -> tuple[ragged.TokenTable, Int[np.ndarray, ' n'], Int[np.ndarray, ' n']]:
        """The table of a side, the indices of the groups' texts in it, and their clusters."""
        indices = getattr(self, f'{side}_indices')[groups]
        return getattr(self, side)[language], indices, self.clusters(side, indices)

    def group_id(self, group: int | np.integer) -> str:
        """The id that the source gives to a group; in a collection, those of query and passage."""
        name = decode_id(self.query_ids, self.query_indices[group])
        if self.passage_ids is None:
            return name
        return f'{name}/{decode_id(self.passage_ids, self.passage_indices[group])}'


def decode_id(ids: ragged.TokenTable, index: int | np.integer) -> str:
    """The id of a text."""
    return bytes(ragged.token_ids(ids, index)).decode()


class Store(typing.NamedTuple):
    """An opened store."""

    path: pathlib.Path
    manifest: dict
    datasets: tuple[Dataset, ...]

    @property
    def languages(self) -> tuple[str, ...]:
        """Every language of every dataset, sorted."""
        return tuple(sorted({x for d in self.datasets for s in (d.query, d.passage) for x in s}))


def open_store(path: str | os.PathLike) -> Store:
    """Opens a store without reading its arrays.

    Raises ValueError if there is none, or one of another version, or if a file has another size.
    """
    path = pathlib.Path(path)
    file = path / 'manifest.json'
    if not files.is_free(path) and not file.exists():
        got = files.describe_path(path)
        raise ValueError(
            f'{path}: expected a store, with a manifest.json, got {got}; choose another path'
        )
    if not file.exists():
        raise ValueError(
            f'{path}: no store there; make one with '
            f'python -m hbt.prepare --input=FILE --tokenizer=NAME --out={path}'
        )
    manifest = files.read_json(file, dict)
    if manifest.get('version') != VERSION:
        raise ValueError(
            f'{file}: expected a store of version {VERSION}, got {manifest.get("version")}; '
            f'delete {path} and prepare it again'
        )
    if manifest != add_checksum(manifest):
        raise ValueError(f'{file}: expected it as it was written; prepare the store again')
    for name, entry in manifest['files'].items():
        file = path / name
        size = file.stat().st_size if file.exists() else 'no file'
        if size != entry['bytes']:
            raise ValueError(
                f'{file}: expected {entry["bytes"]} bytes, got {size}; prepare the store again'
            )
    offset, datasets = 0, []
    for entry in manifest['datasets']:
        dataset = _open_dataset(path / entry['name'], entry, manifest['tokenizer']['dtype'], offset)
        if manifest.get('clusters') != CLUSTERS:
            offset += max(len(dataset.query_clusters), len(dataset.passage_clusters))
        datasets.append(dataset)
    return Store(path, manifest, tuple(datasets))


def verify_store(s: Store, endings: tuple[str, ...] = ('',)) -> None:
    """Reads every file with such an ending; ValueError for one that differs from its checksum."""
    entries = {name: x for name, x in s.manifest['files'].items() if name.endswith(endings)}
    with futures.ThreadPoolExecutor() as pool:
        checksums = pool.map(lambda name: files.sha256(s.path / name), entries)
        for (name, entry), checksum in zip(entries.items(), checksums, strict=True):
            if checksum != entry['sha256']:
                raise ValueError(
                    f'{s.path / name}: expected the checksum {entry["sha256"]}, got {checksum}; '
                    'the file has changed, prepare the store again'
                )


def describe_files(folder: pathlib.Path, pattern: str) -> dict[str, dict]:
    """Size and checksum of the files of a store, as its manifest keeps them."""
    return {
        str(file.relative_to(folder)): {'bytes': file.stat().st_size, 'sha256': files.sha256(file)}
        for file in sorted(folder.rglob(pattern))
        if file.is_file() and not file.name.startswith('progress.')
    }


def add_checksum(manifest: dict) -> dict:
    """The manifest with a checksum of itself."""
    content = {key: value for key, value in manifest.items() if key != 'checksum'}
    return content | {'checksum': files.sha256_of_text(json.dumps(content, sort_keys=True))}


def map_table(folder: pathlib.Path, stem: str, token_type: str) -> ragged.TokenTable:
    """The table `stem`, such as query.en, in the folder of a dataset."""
    types = {'tokens': token_type} | TABLE_TYPES
    return ragged.TokenTable(*(_map(folder / f'{stem}.{x}', dtype) for x, dtype in types.items()))


def _map(file: pathlib.Path, dtype) -> np.ndarray:
    # memmap refuses empty files.
    return np.memmap(file, dtype, 'r') if file.stat().st_size else np.zeros(0, dtype)


def _open_dataset(folder: pathlib.Path, entry: dict, token_type: str, offset: int) -> Dataset:
    fields = {}
    for side in SIDES:
        fields[side] = {x: map_table(folder, f'{side}.{x}', token_type) for x in entry[side]}
        fields[f'{side}_indices'] = _map(folder / f'{side}.indices', np.int32)
        fields[f'{side}_clusters'] = _map(folder / f'{side}.clusters', np.int32)
        if (folder / f'{side}.ids.tokens').exists():
            fields[f'{side}_ids'] = map_table(folder, f'{side}.ids', 'uint8')
    negatives = {}
    for x in entry['negatives']:
        offsets = _map(folder / f'negatives.{x}.offsets', np.int64)
        negatives[x] = Negatives(offsets, _map(folder / f'negatives.{x}.passages', np.int32))
    if '' in negatives:  # the same in all languages
        negatives = dict.fromkeys(fields['passage'], negatives[''])
    return Dataset(
        entry['name'], entry['groups'], negatives=negatives, cluster_offset=offset, **fields
    )
