"""Retrieval benchmarks as three things: queries, documents, and which documents are relevant.

Hides the file formats, the ids and their order: documents come by id, descending, so that
"the smaller index first" is trec_eval's rule for equal scores, wherever ties are broken.
Called by `hbt.evaluate`, and by whoever wants the TREC files.
"""

import collections
import json
import os
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from hbt import cldr

Row = tuple[str, str, str]  # id, language, text
CLDR_GROUPS = 400  # questions a language


class Texts(NamedTuple):
    """Parallel lists. Ids are unique, stable, ASCII and without whitespace."""

    ids: list[str]
    languages: list[str]
    texts: list[str]


class Benchmark(NamedTuple):
    """Row i of `relevant` indexes the relevant documents of query i, ascending, then -1."""

    name: str
    queries: Texts
    documents: Texts
    relevant: Int[np.ndarray, 'q r']


def load(name: str, root: str | os.PathLike) -> Benchmark:
    """Reads the benchmark `name` from the directory `root`.

    `root` holds the benchmark's files, or a directory with its name (`xquad-r/`) that does.
    Raises ValueError for an unknown name, and for missing or malformed files.
    """
    if name not in BENCHMARKS:
        raise ValueError(f'benchmark: expected one of {", ".join(BENCHMARKS)}, got {name!r}')
    return BENCHMARKS[name](name, root)


def write_qrels(path: str | os.PathLike, benchmark: Benchmark) -> None:
    """Writes the relevant documents in TREC's four columns."""
    documents = benchmark.documents.ids
    _write(
        path,
        (
            f'{query} 0 {documents[row]} 1\n'
            for query, rows in zip(benchmark.queries.ids, benchmark.relevant, strict=True)
            for row in rows
            if row >= 0
        ),
    )


def write_run(
    path: str | os.PathLike, benchmark: Benchmark, top: Int[np.ndarray, 'q k'], tag: str
) -> None:
    """Writes a ranking in TREC's six columns; `top[i]` are document indices, the best first.

    The score is k - position, strictly decreasing, so that every evaluator keeps the order.
    Raises ValueError for a tag with whitespace and for indices that are no documents.
    """
    if not re.fullmatch(r'\S+', tag):
        raise ValueError(f'{path}: expected a tag without whitespace, got {tag!r}')
    queries, documents = benchmark.queries.ids, benchmark.documents.ids
    if len(top) != len(queries):
        raise ValueError(f'{path}: expected {len(queries)} ranked queries, got {len(top)}')
    if top.size and not 0 <= top.min() <= top.max() < len(documents):
        raise ValueError(
            f'{path}: expected document indices in [0, {len(documents)}), '
            f'got {top.min()} to {top.max()}'
        )
    k = top.shape[1]
    _write(
        path,
        (
            f'{query} Q0 {documents[row]} {position + 1} {k - position} {tag}\n'
            for query, rows in zip(queries, top.tolist(), strict=True)
            for position, row in enumerate(rows)
        ),
    )


def _write(path: str | os.PathLike, lines: Iterable[str]) -> None:
    """All or nothing: a reader never sees half a file."""
    temporary = f'{os.fspath(path)}.tmp'
    with open(temporary, 'w', encoding='ascii') as file:
        file.writelines(lines)
    os.replace(temporary, path)


def _lareqa(name: str, root: str | os.PathLike) -> Benchmark:
    """XQuAD-R or MLQA-R (arXiv 2004.05484): every sentence of every paragraph is a candidate.

    A query is answered by one sentence in each language that has a question of the same id.
    """
    queries, keys, documents = [], [], []
    answers = collections.defaultdict(list)  # question id -> document ids, one a language
    for path in _language_files(name, root):
        sentences, questions = _language(path)
        documents += sentences
        for key, text, sentence in questions:
            keys.append(key)
            queries.append((f'q:{path.stem}:{key}', path.stem, text))
            answers[key].append(sentence)
    return _assemble(name, queries, keys, documents, answers)


def _cldr(name: str, root: str | os.PathLike) -> Benchmark:
    """The embedded test groups; nothing is read from `root`."""
    queries, keys, documents = [], [], []
    answers = collections.defaultdict(list)
    for group in cldr.groups('test', CLDR_GROUPS):
        for language in cldr.LANGUAGES:
            keys.append(group['id'])
            queries.append((f'q:{language}:{group["id"]}', language, group['query'][language]))
            document = f'd:{language}:{group["id"]}'
            documents.append((document, language, group['passage'][language]))
            answers[group['id']].append(document)
    return _assemble(name, queries, keys, documents, answers)


