"""Hard negatives of the current model: a model and a store -> the store with other negatives."""

import dataclasses
import itertools
import json
import os
import pathlib
import shutil
from collections import abc

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
    max_positive_share: float | None = None  # of the positive's cosine that it may have; None: any


def mine_negatives(
    c: config.Config, params, s: store.Store, out: pathlib.Path, settings: Settings, model: str = ''
) -> store.Store:
    """Writes `out`, whole or not at all: the store with the negatives that the model finds.

    Negatives of a group in a language are the best `depth` passages of its dataset for its query,
    in that language or else in another, without: every passage that answers a copy or a translation
    of the query, and its translations and copies; passages less than `margin` below the positive;
    those above `max_positive_share` of the positive's score, as TopK-PercPos of NV-Retriever
    (positive-aware mining, arXiv 2407.15831), which are counted; and all after the first `count`.
    Unchanged files are linked, not copied. The same call resumes after the last language that was
    searched; with another identity of the `model` it does not.

    Raises ValueError if the model has other prefixes than the store, a setting is out of range, or
    `out` exists or was begun with other settings.
    """
    stored = s.manifest['settings']
    lengths = {x: min(getattr(c.data, x), stored[x]) for x in ('query_length', 'passage_length')}
    data = dataclasses.replace(c.data, **lengths)
    c = dataclasses.replace(c, data=data, sampler=config.Sampler())
    sampler.check_store(c, s)
    for name, low in (('count', 1), ('depth', settings.count), ('margin', -2)):
        if getattr(settings, name) < low:
            raise ValueError(f'--{name}: expected {low} or more, got {getattr(settings, name)}')
    share = settings.max_positive_share
    if share is not None and not 0 < share <= 1:
        raise ValueError(f'--max_positive_share: expected more than 0 and up to 1, got {share}')
    if not files.is_free(out):
        raise ValueError(f'{out}: expected nothing there yet, got {files.describe_path(out)}')
    origin = {'model': model, 'store': s.manifest['checksum'], **dataclasses.asdict(settings)}
    partial = resume.open_folder(out, origin)
    embed_table = embedder.make_table_embedder(c, sharding.make_mesh())

    def embed(table: ragged.TokenTable, indices: Int[np.ndarray, ' n'], side: str):
        limit, end = getattr(c.data, f'{side}_length'), s.manifest['tokenizer']['end_id']
        for start in range(0, len(indices), CHUNK):  # truncated as in training
            chunk = indices[start : start + CHUNK]
            texts = ragged.truncate_texts(table, chunk, limit, end)
            yield embed_table(params, texts, side, lambda i, x=chunk: f'{side} {x[i]} of {s.path}')

    manifest = json.loads(json.dumps(s.manifest)) | {'mined': origin}
    for dataset, entry in zip(s.datasets, manifest['datasets'], strict=True):
        folder = partial / dataset.name
        folder.mkdir(exist_ok=True)
        for language in dataset.passage:
            report = folder / f'progress.{language}.json'
            if not report.exists():
                files.write_json(
                    report, _mine_language(s, dataset, language, embed, folder, settings)
                )
        counts = {x: files.read_json(folder / f'progress.{x}.json', dict) for x in dataset.passage}
        entry['negatives'] = {x: count['negatives'] for x, count in counts.items()}
        entry['mined'] = counts
    return _finish_store(s, manifest, out)


def _finish_store(s: store.Store, manifest: dict, out: pathlib.Path) -> store.Store:
    """Links the unchanged files, writes the manifest, and renames the folder."""
    partial = files.partial_path(out)
    unchanged = {x: entry for x, entry in manifest['files'].items() if '/negatives.' not in x}
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


