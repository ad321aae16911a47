"""Command line: a model and a store -> the store with the model's own hard negatives.

Hides which passages a query may not have as negatives, and what of the store stays as it is. The
same command on a later checkpoint refreshes them. A search that was finished before a kill is kept.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import typing
from collections import abc

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from hbt import config
from hbt.data import ragged, store
from hbt.evaluation import search
from hbt.models import embedder
from hbt.sampling import sampler
from hbt.utils import files, log, resume, sharding, text_table

CHUNK = 50_000  # texts embedded, or groups looked at, at a time
GROWTH = 8  # queries are searched together that exclude up to 1, 8, 64 ... passages


@dataclasses.dataclass
class Setting:
    """Which of the best passages become negatives."""

    count: int = 8  # of a group in each language, at most
    depth: int = 100  # best passages that are looked at
    margin: float = 0.05  # by which the cosine of a negative is at least below the positive's


class Asked(typing.NamedTuple):
    """What is asked in one language of passages; equal queries are asked once."""

    groups: Int[np.ndarray, ' g']  # those with a passage in the language
    query: Int[np.ndarray, ' g']  # of each, in the lists that follow
    rows: dict[str, Int[np.ndarray, ' n']]  # query language -> rows of its table
    classes: Int[np.ndarray, ' u']  # of all queries, by language as in `rows`


def mine(
    c: config.Config, params, s: store.Store, out: pathlib.Path, setting: Setting, model: str = ''
) -> store.Store:
    """Writes `out`, whole or not at all: the store with other negatives.

    Negatives of a group in a language are the best `depth` passages of its dataset for its query in
    that language, or where it has none in another, without: every passage that answers a copy or a
    translation of the query, and its translations and copies; passages less than `margin` below the
    positive; and what comes after the first `count`. What does not change is linked, not copied.
    Raises ValueError where the model has other prefixes than the store, or `out` was begun with
    other settings or another `model`.
    """
    c = shortened(c, s)
    for name, low in (('count', 1), ('depth', setting.count), ('margin', -2)):
        if getattr(setting, name) < low:
            raise ValueError(f'--{name}: expected {low} or more, got {getattr(setting, name)}')
    if out.exists():
        raise ValueError(f'{out}: expected nothing there yet, got {files.describe_path(out)}')
    about = {'model': model, 'store': s.manifest['checksum'], **dataclasses.asdict(setting)}
    partial = resume.open_folder(out, about)
    mesh = sharding.make_mesh()
    encode = encoder(c, params, s, mesh)
    manifest = json.loads(json.dumps(s.manifest)) | {'mined': about}
    for dataset, entry in zip(s.datasets, manifest['datasets'], strict=True):
        folder = partial / dataset.name
        folder.mkdir(exist_ok=True)
        for language in dataset.passage:
            report = folder / f'progress.{language}.json'
            if not report.exists():
                counted = language_of(dataset, language, encode, folder, setting, mesh)
                files.write_json(report, counted)
        found = {x: files.read_json(folder / f'progress.{x}.json', dict) for x in dataset.passage}
        entry['negatives'] = {x: counted['negatives'] for x, counted in found.items()}
        entry['mined'] = found
    return finish(s, manifest, partial, out)


def shortened(c: config.Config, s: store.Store) -> config.Config:
    """The config with lengths that the store has; how batches are composed is of no matter."""
    had = s.manifest['settings']
    lengths = {x: min(getattr(c.data, x), had[x]) for x in ('query_length', 'passage_length')}
    data = dataclasses.replace(c.data, **lengths)
    c = dataclasses.replace(c, data=data, sampler=config.Sampler())
    sampler.check_store(c, s)
    return c


def finish(s: store.Store, manifest: dict, partial: pathlib.Path, out: pathlib.Path) -> store.Store:
    """Links what stays, counts what is new, and names the whole."""
    known = manifest['files']
    kept = {x: known[x] for x in known if not pathlib.Path(x).name.startswith('negatives.')}
    for name in kept:
        (partial / name).unlink(missing_ok=True)
        try:
            os.link(s.path / name, partial / name)
        except OSError:  # another file system
            shutil.copyfile(s.path / name, partial / name)
    manifest['files'] = kept | store.describe_files(partial, 'negatives.*')
    files.write_json(partial / 'manifest.json', store.add_checksum(manifest))
    resume.finish_folder(out)
    return store.open_store(out)


def encoder(c: config.Config, params, s: store.Store, mesh) -> abc.Callable:
    """`encode(table, rows, side) -> chunks of [n d]`, cut as in training."""
    run, end = embedder.make_table_embedder(c, mesh), s.manifest['tokenizer']['end_id']

    def encode(table: ragged.TokenTable, rows: Int[np.ndarray, ' n'], side: str):
        limit = getattr(c.data, f'{side}_length')
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            yield run(params, ragged.truncate_texts(table, part, limit, end), side)

    return encode


def language_of(
    dataset: store.Dataset, language: str, encode, folder: pathlib.Path, setting: Setting, mesh
) -> dict[str, int]:
    """Writes the negatives of one language; returns its counts."""
    asked = ask(dataset, language)
    counts, texts = np.zeros(dataset.num_groups + 1, np.int64), np.zeros(0, np.int32)
    if len(asked.groups):  # else the language has negatives alone
        vectors = folder / 'progress.vectors.npy'
        counts[asked.groups + 1], texts = chosen(
            dataset, language, asked, encode, vectors, setting, mesh
        )
        vectors.unlink()
    rows = np.cumsum(counts)
    rows.tofile(folder / f'negatives.{language}.offsets')
    texts.tofile(folder / f'negatives.{language}.passages')
    without = int(np.count_nonzero(counts[asked.groups + 1] == 0))
    return {'groups': len(asked.groups), 'without': without, 'negatives': int(rows[-1])}


def chosen(
    dataset: store.Dataset, language: str, asked: Asked, encode, file, setting: Setting, mesh
) -> tuple[Int[np.ndarray, ' g'], Int[np.ndarray, ' m']]:
    """How many negatives each of the groups has, and all of them, as rows of the passage table."""
    table = dataset.passage[language]
    corpus = first_of_each(table.hashes)
    log.info(
        f'{dataset.name}: {len(asked.classes)} queries in {len(corpus)} passages of {language}'
    )
    documents = save(file, encode(table, corpus, 'passage'), len(corpus))
    queries = np.concatenate(
        [x for code, rows in asked.rows.items() for x in encode(dataset.query[code], rows, 'query')]
    )
    banned = answers(dataset, asked.classes, corpus)
    scores, top = best(queries, documents, banned, min(setting.depth, len(corpus)), mesh)
    place = np.searchsorted(
        table.hashes[corpus], table.hashes[dataset.passage_indices[asked.groups]]
    )
    counts, texts = [], []
    for start in range(0, len(place), CHUNK):
        mine = asked.query[start : start + CHUNK]
        positive = np.einsum('gd,gd->g', queries[mine], documents[place[start : start + CHUNK]])
        fit = (top[mine] >= 0) & (scores[mine] <= positive[:, None] - setting.margin)
        fit &= np.cumsum(fit, axis=1) <= setting.count
        counts.append(fit.sum(axis=1))
        texts.append(corpus[top[mine][fit]].astype(np.int32))
    return np.concatenate(counts), np.concatenate(texts)


def first_of_each(hashes: np.ndarray) -> Int[np.ndarray, ' n']:
    """A row of every text that there is, in the order of their hashes."""
    known, rows = np.unique(hashes, return_index=True)
    return rows[known != 0]


def ask(dataset: store.Dataset, language: str) -> Asked:
    """The queries of all groups that have a passage in the language, each in one language."""
    has = dataset.passage[language].hashes[dataset.passage_indices] != 0
    query, rows, classes, count = np.full(dataset.num_groups, -1), {}, [], 0
    for code in sorted(dataset.query, key=lambda x: (x != language, x)):
        hashes = dataset.query[code].hashes[dataset.query_indices]
        mine = np.flatnonzero(has & (query < 0) & (hashes != 0))
        _, first, number = np.unique(hashes[mine], return_index=True, return_inverse=True)
        if len(mine):
            query[mine] = count + number
            rows[code] = dataset.query_indices[mine[first]]
            classes.append(dataset.query_clusters[rows[code]])
            count += len(first)
    groups = np.flatnonzero(query >= 0)
    return Asked(groups, query[groups], rows, np.concatenate([np.zeros(0, np.int32), *classes]))


def save(file: pathlib.Path, chunks: abc.Iterable, count: int) -> Float[np.ndarray, 'n d']:
    """Embeddings in a file, which may be larger than memory."""
    rows, start = None, 0
    for chunk in chunks:
        if rows is None:
            rows = np.lib.format.open_memmap(file, 'w+', np.float32, (count, chunk.shape[1]))
        rows[start : start + len(chunk)] = chunk
        start += len(chunk)
    rows.flush()
    return np.load(file, mmap_mode='r')


def answers(
    dataset: store.Dataset, classes: Int[np.ndarray, ' u'], corpus: Int[np.ndarray, ' n']
) -> scipy.sparse.csr_array:
    """Row u holds the passages of the corpus that answer any query of its class, [u n]."""
    query, passage = dataset.query_clusters, dataset.passage_clusters
    pairs = query[dataset.query_indices], passage[dataset.passage_indices]
    sizes = [int(max(x.max(), y.max())) + 1 for x, y in ((query, pairs[0]), (passage, pairs[1]))]
    links = scipy.sparse.csr_array((np.ones(len(pairs[0]), bool), pairs), tuple(sizes))
    places = passage[corpus], np.arange(len(corpus))
    texts = scipy.sparse.csr_array((np.ones(len(corpus), bool), places), (sizes[1], len(corpus)))
    return (links @ texts)[classes]


def best(
    queries: Float[np.ndarray, 'u d'],
    documents: Float[np.ndarray, 'n d'],
    banned: scipy.sparse.csr_array,
    depth: int,
    mesh,
) -> tuple[Float[np.ndarray, 'u k'], Int[np.ndarray, 'u k']]:
    """Scores and numbers of the best documents of each query that are not banned; -1: none left."""
    counts = np.diff(banned.indptr)
    scores = np.zeros((len(queries), depth), np.float32)
    top = np.zeros(scores.shape, np.int32)
    sizes = np.ceil(np.log(np.maximum(counts, 1)) / np.log(GROWTH)).astype(int)
    for size in np.unique(sizes):
        rows = np.flatnonzero(sizes == size)
        excluded = np.full((len(rows), max(1, counts[rows].max())), -1, np.int32)
        part = banned[rows]
        row = np.repeat(np.arange(len(rows)), counts[rows])
        excluded[row, np.arange(len(row)) - np.repeat(part.indptr[:-1], counts[rows])] = (
            part.indices
        )
        found = search.search(
            queries[rows],
            documents,
            np.zeros((len(rows), 0), np.int32),
            np.zeros(len(documents), np.int32),
            depth,
            excluded,
            mesh,
        )
        scores[rows], top[rows] = found.scores, found.top_k
    return scores, top


def format_counts(manifest: dict) -> str:
    """Groups, negatives, and groups without any, by dataset and language, as text."""
    rows = [
        (entry['name'], language, n['groups'], n['negatives'], f'{_without(n):.1f}')
        for entry in manifest['datasets']
        for language, n in entry['mined'].items()
    ]
    return text_table.format_table(
        ('dataset', 'language', 'groups', 'negatives', 'without %'), rows
    )


def _without(counts: dict) -> float:
    return 100 * counts['without'] / max(counts['groups'], 1)
