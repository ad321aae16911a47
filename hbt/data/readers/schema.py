"""What a source of training data yields: rows or texts, read from blocks of lines.

Hides how files are cut into blocks, and the checks that every format shares: what is wrong is
named with file and line, what was expected and what came. Called by `sources` and its formats.
"""

import json
import re
import typing
from collections import abc

from hbt.utils import files, languages


class Group(typing.NamedTuple):
    """One translation group. Texts are keyed by language code."""

    id: str
    query: dict[str, str]
    passage: dict[str, str]
    negatives: dict[str, list[str]]


class Text(typing.NamedTuple):
    """One text of a collection."""

    place: str
    key: str  # equal for translations of one text
    text: str


class Link(typing.NamedTuple):
    """Keys of a query, its passage and negatives, from a collection."""

    place: str
    query: str
    passage: str
    negatives: tuple[str, ...]


class GroupSource(typing.NamedTuple):
    """A named stream of rows that can be read more than once, in parts and by other processes."""

    name: str
    origin: str
    sha256: str
    size: int  # bytes, about
    blocks: abc.Callable[[], abc.Iterator]
    read: abc.Callable[[typing.Any], list[Group]]  # of a block
    place: abc.Callable[[int], str]  # of row n, for errors

    def rows(self) -> abc.Iterator[Group]:
        for block in self.blocks():
            yield from self.read(block)


class BlockReader(typing.NamedTuple):
    """Blocks and what reads one of them: texts of a side and language, or links."""

    blocks: abc.Callable[[], abc.Iterator]
    read: abc.Callable[[typing.Any], list]


class CollectionSource(typing.NamedTuple):
    """A named source whose texts are apart from the links between them."""

    name: str
    origin: str
    sha256: str
    size: int
    texts: dict[tuple[str, str], BlockReader]  # (side, language) -> Text
    links: BlockReader  # Link


def parse_json(line: str, place: str) -> dict:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{place}: expected a JSON object, got {error}') from None
    if not isinstance(fields, dict):
        raise ValueError(f'{place}: expected a JSON object, got {type(fields).__name__}')
    return fields


def check_group(fields: dict, place: str) -> Group:
    """A row from fields as they come from outside; `place` names them in errors."""
    unknown = fields.keys() - set(Group._fields)
    if unknown:
        raise ValueError(f'{place}: expected {", ".join(Group._fields)}, got {min(unknown)!r} too')
    name = fields.get('id')
    if not isinstance(name, str) or not name.strip() or SURROGATE.search(name):
        raise ValueError(f'{place}: id: expected a non-empty string, got {files.shorten(name)}')
    query = check_texts(fields.get('query'), f'{place}: query')
    passage = check_texts(fields.get('passage'), f'{place}: passage')
    negatives = fields.get('negatives', {})
    where = f'{place}: negatives'
    if not isinstance(negatives, dict):
        raise ValueError(f'{where}: expected {{language: [text]}}, got {files.shorten(negatives)}')
    for code, texts in negatives.items():
        languages.check_language(code, where)
        if not isinstance(texts, list):
            raise ValueError(
                f'{where}: {code}: expected a list of texts, got {files.shorten(texts)}'
            )
        for text in texts:
            check_text(text, f'{where}: {code}')
    return Group(name, query, passage, {x: texts for x, texts in negatives.items() if texts})


def check_texts(texts, place: str) -> dict[str, str]:
    if not isinstance(texts, dict) or not texts:
        raise ValueError(f'{place}: expected {{language: text}}, got {files.shorten(texts)}')
    for code, text in texts.items():
        languages.check_language(code, place)
        check_text(text, f'{place}: {code}')
    return texts


def check_text(text, place: str) -> None:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f'{place}: expected a non-empty text, got {files.shorten(text)}')
    if SURROGATE.search(text):
        raise ValueError(f'{place}: expected Unicode text, got a lone surrogate')


SURROGATE = re.compile('[\ud800-\udfff]')
