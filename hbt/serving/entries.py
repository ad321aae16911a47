"""Files of documents or queries: JSON lines, `id TAB text`, or one text a line; plain or gzip."""

import itertools
import pathlib
import re
import typing
from collections import abc

from hbt.data.readers import retrieval, schema, text_lines
from hbt.utils import languages

UNKNOWN = 'und'  # language of a text of unknown language, by ISO 639-2


class Entry(typing.NamedTuple):
    """A document or a query."""

    id: str
    language: str
    text: str


def iter_entries(path: pathlib.Path) -> abc.Iterator[Entry]:
    """Yields the texts of a file, whose first line shows its form.

    JSON lines have `_id`, `id` or `docid`, `text` or `contents`, and if they like `title` and
    `language` or `lang`. The id of one text a line is its line number. Raises ValueError for an
    empty file, an empty line, a bad language code, and an id that has white space or comes again.
    """
    ids = set()
    for where, entry in _parse_lines(path):
        if not re.fullmatch(r'\S+', entry.id):
            raise ValueError(f'{where}: id: expected one without white space, got {entry.id!r}')
        if entry.id in ids:
            raise ValueError(f'{where}: id: expected each once, got {entry.id!r} again')
        languages.check_language(entry.language, where)
        ids.add(entry.id)
        yield entry
    if not ids:
        raise ValueError(f'{path}: expected texts, got an empty file')


def _parse_lines(path: pathlib.Path) -> abc.Iterator[tuple[str, Entry]]:
    """Yields (where, entry)."""
    lines = text_lines.iter_rows(path)
    first = next(lines, None)
    if first is None:
        return
    lines = itertools.chain([first], lines)
    if first[1].lstrip().startswith('{'):
        for where, row in schema.iter_objects(lines):
            language = schema.get_language(row, UNKNOWN, where)
            key, text = retrieval.parse_document(where, row)
            yield where, Entry(key, language, text)
    elif first[1].count('\t') == 1:
        for where, key, text in retrieval.iter_tsv_texts(lines):
            yield where, Entry(key, UNKNOWN, text)
    else:
        for number, (where, text) in enumerate(lines, 1):
            schema.check_text(text, where)
            yield where, Entry(str(number), UNKNOWN, text)
