"""Retrieval benchmarks as three things: queries, documents, and which documents are relevant.

Hides the order of the ids: documents come by id, descending, so that "the smaller index first" is
trec_eval's rule for equal scores, wherever ties are broken. The formats of the files are in the
modules that it names. Called by `evaluate`, and by whoever wants the TREC files.
"""

import itertools
import os
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from hbt import beir, cldr, collection, hub, lareqa, miracl, mtop, rows, sources, summary

CLDR_GROUPS = 400  # questions a language
HUB = 'hub'  # as `root`: the data sets below, from the Hugging Face hub or its cache
REPOSITORIES = {  # benchmark -> data sets of the hub, and the files of a language
    'miracl': (
        ('miracl/miracl', 'miracl-v1.0-{}/*-dev.tsv'),
        ('miracl/miracl-corpus', 'miracl-corpus-v1.0-{}/docs-*'),
    ),
    'mr_tydi': (
        ('castorini/mr-tydi', 'mrtydi-v1.1-{}/test.jsonl*'),
        ('castorini/mr-tydi-corpus', 'mrtydi-v1.1-{}/corpus.jsonl*'),
    ),
}


class Texts(NamedTuple):
    """Parallel lists. Ids are unique, stable, and without whitespace; texts may be on disk."""

    ids: Sequence[str]
    languages: Sequence[str]
    texts: Sequence[str]


class Benchmark(NamedTuple):
    """Row i of `relevant` indexes the relevant documents of query i, ascending, then -1."""

    name: str
    queries: Texts
    documents: Texts
    relevant: Int[np.ndarray, 'q r']
    grades: Int[np.ndarray, 'q r'] | None = None  # of the relevant documents; none: all are 1
    excluded: Int[np.ndarray, 'q x'] | None = None  # documents that are the query itself, then -1
    parallel: Int[np.ndarray, ' q'] | None = None  # equal for translations; -1: has none
    files: tuple[pathlib.Path, ...] = ()


def load(name: str, root: str | os.PathLike) -> Benchmark:
    """Reads the benchmark `name` from the directory `root`.

    `name` may have an argument behind a colon: languages, as in `miracl:sw+yo`; the path, for
    `jsonl:FILE` and `beir:FOLDER`. `root` holds the benchmark's files, or a directory with its name
    (`xquad-r/`) that does; `hub` stands for the Hugging Face hub where that has the benchmark.
    Raises ValueError for an unknown name, for missing or malformed files, and where these do not
    fit each other, as a judgement of an unknown document.
    """
    kind, _, argument = name.partition(':')
    if kind not in BENCHMARKS:
        raise ValueError(f'benchmark: expected one of {", ".join(BENCHMARKS)}, got {name!r}')
    found = BENCHMARKS[kind](kind, argument, pathlib.Path(root))
    return assemble(name, found)


def asked(benchmark: Benchmark) -> summary.Asked:
    """What the metrics need to know of it."""
    every = sorted({*benchmark.documents.languages, *benchmark.queries.languages})
    codes = {language: i for i, language in enumerate(every)}
    queries, documents = (
        np.array([codes[x] for x in side.languages], np.int32)
        for side in (benchmark.queries, benchmark.documents)
    )
    return summary.Asked(every, queries, documents, benchmark.relevant, benchmark.grades)


def assemble(name: str, found: collection.Collection) -> Benchmark:
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
    return Benchmark(
        name,
        queries,
        documents,
        relevant,
        grades if (grades > 1).any() else None,
        np.array(excluded, np.int32) if np.max(excluded) >= 0 else None,
        np.array(parallel, np.int32) if found.parallel else None,
        found.files,
    )


def _in_memory(place: str, found: list[collection.Row]) -> Texts:
    """The rows as three lists, in their order."""
    ids, languages = [], []
    texts = list(_checked(place, found, ids, languages))
    _check_unique(place, sorted(ids))
    return Texts(ids, languages, texts)


def _documents(name: str, found: collection.Collection) -> Texts:
    """By id, descending, with the texts on disk."""
    place, ids, languages = f'{name}: documents', [], []
    texts = collection.Spool(_checked(place, found.documents, ids, languages))
    order = np.argsort(np.array(ids, object), kind='stable')[::-1]
    texts.arrange(order)
    ids = [ids[i] for i in order]
    _check_unique(place, ids)
    return Texts(ids, [languages[i] for i in order], texts)