def _mine_language(
    s: store.Store,
    dataset: store.Dataset,
    language: str,
    embed,
    folder: pathlib.Path,
    settings: Settings,
) -> dict[str, int]:
    """Writes the negatives of one language; returns its counts."""
    groups, query_of_group, queries, clusters = _collect_queries(dataset, language)
    counts, passages = np.zeros(dataset.num_groups + 1, np.int64), [np.zeros(0, np.int32)]
    above = 0
    if len(groups):  # else the language has negatives only
        table = dataset.passage[language]
        hashes, corpus = np.unique(table.hashes, return_index=True)  # each text once
        corpus = corpus[hashes != 0]
        sizes = f'{len(clusters)} queries in {len(corpus)} passages'
        log.info(f'{dataset.name}: {sizes} of {language}')

        def blocks(done: int) -> abc.Iterator[embedding_file.Block]:
            vectors = embed(table, corpus[done:], 'passage')
            return (embedding_file.Block(x, {}) for x in vectors)

        file = folder / f'progress.{language}.npy'  # the embeddings may be larger than memory
        passage_vectors, _ = embedding_file.fill_embeddings(blocks, len(corpus), file, {}, language)
        chunks = (embed(dataset.query[code], x, 'query') for code, x in queries.items())
        query_vectors = np.concatenate(list(itertools.chain.from_iterable(chunks)))
        with log.activity(f'{dataset.name}: searching {sizes} of {language}'):
            excluded = _find_answers(s, clusters, dataset.clusters('passage', corpus))
            depth = min(settings.depth, len(corpus))
            scores, top_k = _search_without(query_vectors, passage_vectors, excluded, depth)
        hashes = table.hashes[dataset.passage_indices[groups]]
        positives = np.searchsorted(table.hashes[corpus], hashes)
        for start in range(0, len(groups), CHUNK):
            rows = slice(start, start + CHUNK)
            query = query_of_group[groups[rows]]
            cosine = np.einsum('gd,gd->g', query_vectors[query], passage_vectors[positives[rows]])
            mask = (top_k[query] >= 0) & (scores[query] <= cosine[:, None] - settings.margin)
            is_above = mask & (scores[query] > _highest_score(cosine, settings)[:, None])
            above += int(np.count_nonzero(is_above))
            mask &= ~is_above
            mask &= np.cumsum(mask, axis=1) <= settings.count
            counts[groups[rows] + 1] = mask.sum(axis=1)
            passages.append(corpus[top_k[query][mask]].astype(np.int32))
        for partial in folder.glob(f'{file.stem}.*'):
            partial.unlink()
    offsets = np.cumsum(counts)
    offsets.tofile(folder / f'negatives.{language}.offsets')
    np.concatenate(passages).tofile(folder / f'negatives.{language}.passages')
    without = int(np.count_nonzero(counts[groups + 1] == 0))
    report = {'groups': len(groups), 'without': without, 'negatives': int(offsets[-1])}
    return report | ({'above_share': above} if settings.max_positive_share is not None else {})


def _highest_score(cosine: Float[np.ndarray, ' g'], settings: Settings) -> Float[np.ndarray, ' g']:
    """The highest score that is within a share of the positive's, also where that is below 0."""
    if settings.max_positive_share is None:
        return np.full_like(cosine, np.inf)
    return cosine - (1 - settings.max_positive_share) * np.abs(cosine)


def _collect_queries(dataset: store.Dataset, language: str) -> tuple:
    """The queries of the groups with a passage in the language, each in one language.

    Returns these groups, the number of each group's query (equal queries share one), the indices of
    the queries in their tables by language, and their duplicate clusters.
    """
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
            clusters.append(dataset.clusters('query', indices[code]))
            count += len(first)
    clusters = np.concatenate([np.zeros(0, np.int32), *clusters])
    return np.flatnonzero(query_of_group >= 0), query_of_group, indices, clusters


def _find_answers(
    s: store.Store, clusters: Int[np.ndarray, ' q'], corpus: Int[np.ndarray, ' n']
) -> scipy.sparse.csr_array:
    """Row i: the passages of a corpus that answer, in any dataset, a query of cluster i, [q n].

    `clusters` are those of the queries, `corpus` those of the passages.
    """
    query, passage = (
        np.concatenate([d.clusters(x, getattr(d, f'{x}_indices')) for d in s.datasets])
        for x in store.SIDES
    )
    shape = int(query.max()) + 1, int(max(passage.max(), corpus.max())) + 1
    answers = scipy.sparse.csr_array((np.ones(len(query), bool), (query, passage)), shape)
    members = corpus, np.arange(len(corpus))
    texts = scipy.sparse.csr_array((np.ones(len(corpus), bool), members), (shape[1], len(corpus)))
    return (answers @ texts)[clusters]


def _search_without(
    queries: Float[np.ndarray, 'q d'],
    documents: Float[np.ndarray, 'n d'],
    excluded: scipy.sparse.csr_array,
    depth: int,
) -> tuple[Float[np.ndarray, 'q k'], Int[np.ndarray, 'q k']]:
    """Scores and indices of the best documents of each query that are not excluded, then -1."""
    counts = np.diff(excluded.indptr)
    lists = ragged.TokenTable(excluded.indices, excluded.indptr[:-1], counts, counts)
    scores = np.zeros((len(queries), depth), np.float32)
    top_k = np.zeros(scores.shape, np.int32)
    languages = np.zeros(len(documents), np.int32)
    sizes = np.ceil(np.log(np.maximum(counts, 1)) / np.log(GROWTH)).astype(int)
    for size in np.unique(sizes):
        rows = np.flatnonzero(sizes == size)
        padded = ragged.pad_texts(lists, rows, int(max(1, counts[rows].max())), -1, None)
        relevant = np.zeros((len(rows), 0), np.int32)
        result = search.search(queries[rows], documents, relevant, languages, depth, padded)
        scores[rows], top_k[rows] = result.scores, result.top_k
    return scores, top_k


def format_counts(manifest: dict) -> str:
    """Groups, negatives, and groups without any, by dataset and language, as text."""
    rows = []
    for entry in manifest['datasets']:
        for language, n in entry['mined'].items():
            without = f'{100 * n["without"] / max(n["groups"], 1):.1f}'
            above = [n['above_share']] if 'above_share' in n else []
            rows.append((entry['name'], language, n['groups'], n['negatives'], without, *above))
    header = ('dataset', 'language', 'groups', 'negatives', 'without %', 'above share')
    header = header[: max(map(len, rows), default=5)]
    return text_table.format_table(header, rows)
