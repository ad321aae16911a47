"""From a collection to a benchmark: arrays of indices, and documents by id, descending.

In this order, "the smaller index first" is trec_eval's rule for equal scores.
"""

import itertools
import os
import pathlib
import re
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from hbt.data.readers import schema
from hbt.utils import languages

MISSING = -2  # index of a relevant document that the corpus lacks


class Entry(NamedTuple):
    """A query or a document; ids are unique among each. Its text may be empty."""

    id: str
    language: str
    text: str
    where: str = ''  # file and line, for errors


class Entries(Iterable):
    """Entries that `read(*args)` yields, anew for each iteration, so that none stay in memory."""

    def __init__(self, read: Callable[..., Iterator[Entry]], *args):
        self._read, self._args = read, args

    def __iter__(self) -> Iterator[Entry]:
        return self._read(*self._args)


class Collection(NamedTuple):
    """A benchmark as its files hold it."""

    queries: list[Entry]
    documents: Iterable[Entry]  # may be more than memory holds
    qrels: dict[str, dict[str, int]]  # query -> document -> grade; 0 and less: not relevant
    parallel: dict[str, str] = {}  # query -> a key that its translations share
    excluded: dict[str, str] = {}  # query -> the document that is the query itself, if any
    files: tuple[pathlib.Path, ...] = ()


class TextColumns(NamedTuple):
    """Parallel columns. Ids are unique, stable, and without whitespace; texts may be on disk."""

    ids: Sequence[str]
    languages: Sequence[str]
    texts: Sequence[str]


class Benchmark(NamedTuple):
    """Queries, documents (in descending order of their ids), and judgements."""

    name: str
    queries: TextColumns
    documents: TextColumns
    languages: list[str]  # of queries and documents, sorted
    query_languages: Int[np.ndarray, ' q']  # index into `languages`
    document_languages: Int[np.ndarray, ' n']
    relevant: Int[np.ndarray, 'q r']  # indices of relevant documents, ascending, MISSING, then -1
    grades: Int[np.ndarray, 'q r'] | None = None  # of the relevant documents; none: all are 1
    excluded: Int[np.ndarray, 'q x'] | None = None  # documents that are the query itself, then -1
    parallel: Int[np.ndarray, ' q'] | None = None  # equal for translations; -1: has none
    files: tuple[pathlib.Path, ...] = ()
    missing: tuple[str, ...] = ()  # ids of the MISSING documents of `relevant`, row by row
    empty: int = 0  # how many queries and documents have no text

    @property
    def relevant_languages(self) -> Int[np.ndarray, 'q r']:
        """Languages of the relevant documents; -1: padding, or unknown.

        A document that the corpus lacks has the language of all documents, or else that of its
        query, if any documents are in that.
        """
        codes, own = np.unique(self.document_languages), self.query_languages
        lacking = codes if len(codes) == 1 else np.where(np.isin(own, codes), own, -1)[:, None]
        present = self.document_languages[np.maximum(self.relevant, 0)]
        others = np.where(self.relevant == MISSING, lacking, -1)
        return np.where(self.relevant >= 0, present, others)


class TextsOnDisk(Sequence):
    """Texts in a file in TMPDIR, deleted with the last reference; a text takes 16 B of memory."""

    def __init__(self, texts: Iterable[str]):
        with tempfile.TemporaryFile(prefix='hbt.') as file:
            lengths = (file.write(text.encode(errors='surrogatepass')) for text in texts)
            self._starts = np.concatenate([[0], np.cumsum(np.fromiter(lengths, np.int64))])
            file.flush()
            self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)
        self.order = np.arange(len(self._starts) - 1)  # text i was written as number order[i]

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start, end = self._starts[self.order[index]], self._starts[self.order[index] + 1]
        return os.pread(self._file, int(end - start), int(start)).decode(errors='surrogatepass')


def join_collections(parts: list[Collection]) -> Collection:
    """The queries of all parts, asked of the documents of all parts."""
    qrels, parallel, excluded = {}, {}, {}
    for part in parts:
        qrels |= part.qrels
        parallel |= part.parallel
        excluded |= part.excluded
    queries = [query for part in parts for query in part.queries]
    documents = Entries(itertools.chain.from_iterable, [part.documents for part in parts])
    files = tuple(file for part in parts for file in part.files)
    return Collection(queries, documents, qrels, parallel, excluded, files)


def find_folder(root: pathlib.Path, name: str) -> pathlib.Path:
    """`root/NAME`, with - for _, where that is a folder, else `root`."""
    folder = root / name.replace('_', '-')
    return folder if folder.is_dir() else root