def _checked(
    place: str, found: Iterable[collection.Row], ids: list[str], languages: list[str]
) -> Iterator[str]:
    """The texts, while the other columns are put into the lists; ValueError for what cannot be."""
    for id, language, text in found:
        if not re.fullmatch(r'\S+', id):
            raise ValueError(f'{place}: expected an id without whitespace, got {id!r}')
        if not text.strip():
            raise ValueError(f'{place}: expected text, got {text!r} for {id!r}')
        rows.check_text(id, f'{place}: {id!r}')
        rows.check_text(text, f'{place}: {id!r}')
        rows.check_language(language, f'{place}: {id}')
        ids.append(id)
        languages.append(sys.intern(language))
        yield text
    if not ids:
        raise ValueError(f'{place}: expected at least one, got none')


def _check_unique(place: str, ids: list[str]) -> None:
    """ValueError for one that comes twice; `ids` are in order."""
    for id, following in itertools.pairwise(ids):
        if id == following:
            raise ValueError(f'{place}: expected each id once, got {id!r} again')


def _lareqa(kind: str, argument: str, root: pathlib.Path) -> collection.Collection:
    del argument
    return lareqa.read(kind, root)


def _wikipedia(kind: str, argument: str, root: pathlib.Path) -> collection.Collection:
    reader, known = READERS[kind]
    languages = _languages(argument)
    if str(root) != HUB:
        named = root / kind.replace('_', '-')
        return reader(languages, (named if named.is_dir() else root,))
    miracl.check(languages or known, known, kind)
    wanted = [known[x] for x in languages or known]
    return reader(
        languages,
        tuple(
            hub.data(repository, tuple(form.format(x) for x in wanted))
            for repository, form in REPOSITORIES[kind]
        ),
    )


def _mtop(kind: str, argument: str, root: pathlib.Path) -> collection.Collection:
    return mtop.read(kind.removeprefix('mtop_'), _languages(argument), root)


def _beir(kind: str, argument: str, root: pathlib.Path) -> collection.Collection:
    """A folder under `root`, or the name of a data set of the hub; its judgements may be apart."""
    del kind
    if (root / argument).exists() or not re.fullmatch(r'[\w.-]+/[\w.-]+', argument):
        return beir.read((root / argument,))
    form = ('corpus.jsonl*', 'queries.jsonl*', '*.tsv')
    folder = hub.data(argument, form)
    if any(folder.rglob('*.tsv')):
        return beir.read((folder,))
    return beir.read((folder, hub.data(f'{argument}-qrels', form)))


def _languages(argument: str) -> list[str]:
    return [x for x in argument.split('+') if x]


def _held_out(kind: str, argument: str, root: pathlib.Path) -> collection.Collection:
    """Groups in the training format: a query is answered by the passages of its group.

    Equal texts of a language are one query, or one document, of all the groups that have it.
    """
    del kind
    path = root / argument
    if not path.is_file():
        raise ValueError(f'{path}: expected a JSONL file (plain or .gz), found no such file')
    queries, documents, answers, parallel = {}, {}, {}, {}
    for row in sources.jsonl(str(path)).rows():
        found = {}
        for language, text in row.passage.items():
            key = (language, text)
            found[documents.setdefault(key, f'd:{language}:{len(documents):09}')] = 1
        for language, text in row.query.items():
            query = queries.setdefault((language, text), f'q:{language}:{len(queries):09}')
            answers.setdefault(query, {}).update(found)
            parallel.setdefault(query, row.id)

    def listed(texts: dict[tuple[str, str], str]) -> list[collection.Row]:
        return [(id, language, text) for (language, text), id in texts.items()]

    return collection.Collection(
        listed(queries), listed(documents), answers, parallel, files=(path,)
    )


def _cldr(kind: str, argument: str, root: pathlib.Path) -> collection.Collection:
    """The embedded test groups; nothing is read from `root`."""
    del kind, argument, root
    queries, documents, qrels, parallel = [], [], {}, {}
    for group in cldr.groups('test', CLDR_GROUPS):
        every = {f'd:{language}:{group["id"]}': 1 for language in cldr.LANGUAGES}
        for language in cldr.LANGUAGES:
            query = f'q:{language}:{group["id"]}'
            queries.append((query, language, group['query'][language]))
            documents.append((f'd{query[1:]}', language, group['passage'][language]))
            qrels[query], parallel[query] = every, group['id']
    return collection.Collection(queries, documents, qrels, parallel)


READERS = {
    'miracl': (miracl.read, {x: x for x in miracl.LANGUAGES}),
    'mr_tydi': (miracl.read_tydi, miracl.TYDI),
}
BENCHMARKS = {
    'xquad_r': _lareqa,
    'mlqa_r': _lareqa,
    'miracl': _wikipedia,
    'mr_tydi': _wikipedia,
    'mtop_translation': _mtop,
    'mtop_intent': _mtop,
    'beir': _beir,
    'jsonl': _held_out,
    'cldr': _cldr,
}