def _assemble(
    name: str, queries: list[Row], keys: list[str], documents: list[Row], answers: dict
) -> Benchmark:
    """Orders the documents; query i is answered by the documents `answers[keys[i]]`."""
    documents.sort(reverse=True)
    row_of = {id: row for row, (id, _, _) in enumerate(documents)}
    relevant = np.full((len(queries), max(map(len, answers.values()))), -1, np.int32)
    for row, key in zip(relevant, keys, strict=True):
        row[: len(answers[key])] = sorted(row_of[id] for id in answers[key])
    return Benchmark(name, _texts(queries), _texts(documents), relevant)


def _texts(rows: list[Row]) -> Texts:
    return Texts(*map(list, zip(*rows, strict=True)))


def _language_files(name: str, root: str | os.PathLike) -> list[pathlib.Path]:
    """The files `<lang>.json`, by language."""
    folder, named = pathlib.Path(root), pathlib.Path(root, name.replace('_', '-'))
    paths = sorted((named if named.is_dir() else folder).glob('*.json'))
    if not paths:
        raise ValueError(
            f'{folder}: expected <lang>.json files, or {named.name}/ with them, got none'
        )
    for path in paths:
        if not re.fullmatch('[a-z]{2,3}', path.stem):
            raise ValueError(f'{path}: expected a language code of 2 or 3 letters as the name')
    return paths


def _language(path: pathlib.Path) -> tuple[list[Row], list[Row]]:
    """Rows (document id, language, sentence), and (question id, question, document id)."""
    documents, questions = [], {}
    for place, number, paragraph in _paragraphs(path):
        stem = f'd:{path.stem}:{number:05}'
        sentences = _sentences(paragraph, place)
        documents += [(f'{stem}:{i:04}', path.stem, text) for i, text in enumerate(sentences)]
        for key, text, sentence in _questions(paragraph, place):
            if key in questions:
                raise ValueError(f'{place}: expected each question id once, got {key!r} again')
            questions[key] = (key, text, f'{stem}:{sentence:04}')
    if not documents or not questions:
        raise ValueError(
            f'{path}: expected sentences and questions, '
            f'got {len(documents)} and {len(questions)} of them'
        )
    return documents, list(questions.values())


def _paragraphs(path: pathlib.Path) -> Iterator[tuple[str, int, Any]]:
    """Yields (place for error messages, number in the file, paragraph)."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:  # of the JSON, or of the UTF-8
        raise ValueError(f'{path}: expected JSON, got {error}') from error
    number = 0
    for i, article in enumerate(_field(content, 'data', list, str(path))):
        for j, paragraph in enumerate(_field(article, 'paragraphs', list, f'{path}: data[{i}]')):
            yield f'{path}: data[{i}].paragraphs[{j}]', number, paragraph
            number += 1


def _sentences(paragraph: Any, place: str) -> list[str]:
    sentences = _field(paragraph, 'sentences', list, place)
    for i, text in enumerate(sentences):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f'{place}.sentences[{i}]: expected text, got {text!r}')
    return sentences


def _questions(paragraph: Any, place: str) -> Iterator[tuple[str, str, int]]:
    """Yields (id shared by the languages, question, number of the answering sentence)."""
    breaks = _field(paragraph, 'sentence_breaks', list, place)
    count = len(_field(paragraph, 'sentences', list, place))
    if len(breaks) != count:
        raise ValueError(f'{place}: expected {count} sentence_breaks, got {len(breaks)}')
    for i, pair in enumerate(breaks):
        if not isinstance(pair, list) or [type(x) for x in pair] != [int, int]:
            raise ValueError(f'{place}.sentence_breaks[{i}]: expected [start, end], got {pair!r}')
    for i, entry in enumerate(_field(paragraph, 'qas', list, place)):
        where = f'{place}.qas[{i}]'
        key = _field(entry, 'id', str, where)
        if not re.fullmatch('[!-~]+', key):
            raise ValueError(f'{where}: expected an ASCII id without whitespace, got {key!r}')
        question = _field(entry, 'question', str, where)
        answers = _field(entry, 'answers', list, where)
        if not answers:
            raise ValueError(f'{where}: expected an answer, got none')
        at = _field(answers[0], 'answer_start', int, f'{where}.answers[0]')
        inside = [n for n, (start, end) in enumerate(breaks) if start <= at < end]
        if len(inside) != 1:
            raise ValueError(
                f'{where}: expected answer_start inside one sentence, got {at} inside {len(inside)}'
            )
        yield key, question, inside[0]


def _field(holder: Any, name: str, kind: type, place: str) -> Any:
    """`holder[name]`, of exactly this type (a bool is no int)."""
    if not isinstance(holder, dict) or name not in holder:
        raise ValueError(f'{place}: expected a field {name!r}, got none')
    if type(holder[name]) is not kind:
        found = type(holder[name]).__name__
        raise ValueError(f'{place}: expected {name!r} to be a {kind.__name__}, got a {found}')
    return holder[name]


BENCHMARKS = {'xquad_r': _lareqa, 'mlqa_r': _lareqa, 'cldr': _cldr}
