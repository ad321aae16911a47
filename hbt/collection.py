"""What the files of a benchmark hold, before it is put in order, and how their lines are read.

Hides the wording of errors: each names file, line, what was expected and what came.
Called by the readers of formats: `lareqa`, `miracl`, `mtop`, `beir`, `corpora`; by `benchmarks`.
"""

import pathlib
import typing
from collections.abc import Iterator

from hbt import rows

Row = tuple[str, str, str]  # id, language, text


class Collection(typing.NamedTuple):
    """Queries, documents and which of these are relevant; ids are unique in each list."""

    queries: list[Row]
    documents: list[Row]
    qrels: dict[str, dict[str, int]]  # query -> document -> grade; 0 and less: not relevant
    parallel: dict[str, str] = {}  # query -> what it has in common with its translations
    excluded: dict[str, str] = {}  # query -> the document that is the query itself
    files: tuple[pathlib.Path, ...] = ()


def lines(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Yields (place for error messages, line) of a UTF-8 file, plain or gzip."""
    for block in rows.lines([path]):
        yield from block.numbered()


def objects(path: pathlib.Path) -> Iterator[tuple[str, dict]]:
    """Yields (place, object) of a file of JSON lines."""
    for place, line in lines(path):
        yield place, rows.parse_json(line, place)


def columns(path: pathlib.Path, count: int, separator: str | None) -> Iterator[tuple[str, list]]:
    """Yields (place, columns) of a table; every line has this many."""
    for place, line in lines(path):
        found = line.split(separator)
        if len(found) != count:
            raise ValueError(f'{place}: expected {count} columns, got {len(found)}: {line[:60]!r}')
        yield place, found


def field(holder: typing.Any, name: str, kind: type, place: str) -> typing.Any:
    """`holder[name]`, of exactly this type (a bool is no int)."""
    if not isinstance(holder, dict) or name not in holder:
        raise ValueError(f'{place}: expected a field {name!r}, got none')
    if type(holder[name]) is not kind:
        found = type(holder[name]).__name__
        raise ValueError(f'{place}: expected {name!r} to be a {kind.__name__}, got a {found}')
    return holder[name]


def passage(title: str, text: str) -> str:
    """The text of a document that may have a title."""
    return f'{title} {text}' if title else text


def document(row: dict, place: str) -> tuple[str, str]:
    """(id, text with its title) of a passage of MIRACL or Mr. TyDi, also as Pyserini has them."""
    key = row.get('docid', row.get('id', row.get('_id')))
    text, title = row.get('text', row.get('contents')), row.get('title') or ''
    if not all(isinstance(x, str) for x in (key, text, title)):
        raise ValueError(f'{place}: expected docid, title and text, got {rows.shown(row)}')
    rows.check_text(key, f'{place}: docid')
    return key, passage(title, text).strip()


def judgement(line: str, place: str) -> tuple[str, str, int]:
    """(query, document, grade) of a line of TREC's qrels."""
    names = ('query', 'Q0', 'document', 'relevance')
    query, _, key, found = rows.columns(place, ' '.join(line.split()), names, ' ')
    return query, key, grade(found, place)


def grade(text: str, place: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f'{place}: expected a whole number as grade, got {text!r}') from None
