"""Hard negatives of the current model: a model and a store -> the store with other negatives.

The same call with a later checkpoint refreshes them; a language that was searched before a kill is
not searched again.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import typing
from collections import abc

import jax
import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from hbt import config
from hbt.data import ragged, store
from hbt.evaluation import search
from hbt.models import embedder, embedding_file
from hbt.sampling import sampler
from hbt.utils import files, log, resume, sharding, text_table

CHUNK = 50_000  # texts embedded, or groups filtered, at a time
GROWTH = 8  # queries are searched together that exclude up to 1, 8, 64 ... passages


@dataclasses.dataclass
class Settings:
    """Which of the best passages become negatives."""

    count: int = 8  # of a group in each language, at most
    depth: int = 100  # best passages that are looked at
    margin: float = 0.05  # by which the cosine of a negative is at least below the positive's


class Queries(typing.NamedTuple):
    """The queries whose positives are in one language; equal queries are searched once."""

    groups: Int[np.ndarray, ' g']  # with a passage in the language
    query_of_group: Int[np.ndarray, ' g']  # index into all queries, in the order of `indices`
    indices: dict[str, Int[np.ndarray, ' n']]  # by query language, in its table
    clusters: Int[np.ndarray, ' q']  # duplicate cluster of each query


def mine_negatives(
    c: config.Config,
    params,
    s: store.Store,
    out: pathlib.Path,
    settings: Settings,
    model: str = '',
) -> store.Store:
    """Writes `out`, whole or not at all: the store with the negatives that the model finds.

    Negatives of a group in a language are the best `depth` passages of its dataset for its query,
    in that language or else in another, without: every passage that answers a copy or a translation
    of the query, and its translations and copies; passages less than `margin` below the positive;
    and all after the first `count`. Unchanged files are linked, not copied.

    Args:
      model: identity of the model; another one does not resume `out`.

    Raises:
      ValueError: the model has other prefixes than the store, a setting is out of range, or `out`
        exists or was begun with other settings.
    """
    c = _fit_lengths(c, s)
    for name, low in (('count', 1), ('depth', settings.count), ('margin', -2)):
        if getattr(settings, name) < low:
            raise ValueError(f'--{name}: expected {low} or more, got {getattr(settings, name)}')
    if out.exists():
        raise ValueError(f'{out}: expected nothing there yet, got {files.describe_path(out)}')
    origin = {'model': model, 'store': s.manifest['checksum'], **dataclasses.asdict(settings)}
    partial = resume.open_folder(out, origin)
    mesh = sharding.make_mesh()
    embed = _make_embed(c, params, s, mesh)
    manifest = json.loads(json.dumps(s.manifest)) | {'mined': origin}
    for dataset, entry in zip(s.datasets, manifest['datasets'], strict=True):
        folder = partial / dataset.name
        folder.mkdir(exist_ok=True)
        for language in dataset.passage:
            report = folder / f'progress.{language}.json'
            if not report.exists():
                counts = _mine_language(dataset, language, embed, folder, settings, mesh)
                files.write_json(report, counts)
        counts = {x: files.read_json(folder / f'progress.{x}.json', dict) for x in dataset.passage}
        entry['negatives'] = {x: count['negatives'] for x, count in counts.items()}
        entry['mined'] = counts
    return _finish_store(s, manifest, partial, out)


def _fit_lengths(c: config.Config, s: store.Store) -> config.Config:
    """The config with lengths that the store has; ValueError for other prefixes."""
    stored = s.manifest['settings']
    lengths = {x: min(getattr(c.data, x), stored[x]) for x in ('query_length', 'passage_length')}
    data = dataclasses.replace(c.data, **lengths)
    c = dataclasses.replace(c, data=data, sampler=config.Sampler())
    sampler.check_store(c, s)
    return c


def _finish_store(
    s: store.Store, manifest: dict, partial: pathlib.Path, out: pathlib.Path
) -> store.Store:
    """Links the unchanged files, writes the manifest, and renames the folder."""
    unchanged = {
        name: entry
        for name, entry in manifest['files'].items()
        if not pathlib.Path(name).name.startswith('negatives.')
    }
    for name in unchanged:
        (partial / name).unlink(missing_ok=True)
        try:
            os.link(s.path / name, partial / name)
        except OSError:  # another file system
            shutil.copyfile(s.path / name, partial / name)
    manifest['files'] = unchanged | store.describe_files(partial, 'negatives.*')
    files.write_json(partial / 'manifest.json', store.add_checksum(manifest))
    resume.finish_folder(out)
    return store.open_store(out)


def _make_embed(
    c: config.Config, params, s: store.Store, mesh: jax.sharding.Mesh
) -> abc.Callable[..., abc.Iterator[Float[np.ndarray, 'n d']]]:
    """`embed(table, indices, side)` -> chunks of embeddings, of texts truncated as in training."""
    embed_table, end = embedder.make_table_embedder(c, mesh), s.manifest['tokenizer']['end_id']

    def embed(table: ragged.TokenTable, indices: Int[np.ndarray, ' n'], side: str):
        limit = getattr(c.data, f'{side}_length')
        for start in range(0, len(indices), CHUNK):
            texts = ragged.truncate_texts(table, indices[start : start + CHUNK], limit, end)
            yield embed_table(params, texts, side)

    return embed


def _mine_language(
    dataset: store.Dataset,
    language: str,
    embed: abc.Callable,
    folder: pathlib.Path,
    settings: Settings,
    mesh: jax.sharding.Mesh,
) -> dict[str, int]:
    """Writes the negatives of one language; returns its counts."""
    queries = _collect_queries(dataset, language)
    counts, passages = np.zeros(dataset.num_groups + 1, np.int64), np.zeros(0, np.int32)
    if len(queries.groups):  # else the language has negatives only
        file = folder / f'progress.{language}.npy'
        counts[queries.groups + 1], passages = _select_negatives(
            dataset, language, queries, embed, file, settings, mesh
        )
        for partial in folder.glob(f'{file.stem}.*'):
            partial.unlink()
    offsets = np.cumsum(counts)
    offsets.tofile(folder / f'negatives.{language}.offsets')
    passages.tofile(folder / f'negatives.{language}.passages')
    without = int(np.count_nonzero(counts[queries.groups + 1] == 0))
    return {'groups': len(queries.groups), 'without': without, 'negatives': int(offsets[-1])}


def _select_negatives(
    dataset: store.Dataset,
    language: str,
    queries: Queries,
    embed: abc.Callable,
    file: pathlib.Path,
    settings: Settings,
    mesh: jax.sharding.Mesh,
) -> tuple[Int[np.ndarray, ' g'], Int[np.ndarray, ' m']]:
    """How many negatives each of the groups has, and all of them, as indices of the table.

    Args:
      file: for the embeddings of the passages, which may be larger than memory.
    """
    table = dataset.passage[language]
    hashes, corpus = np.unique(table.hashes, return_index=True)  # each text once
    corpus = corpus[hashes != 0]
    log.info(
        f'{dataset.name}: {len(queries.clusters)} queries in {len(corpus)} passages of {language}'
    )

    def blocks(done: int) -> abc.Iterator[embedding_file.Block]:
        vectors = embed(table, corpus[done:], 'passage')
        return (embedding_file.Block(x, {}) for x in vectors)

    passage_vectors, _ = embedding_file.fill_embeddings(blocks, len(corpus), file, {}, language)
    query_vectors = np.concatenate(
        [
            vectors
            for code, indices in queries.indices.items()
            for vectors in embed(dataset.query[code], indices, 'query')
        ]
    )
    excluded = _find_answers(dataset, queries.clusters, corpus)
    depth = min(settings.depth, len(corpus))
    scores, top_k = _search_without(query_vectors, passage_vectors, excluded, depth, mesh)
    positives = np.searchsorted(
        table.hashes[corpus], table.hashes[dataset.passage_indices[queries.groups]]
    )
    counts, passages = [], []
    for start in range(0, len(positives), CHUNK):
        query = queries.query_of_group[start : start + CHUNK]
        positive = passage_vectors[positives[start : start + CHUNK]]
        cosine = np.einsum('gd,gd->g', query_vectors[query], positive)
        mask = (top_k[query] >= 0) & (scores[query] <= cosine[:, None] - settings.margin)
        mask &= np.cumsum(mask, axis=1) <= settings.count
        counts.append(mask.sum(axis=1))
        passages.append(corpus[top_k[query][mask]].astype(np.int32))
    return np.concatenate(counts), np.concatenate(passages)


def _collect_queries(dataset: store.Dataset, language: str) -> Queries:
    """The queries of all groups that have a passage in the language, each in one language."""
    has_passage = dataset.passage[language].hashes[dataset.passage_indices] != 0
    query_of_group, indices, clusters = np.full(dataset.num_groups, -1), {}, []
    count = 0
    for code in sorted(dataset.query, key=lambda x: (x != language, x)):
        hashes = dataset.query[code].hashes[dataset.query_indices]
        groups = np.flatnonzero(has_passage & (query_of_group < 0) & (hashes != 0))
        _, first, number = np.unique(hashes[groups], return_index=True, return_inverse=True)
        if len(groups):
            query_of_group[groups] = count + number
            indices[code] = dataset.query_indices[groups[first]]
            clusters.append(dataset.query_clusters[indices[code]])
            count += len(first)
    groups = np.flatnonzero(query_of_group >= 0)
    clusters = np.concatenate([np.zeros(0, np.int32), *clusters])
    return Queries(groups, query_of_group[groups], indices, clusters)


def _find_answers(
    dataset: store.Dataset, clusters: Int[np.ndarray, ' q'], corpus: Int[np.ndarray, ' n']
) -> scipy.sparse.csr_array:
    """Row i holds the passages of the corpus that answer any query of cluster i, [q n]."""
    query, passage = dataset.query_clusters, dataset.passage_clusters
    pairs = query[dataset.query_indices], passage[dataset.passage_indices]
    sizes = [int(max(x.max(), y.max())) + 1 for x, y in ((query, pairs[0]), (passage, pairs[1]))]
    answers = scipy.sparse.csr_array((np.ones(len(pairs[0]), bool), pairs), tuple(sizes))
    members = passage[corpus], np.arange(len(corpus))
    texts = scipy.sparse.csr_array((np.ones(len(corpus), bool), members), (sizes[1], len(corpus)))
    return (answers @ texts)[clusters]


def _search_without(
    queries: Float[np.ndarray, 'q d'],
    documents: Float[np.ndarray, 'n d'],
    excluded: scipy.sparse.csr_array,
    depth: int,
    mesh: jax.sharding.Mesh,
) -> tuple[Float[np.ndarray, 'q k'], Int[np.ndarray, 'q k']]:
    """Scores and indices of the best documents of each query that are not excluded, then -1."""
    counts = np.diff(excluded.indptr)
    scores = np.zeros((len(queries), depth), np.float32)
    top_k = np.zeros(scores.shape, np.int32)
    sizes = np.ceil(np.log(np.maximum(counts, 1)) / np.log(GROWTH)).astype(int)
    for size in np.unique(sizes):
        rows = np.flatnonzero(sizes == size)
        padded = np.full((len(rows), max(1, counts[rows].max())), -1, np.int32)
        selected = excluded[rows]
        row = np.repeat(np.arange(len(rows)), counts[rows])
        column = np.arange(len(row)) - np.repeat(selected.indptr[:-1], counts[rows])
        padded[row, column] = selected.indices
        result = search.search(
            queries[rows],
            documents,
            np.zeros((len(rows), 0), np.int32),
            np.zeros(len(documents), np.int32),
            depth,
            padded,
            mesh,
        )
        scores[rows], top_k[rows] = result.scores, result.top_k
    return scores, top_k


def format_counts(manifest: dict) -> str:
    """Groups, negatives, and groups without any, by dataset and language, as text."""
    rows = []
    for entry in manifest['datasets']:
        for language, n in entry['mined'].items():
            without = f'{100 * n["without"] / max(n["groups"], 1):.1f}'
            rows.append((entry['name'], language, n['groups'], n['negatives'], without))
    header = ('dataset', 'language', 'groups', 'negatives', 'without %')
    return text_table.format_table(header, rows)
