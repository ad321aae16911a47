"""TREC's files of judgements (qrels) and of rankings (runs), in trec_eval's order."""

import math
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Int

from hbt.data.readers import retrieval, text_lines
from hbt.evaluation import metrics, search
from hbt.utils import files

Ids = Sequence[str]


def write_qrels(
    path: pathlib.Path,
    query_ids: Ids,
    document_ids: Ids,
    relevant: Int[np.ndarray, 'q r'],
    grades: Int[np.ndarray, 'q r'] | None = None,
) -> None:
    """Writes documents, by index or -1 for padding, and grades (default 1) in four columns."""
    grades = np.ones_like(relevant) if grades is None else grades
    with files.atomic(path) as file:
        for query, indices, values in zip(query_ids, relevant, grades, strict=True):
            for index, grade in zip(indices, values, strict=True):
                if index >= 0:
                    file.write(f'{query} 0 {document_ids[index]} {grade}\n')


def write_run(
    path: pathlib.Path, query_ids: Ids, document_ids: Ids, top_k: Int[np.ndarray, 'q k'], tag: str
) -> None:
    """Writes a ranking in six columns; ValueError for whitespace in the tag, and wrong indices.

    `top_k` has indices of documents, the best first, padded with -1. The score is k - position,
    strictly decreasing, so that every evaluator keeps the order.
    """
    if not re.fullmatch(r'\S+', tag):
        raise ValueError(f'{path}: expected a tag without whitespace, got {tag!r}')
    if len(top_k) != len(query_ids):
        raise ValueError(f'{path}: expected {len(query_ids)} ranked queries, got {len(top_k)}')
    search.check_indices(path, top_k, len(document_ids))
    with files.atomic(path) as file:
        for query, indices in zip(query_ids, top_k.tolist(), strict=True):
            for i, index in enumerate(indices):
                if index >= 0:
                    score = len(indices) - i
                    file.write(f'{query} Q0 {document_ids[index]} {i + 1} {score} {tag}\n')


def read_qrels(path: pathlib.Path) -> dict[str, dict[str, int]]:
    """Query -> document -> grade; ValueError names the first line that is not of this format."""
    return _read_table(path, 'query 0 document grade', 3, lambda x: retrieval.parse_grade(x, ''))


def read_run(path: pathlib.Path) -> dict[str, dict[str, float]]:
    """Query -> document -> score; ValueError names the first line that is not of this format."""
    return _read_table(path, 'query Q0 document rank score tag', 4, _parse_score)


def rank_relevant(
    run: Mapping[str, Mapping[str, float]], qrels: Mapping[str, Mapping[str, int]]
) -> tuple[Int[np.ndarray, 'q r'], Int[np.ndarray, 'q r']]:
    """Ranks of the relevant documents (grade above 0) for `metrics`, and their grades.

    Queries are in the order of `qrels`; documents are ranked by score, then by id, both descending;
    a relevant one that the run lacks is UNRANKED. ValueError for a query that `qrels` lacks.
    """
    if unknown := run.keys() - qrels.keys():
        others = f'{len(unknown)} others, such as {min(unknown)!r}'
        raise ValueError(f'run: expected the queries of the qrels, got {others}')
    relevant = [{d: g for d, g in judged.items() if g > 0} for judged in qrels.values()]
    ranks = np.zeros((len(relevant), max(map(len, relevant), default=0)), np.int32)
    grades = np.zeros_like(ranks)
    for i, (query, judged) in enumerate(zip(qrels, relevant, strict=True)):
        order = sorted(((score, d) for d, score in run.get(query, {}).items()), reverse=True)
        rank = {document: position for position, (_, document) in enumerate(order, 1)}
        ranks[i, : len(judged)] = [rank.get(d, metrics.UNRANKED) for d in judged]
        grades[i, : len(judged)] = list(judged.values())
    return ranks, grades


def _parse_score(text: str) -> float:
    """ValueError also for NaN, which has no rank."""
    if math.isnan(score := float(text)):
        raise ValueError(text)
    return score


def _read_table(
    path: pathlib.Path, form: str, column: int, kind: Callable[[str], float]
) -> dict[str, dict]:
    """Query -> document -> the number in a column."""
    table = {}
    for where, line in text_lines.iter_lines(path):
        columns = text_lines.split_white_space(line)
        if not columns:
            continue
        try:
            if len(columns) != len(form.split()):
                raise ValueError
            number = kind(columns[column])
        except ValueError:
            raise ValueError(f'{where}: expected `{form}`, got {line.strip()[:60]!r}') from None
        documents = table.setdefault(columns[0], {})
        if columns[2] in documents:
            raise ValueError(f'{where}: expected each document once, got {columns[2]!r} again')
        documents[columns[2]] = number
    return table