def assemble(name: str, data: Collection) -> Benchmark:
    """The benchmark of a collection.

    Relevant documents that the corpus lacks are never found, as in trec_eval; queries and documents
    without text are embedded like others; the benchmark says how many there are.

    ValueError for ids that are not unique or hold whitespace, a judgement of an unknown query, and
    where no document of the corpus is relevant.
    """
    queries, empty_queries = _make_columns(f'{name}: queries', data.queries, descending=False)
    documents, empty_documents = _make_columns(
        f'{name}: documents', data.documents, descending=True
    )
    judged = {x for grades in data.qrels.values() for x in grades} | {*data.excluded.values()}
    index_of = {id: index for index, id in enumerate(documents.ids) if id in judged}
    relevant, grades, missing = _index_qrels(name, queries.ids, index_of, data.qrels)
    excluded = np.array([[index_of.get(data.excluded.get(x), -1)] for x in queries.ids], np.int32)
    keys = {key: i for i, key in enumerate(dict.fromkeys(data.parallel.values()))}
    parallel = np.array([keys.get(data.parallel.get(x), -1) for x in queries.ids], np.int32)
    names = sorted({*queries.languages, *documents.languages})
    codes = {language: i for i, language in enumerate(names)}
    return Benchmark(
        name,
        queries,
        documents,
        names,
        *(np.array([codes[x] for x in y.languages], np.int32) for y in (queries, documents)),
        relevant,
        grades if (grades > 1).any() else None,
        excluded if excluded.max() >= 0 else None,
        parallel if data.parallel else None,
        data.files,
        missing,
        empty_queries + empty_documents,
    )


def _index_qrels(
    name: str, queries: Sequence[str], index_of: dict[str, int], qrels: dict[str, dict[str, int]]
) -> tuple[Int[np.ndarray, 'q r'], Int[np.ndarray, 'q r'], tuple[str, ...]]:
    """`relevant` of a benchmark, the grades of these documents, and the ids of those missing."""
    graded = {}
    for query, grades in qrels.items():
        positive = (
            (index_of.get(x, MISSING), grade, x) for x, grade in grades.items() if grade > 0
        )
        graded[query] = sorted(positive, key=lambda x: (x[0] == MISSING, *x))
    unknown = graded.keys() - {*queries}
    if unknown:
        raise ValueError(f'{name}: expected judgements of its queries, got one of {min(unknown)!r}')
    width = max(map(len, graded.values()), default=0)
    relevant = np.full((len(queries), width), -1, np.int32)
    grades, missing = np.zeros_like(relevant), []
    for i, query in enumerate(queries):
        for j, (index, grade, document) in enumerate(graded.get(query, ())):
            relevant[i, j], grades[i, j] = index, grade
            if index == MISSING:
                _check_id(document, f'{name}: judgements of {query!r}')
                missing.append(document)
    if not (relevant >= 0).any():
        lacking = f' in the corpus, which lacks {missing[0]!r}' if missing else ''
        raise ValueError(f'{name}: expected relevant documents, got none{lacking}')
    return relevant, grades, tuple(missing)


def _make_columns(
    where: str, entries: Iterable[Entry], descending: bool
) -> tuple[TextColumns, int]:
    """The entries as columns: in their order, or descending by id with the texts on disk.

    Also returns how many have no text.
    """
    ids, codes, empty = [], [], []
    texts = _iter_texts(where, entries, ids, codes, empty)
    if descending:
        texts = TextsOnDisk(texts)
        texts.order = order = np.argsort(np.array(ids, object), kind='stable')[::-1]
        ids, codes = [ids[i] for i in order], [codes[i] for i in order]
    else:
        texts = list(texts)
    for id, following in itertools.pairwise(ids if descending else sorted(ids)):
        if id == following:
            same = (entry.where for entry in entries if entry.id == id)
            place = next(itertools.islice(same, 1, None)) or where
            raise ValueError(f'{place}: expected each id once, got {id!r} again')
    return TextColumns(ids, codes, texts), len(empty)


def _iter_texts(
    where: str, entries: Iterable[Entry], ids: list, codes: list, empty: list
) -> Iterator[str]:
    """Yields the texts, and appends the other columns, and ids of empty texts, to the lists.

    ValueError for a bad entry, with its place in a file, or else `where`.
    """
    for id, language, text, place in entries:
        place = place or where
        _check_id(id, place)
        schema.check_unicode(text, f'{place}: {id!r}')
        languages.check_language(language, f'{place}: {id}')
        ids.append(id)
        codes.append(sys.intern(language))
        empty += [] if text.strip() else [id]
        yield text
    if not ids:
        raise ValueError(f'{where}: expected at least one, got none')


def _check_id(id: str, where: str) -> None:
    """ValueError for an id that files of TREC cannot hold."""
    if not re.fullmatch(r'\S+', id):
        raise ValueError(f'{where}: expected an id without whitespace, got {id!r}')
    schema.check_unicode(id, f'{where}: {id!r}')
