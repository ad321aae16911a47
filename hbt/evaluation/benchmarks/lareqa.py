"""XQuAD-R and MLQA-R (LAReQA, arXiv 2004.05484): every sentence of every paragraph is a document.

Hides the files `<language>.json`. A query is answered by one sentence in each language that has a
question of the same id. Called by `benchmarks`.
"""

import json
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from hbt.data.readers import retrieval


def read(name: str, root: pathlib.Path) -> retrieval.Collection:
    """All languages under `root`, or under `root/xquad-r` for the name xquad_r."""
    queries, documents, answers, parallel = [], [], {}, {}
    paths = _language_files(name, root)
    for path in paths:
        sentences, questions = _language(path)
        documents += sentences
        for key, text, sentence in questions:
            query = f'q:{path.stem}:{key}'
            queries.append((query, path.stem, text))
            parallel[query] = key
            answers.setdefault(key, {})[sentence] = 1
    qrels = {query: answers[key] for query, key in parallel.items()}
    return retrieval.Collection(queries, documents, qrels, parallel, files=tuple(paths))


def _language_files(name: str, root: pathlib.Path) -> list[pathlib.Path]:
    """The files `<lang>.json`, by language."""
    folder, named = root, root / name.replace('_', '-')
    paths = sorted((named if named.is_dir() else folder).glob('*.json'))
    if not paths:
        raise ValueError(
            f'{folder}: expected <lang>.json files, or {named.name}/ with them, got none'
        )
    for path in paths:
        if not re.fullmatch('[a-z]{2,3}', path.stem):
            raise ValueError(f'{path}: expected a language code of 2 or 3 letters as the name')
    return paths


def _language(path: pathlib.Path) -> tuple[list[retrieval.Row], list[retrieval.Row]]:
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
    except (ValueError, RecursionError) as error:  # of the JSON, or of the UTF-8
        raise ValueError(f'{path}: expected JSON, got {error}') from error
    number = 0
    for i, article in enumerate(retrieval.field(content, 'data', list, str(path))):
        for j, paragraph in enumerate(
            retrieval.field(article, 'paragraphs', list, f'{path}: data[{i}]')
        ):
            yield f'{path}: data[{i}].paragraphs[{j}]', number, paragraph
            number += 1


def _sentences(paragraph: Any, place: str) -> list[str]:
    sentences = retrieval.field(paragraph, 'sentences', list, place)
    for i, text in enumerate(sentences):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f'{place}.sentences[{i}]: expected text, got {text!r}')
    return sentences


def _questions(paragraph: Any, place: str) -> Iterator[tuple[str, str, int]]:
    """Yields (id shared by the languages, question, number of the answering sentence)."""
    breaks = retrieval.field(paragraph, 'sentence_breaks', list, place)
    count = len(retrieval.field(paragraph, 'sentences', list, place))
    if len(breaks) != count:
        raise ValueError(f'{place}: expected {count} sentence_breaks, got {len(breaks)}')
    for i, pair in enumerate(breaks):
        if not isinstance(pair, list) or [type(x) for x in pair] != [int, int]:
            raise ValueError(f'{place}.sentence_breaks[{i}]: expected [start, end], got {pair!r}')
    for i, entry in enumerate(retrieval.field(paragraph, 'qas', list, place)):
        where = f'{place}.qas[{i}]'
        key = retrieval.field(entry, 'id', str, where)
        if not re.fullmatch('[!-~]+', key):
            raise ValueError(f'{where}: expected an ASCII id without whitespace, got {key!r}')
        question = retrieval.field(entry, 'question', str, where)
        answers = retrieval.field(entry, 'answers', list, where)
        if not answers:
            raise ValueError(f'{where}: expected an answer, got none')
        at = retrieval.field(answers[0], 'answer_start', int, f'{where}.answers[0]')
        inside = [n for n, (start, end) in enumerate(breaks) if start <= at < end]
        if len(inside) != 1:
            raise ValueError(
                f'{where}: expected answer_start inside one sentence, got {at} inside {len(inside)}'
            )
        yield key, question, inside[0]
