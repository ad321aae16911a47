"""Layouts of training records in other projects: which fields hold the query and its passages.

A record becomes one whose fields hold texts and lists of texts, as `records` reads them.
"""

import re
import typing
from collections import abc

from hbt.data.readers import retrieval, schema
from hbt.utils import files


class Layout(typing.NamedTuple):
    """The fields of a project's records."""

    meaning: str
    file: str  # such as people have
    fields: dict[str, str]  # as options of `records`: {'query': 'anchor', ...}
    mark: str  # field that no other layout has
    flatten: abc.Callable[[dict, str], dict]  # of a record and its place


def find_layout(record: dict) -> str:
    """The name of the layout that a record seems to have, or ''."""
    return next((name for name, layout in LAYOUTS.items() if layout.mark in record), '')


def _flatten_tevatron(record: dict, where: str) -> dict:
    """Tevatron: `positive_passages` and `negative_passages` are lists of {docid, title, text}."""
    flat = {}
    for name, least in (('positive_passages', 1), ('negative_passages', 0)):
        passages = _take_list(record, name, least, where)
        places = [f'{where}: {name}[{i}]' for i in range(len(passages))]
        flat[name] = [_join_passage(*x) for x in zip(passages, places, strict=True)]
    return record | flat


def _join_passage(passage, where: str) -> str:
    if not isinstance(passage, dict):
        raise ValueError(f'{where}: expected {{docid, title, text}}, got {files.shorten(passage)}')
    title = schema.get_optional(passage, 'title', '', where)
    text = retrieval.join_title(title, schema.get_text(passage, ('text',), where)).strip()
    schema.check_text(text, f'{where}: text')
    return text


def _flatten_flagembedding(record: dict, where: str) -> dict:
    """FlagEmbedding: `pos` and `neg` are lists of texts; its scores, prompt and type are not used.

    hbt has one prompt for all queries, and no teacher.
    """
    flat = {x: _take_list(record, x, least, where) for x, least in (('pos', 1), ('neg', 0))}
    for name, texts in flat.items():
        for i, text in enumerate(texts):
            schema.check_text(text, f'{where}: {name}[{i}]')
    return record | flat


def _flatten_sentence_transformers(record: dict, where: str) -> dict:
    """Tables of sentence-transformers: anchor, positive, and negative or negative_1, negative_2 ...

    An empty cell is no negative. In a table with labels, a row may be an anchor and what does not
    answer it.
    """
    for name in ('label', 'labels', 'score'):
        if name in record:
            expected = 'a table of anchors and what answers them'
            raise ValueError(f'{where}: {name}: expected {expected}, got one with labels')
    for name in ('anchor', 'positive'):
        if name in record:
            schema.check_text(record[name], f'{where}: {name}')
    negatives = []
    for name in record:
        if re.fullmatch('negatives?(_[0-9]+)?', name) and record[name] not in (None, ''):
            texts = record[name] if isinstance(record[name], list) else [record[name]]
            for text in texts:
                schema.check_text(text, f'{where}: {name}')
            negatives += texts
    return record | {'negatives': negatives}


def _take_list(record: dict, name: str, least: int, where: str) -> list:
    """The list `record[name]`, of at least this many passages; where it may be empty, also none."""
    value = record.get(name)
    value = [] if value is None and not least else value
    if not isinstance(value, list) or len(value) < least:
        expected = 'a list' + ' of at least one passage' * bool(least)
        raise ValueError(f'{where}: {name}: expected {expected}, got {files.shorten(value)}')
    return value


LAYOUTS = {
    'tevatron': Layout(
        'Tevatron',
        'train.jsonl',
        {
            'id': 'query_id',
            'query': 'query',
            'passage': 'positive_passages',
            'negatives': 'negative_passages',
        },
        'positive_passages',
        _flatten_tevatron,
    ),
    'flagembedding': Layout(
        'FlagEmbedding',
        'train.jsonl',
        {'query': 'query', 'passage': 'pos', 'negatives': 'neg'},
        'pos',
        _flatten_flagembedding,
    ),
    'sentence_transformers': Layout(
        'sentence-transformers: anchor, positive, negative, negative_1 ...',
        'triplets.csv',
        {'query': 'anchor', 'passage': 'positive', 'negatives': 'negatives'},
        'anchor',
        _flatten_sentence_transformers,
    ),
}
