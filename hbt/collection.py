"""What the files of a benchmark hold, before it is put in order, and how their lines are read.

Hides compression and the wording of errors: each names file, line, what was expected and what came.
Called by the readers of formats: `lareqa`, `miracl`, `mtop`, `beir`; and by `benchmarks`.
"""

import gzip
import json
import pathlib
import typing
import zlib
from collections.abc import Iterator

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
    number = 0
    try:
        with path.open('rb') as raw:
            packed = raw.read(2) == b'\x1f\x8b'
            raw.seek(0)
            for number, line in enumerate(gzip.open(raw) if packed else raw, 1):
                yield f'{path}:{number}', line.decode().rstrip('\r\n')
    except UnicodeDecodeError as error:
        raise ValueError(f'{path}:{number}: expected UTF-8, got {error}') from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f'{path}:{number + 1}: expected a whole gzip file, got {error}') from None


def objects(path: pathlib.Path) -> Iterator[tuple[str, dict]]:
    """Yields (place, object) of a file of JSON lines."""
    for place, line in lines(path):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f'{place}: expected a JSON object, got {error}') from None
        if not isinstance(found, dict):
            raise ValueError(f'{place}: expected a JSON object, got {type(found).__name__}')
        yield place, found


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


def grade(text: str, place: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f'{place}: expected a whole number as grade, got {text!r}') from None
