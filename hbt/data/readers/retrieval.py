"""What the files of a benchmark hold, before it is put in order, and how their lines are read.

Hides the wording of errors: each names file, line, what was expected and what came.
Called by the readers of formats: `lareqa`, `miracl`, `mtop`, `beir`, `corpora`; by `benchmarks`.
"""

import os
import pathlib
import tempfile
import typing
import weakref
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Int

from hbt.data.readers import schema, text_lines
from hbt.utils import files

Row = tuple[str, str, str]  # id, language, text


class Collection(typing.NamedTuple):
    """Queries, documents and which of these are relevant; ids are unique among each.

    Documents are looked at once, in passing: they may be more than memory holds.
    """

    queries: list[Row]
    documents: Iterable[Row]
    qrels: dict[str, dict[str, int]]  # query -> document -> grade; 0 and less: not relevant
    parallel: dict[str, str] = {}  # query -> what it has in common with its translations
    excluded: dict[str, str] = {}  # query -> the document that is the query itself, if there is one
    files: tuple[pathlib.Path, ...] = ()


class Spool(Sequence):
    """Texts in a file of the temporary folder (TMPDIR), which goes when nobody has them any more.

    Only where they are is in memory, 16 bytes a text.
    """

    def __init__(self, texts: Iterable[str]):
        with tempfile.TemporaryFile(prefix='hbt.') as file:
            lengths = (file.write(text.encode(errors='surrogatepass')) for text in texts)
            self.starts = np.concatenate([[0], np.cumsum(np.fromiter(lengths, np.int64))])
            file.flush()
            self.file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self.file)
        self.order = np.arange(len(self.starts) - 1)

    def arrange(self, order: Int[np.ndarray, ' n']) -> None:
        """Text i is from now on the one that came as number `order[i]`."""
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start, end = self.starts[self.order[index]], self.starts[self.order[index] + 1]
        return os.pread(self.file, int(end - start), int(start)).decode(errors='surrogatepass')


def lines(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Yields (place for error messages, line) of a UTF-8 file, plain or gzip."""
    for block in text_lines.iter_blocks([path]):
        yield from block.numbered()


def objects(path: pathlib.Path) -> Iterator[tuple[str, dict]]:
    """Yields (place, object) of a file of JSON lines."""
    for place, line in lines(path):
        yield place, schema.parse_json(line, place)


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
        raise ValueError(f'{place}: expected docid, title and text, got {files.shorten(row)}')
    schema.check_text(key, f'{place}: docid')
    return key, passage(title, text).strip()


def judgement(line: str, place: str) -> tuple[str, str, int]:
    """(query, document, grade) of a line of TREC's qrels."""
    names = ('query', 'Q0', 'document', 'relevance')
    query, _, key, found = text_lines.split_columns(place, ' '.join(line.split()), names, ' ')
    return query, key, grade(found, place)


def grade(text: str, place: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f'{place}: expected a whole number as grade, got {text!r}') from None
