"""Retrieval benchmarks as three things: queries, documents, and which documents are relevant.

Hides the order of the ids: documents come by id, descending, so that "the smaller index first" is
trec_eval's rule for equal scores, wherever ties are broken. The formats of the files are in the
modules that it names. Called by `evaluate`, and by whoever wants the TREC files.
"""

import itertools
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from hbt.data.readers import retrieval, schema
from hbt.utils import languages


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
    relevant: Int[np.ndarray, 'q r']  # indices of relevant documents, ascending, then -1
    grades: Int[np.ndarray, 'q r'] | None = None  # of the relevant documents; none: all are 1
    excluded: Int[np.ndarray, 'q x'] | None = None  # documents that are the query itself, then -1
    parallel: Int[np.ndarray, ' q'] | None = None  # equal for translations; -1: has none
    files: tuple[pathlib.Path, ...] = ()

    @property
    def relevant_languages(self) -> Int[np.ndarray, 'q r']:
        """Languages of the relevant documents; -1: padding."""
        if not self.relevant.size:
            return self.relevant
        return np.where(self.relevant >= 0, self.document_languages[self.relevant], -1)


def assemble(name: str, found: retrieval.Collection) -> Benchmark:
    """Orders the documents and turns ids into their indices.

    Raises ValueError for ids that are not unique or hold whitespace, an empty text, a judgement of
    a query or document that there is not, and where nothing is relevant.
    """
    queries, documents = _in_memory(f'{name}: queries', found.queries), _documents(name, found)
    wanted = {*found.excluded.values(), *(d for grades in found.qrels.values() for d in grades)}
    row_of = {id: row for row, id in enumerate(documents.ids) if id in wanted}
    answers = {}
    for query, grades in found.qrels.items():
        kept = {d: g for d, g in grades.items() if g > 0}
        for document in kept:
            if document not in row_of:
                raise ValueError(
                    f'{name}: expected judgements of documents of the corpus, '
                    f'got the relevant {document!r} of {query!r}, which is not in it'
                )
        answers[query] = sorted((row_of[d], g) for d, g in kept.items())
    unknown = answers.keys() - {*queries.ids}
    if unknown:
        raise ValueError(f'{name}: expected judgements of its queries, got one of {min(unknown)!r}')
    width = max(map(len, answers.values()), default=0)
    if not width:
        raise ValueError(f'{name}: expected relevant documents, got none')
    relevant = np.full((len(queries.ids), width), -1, np.int32)
    grades = np.zeros_like(relevant)
    for i, query in enumerate(queries.ids):
        for j, (row, grade) in enumerate(answers.get(query, ())):
            relevant[i, j], grades[i, j] = row, grade
    excluded = [[row_of.get(found.excluded.get(q, ''), -1)] for q in queries.ids]
    keys = {key: i for i, key in enumerate(dict.fromkeys(found.parallel.values()))}
    parallel = [keys[found.parallel[q]] if q in found.parallel else -1 for q in queries.ids]
    languages = sorted({*queries.languages, *documents.languages})
    codes = {language: i for i, language in enumerate(languages)}
    return Benchmark(
        name,
        queries,
        documents,
        languages,
        np.array([codes[x] for x in queries.languages], np.int32),
        np.array([codes[x] for x in documents.languages], np.int32),
        relevant,
        grades if (grades > 1).any() else None,
        np.array(excluded, np.int32) if np.max(excluded) >= 0 else None,
        np.array(parallel, np.int32) if found.parallel else None,
        found.files,
    )


def _in_memory(place: str, found: list[retrieval.Row]) -> TextColumns:
    """The rows as three lists, in their order."""
    ids, languages = [], []
    texts = list(_checked(place, found, ids, languages))
    _check_unique(place, sorted(ids))
    return TextColumns(ids, languages, texts)


def _documents(name: str, found: retrieval.Collection) -> TextColumns:
    """By id, descending, with the texts on disk."""
    place, ids, languages = f'{name}: documents', [], []
    texts = retrieval.Spool(_checked(place, found.documents, ids, languages))
    order = np.argsort(np.array(ids, object), kind='stable')[::-1]
    texts.arrange(order)
    ids = [ids[i] for i in order]
    _check_unique(place, ids)
    return TextColumns(ids, [languages[i] for i in order], texts)


def _checked(
    place: str, found: Iterable[retrieval.Row], ids: list[str], codes: list[str]
) -> Iterator[str]:
    """The texts, while the other columns are put into the lists; ValueError for what cannot be."""
    for id, language, text in found:
        if not re.fullmatch(r'\S+', id):
            raise ValueError(f'{place}: expected an id without whitespace, got {id!r}')
        if not text.strip():
            raise ValueError(f'{place}: expected text, got {text!r} for {id!r}')
        schema.check_text(id, f'{place}: {id!r}')
        schema.check_text(text, f'{place}: {id!r}')
        languages.check_language(language, f'{place}: {id}')
        ids.append(id)
        codes.append(sys.intern(language))
        yield text
    if not ids:
        raise ValueError(f'{place}: expected at least one, got none')


def _check_unique(place: str, ids: list[str]) -> None:
    """ValueError for one that comes twice; `ids` are in order."""
    for id, following in itertools.pairwise(ids):
        if id == following:
            raise ValueError(f'{place}: expected each id once, got {id!r} again')
