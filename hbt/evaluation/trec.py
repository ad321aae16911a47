"""TREC's files of relevance judgements (qrels) and rankings (runs), written and read.

Hides the columns and trec_eval's order: by score, then by document id, both descending.
Called by `evaluate`, and by whoever has a ranking from elsewhere.
"""

import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from hbt.evaluation import metrics


def write_qrels(
    path: str | os.PathLike,
    queries: Sequence[str],
    documents: Sequence[str],
    relevant: Int[np.ndarray, 'q r'],
    grades: Int[np.ndarray, 'q r'] | None = None,
) -> None:
    """Writes the relevant documents in four columns; `relevant` are indices, -1 is padding."""
    grades = np.ones_like(relevant) if grades is None else grades
    _write(
        path,
        (
            f'{query} 0 {documents[row]} {grade}\n'
            for query, rows, of in zip(queries, relevant, grades, strict=True)
            for row, grade in zip(rows, of, strict=True)
            if row >= 0
        ),
    )


def write_run(
    path: str | os.PathLike,
    queries: Sequence[str],
    documents: Sequence[str],
    top: Int[np.ndarray, 'q k'],
    tag: str,
) -> None:
    """Writes a ranking in six columns; `top` are document indices, the best first, -1: no more.

    The score is k - position, strictly decreasing, so that every evaluator keeps the order.
    Raises ValueError for a tag with whitespace and for indices that are no documents.
    """
    if not re.fullmatch(r'\S+', tag):
        raise ValueError(f'{path}: expected a tag without whitespace, got {tag!r}')
    if len(top) != len(queries):
        raise ValueError(f'{path}: expected {len(queries)} ranked queries, got {len(top)}')
    if top.size and not -1 <= top.min() <= top.max() < len(documents):
        raise ValueError(
            f'{path}: expected document indices below {len(documents)}, or -1, '
            f'got {top.min()} to {top.max()}'
        )
    k = top.shape[1]
    _write(
        path,
        (
            f'{query} Q0 {documents[row]} {position + 1} {k - position} {tag}\n'
            for query, rows in zip(queries, top.tolist(), strict=True)
            for position, row in enumerate(rows)
            if row >= 0
        ),
    )


def read_qrels(path: str | os.PathLike) -> dict[str, dict[str, int]]:
    """Query -> document -> grade. ValueError names the first line that is not of this format."""
    return _read(path, 4, lambda columns: int(columns[3]), 'query 0 document grade')


def read_run(path: str | os.PathLike) -> dict[str, dict[str, float]]:
    """Query -> document -> score. ValueError names the first line that is not of this format."""
    return _read(path, 6, lambda columns: float(columns[4]), 'query Q0 document rank score tag')


def rank_relevant(
    run: Mapping[str, Mapping[str, float]], qrels: Mapping[str, Mapping[str, int]]
) -> tuple[Int[np.ndarray, 'q r'], Int[np.ndarray, 'q r']]:
    """Ranks of the relevant documents (grade above 0), and their grades, in the order of `qrels`.

    A relevant document that the run lacks is UNFOUND, so a query that it lacks scores 0.
    Raises ValueError for a query of the run that is not in `qrels`.
    """
    strange = run.keys() - qrels.keys()
    if strange:
        raise ValueError(
            f'run: expected the queries of the qrels, got {len(strange)} others, '
            f'such as {min(strange)!r}'
        )
    graded = [{d: g for d, g in found.items() if g > 0} for found in qrels.values()]
    width = max(map(len, graded), default=0)
    places = np.zeros((len(graded), width), np.int32)
    grades = np.zeros_like(places)
    for i, (query, wanted) in enumerate(zip(qrels, graded, strict=True)):
        listed = run.get(query, {})
        order = sorted(listed, key=lambda d: (listed[d], d), reverse=True)
        place = {document: at for at, document in enumerate(order, 1)}
        places[i, : len(wanted)] = [place.get(d, metrics.UNRANKED) for d in wanted]
        grades[i, : len(wanted)] = list(wanted.values())
    return places, grades


def _read(path, count: int, value, form: str) -> dict[str, dict]:
    found = {}
    for place, columns in _lines(path):
        try:
            if len(columns) != count:
                raise ValueError
            number = value(columns)
        except ValueError:
            got = ' '.join(columns)
            raise ValueError(f'{place}: expected `{form}`, got {got[:60]!r}') from None
        documents = found.setdefault(columns[0], {})
        if columns[2] in documents:
            raise ValueError(f'{place}: expected each document once, got {columns[2]!r} again')
        documents[columns[2]] = number
    return found


def _lines(path: str | os.PathLike) -> Iterator[tuple[str, list[str]]]:
    with pathlib.Path(path).open(encoding='utf-8') as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f'{path}:{number}', line.split()


def _write(path: str | os.PathLike, lines: Iterable[str]) -> None:
    """All or nothing: a reader never sees half a file."""
    temporary = f'{os.fspath(path)}.tmp'
    with open(temporary, 'w', encoding='utf-8') as file:
        file.writelines(lines)
    os.replace(temporary, path)
