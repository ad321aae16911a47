"""What a reader yields: groups, or texts and the links between them, in blocks."""

import json
import re
import typing
from collections import abc

from hbt.utils import files, languages

SURROGATE = re.compile('[\ud800-\udfff]')


class Group(typing.NamedTuple):
    """One question and its passages in several languages; the keys of the dicts are languages."""

    id: str
    query: dict[str, str]
    passage: dict[str, str]
    negatives: dict[str, list[str]]


class GroupSource(typing.NamedTuple):
    """A named stream of groups that can be read more than once, in parts and by any process."""

    name: str  # of the data set in the store
    spec: str  # as given with --input; of a file of groups, its name
    sha256: str
    num_bytes: int  # about
    blocks: abc.Callable[[], abc.Iterator]  # cut cheaply in the main process: lines of a file ...
    parse: abc.Callable[[typing.Any], list[Group]]  # the groups of a block, in any process
    where: abc.Callable[[int], str]  # the place of group n, for errors

    def iter_groups(self) -> abc.Iterator[Group]:
        return (group for block in self.blocks() for group in self.parse(block))


class Text(typing.NamedTuple):
    """One text of a collection."""

    where: str
    key: str  # equal for translations of one text
    text: str


class Link(typing.NamedTuple):
    """Which passage of a collection answers which query, and which passages do not."""

    where: str
    query_key: str
    passage_key: str
    negative_keys: tuple[str, ...]


class BlockReader(typing.NamedTuple):
    """The texts of one side and language, or the links, of a collection."""

    blocks: abc.Callable[[], abc.Iterator]
    parse: abc.Callable[[typing.Any], list]  # the Texts or Links of a block


class CollectionSource(typing.NamedTuple):
    """A named source of texts and of links between them; fields as in GroupSource."""

    name: str
    spec: str
    sha256: str
    num_bytes: int
    texts: dict[tuple[str, str], BlockReader]  # (side, language) -> Texts
    links: BlockReader


def parse_json(text: str, where: str) -> dict:
    """The JSON object in a text; ValueError with `where` if there is none."""
    try:
        content = json.loads(text, object_pairs_hook=_unique_fields)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{where}: expected a JSON object, got {error}') from None
    if not isinstance(content, dict):
        raise ValueError(f'{where}: expected a JSON object, got {type(content).__name__}')
    return content


def _unique_fields(pairs: list[tuple[str, typing.Any]]) -> dict[str, typing.Any]:
    """The object of these fields, of which JSON itself would keep the last of a name."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f'the field {next(x for x in names if names.count(x) > 1)!r} twice')
    return fields


def iter_objects(lines: abc.Iterable[tuple[str, str]]) -> abc.Iterator[tuple[str, dict]]:
    """Yields (where, object) of JSON lines."""
    return ((where, parse_json(line, where)) for where, line in lines)


def get_field(holder: typing.Any, name: str, kind: type, where: str) -> typing.Any:
    """`holder[name]`, of exactly this type (a bool is no int); else ValueError."""
    if not isinstance(holder, dict) or name not in holder:
        raise ValueError(f'{where}: expected a field {name!r}, got none')
    if type(holder[name]) is not kind:
        actual = type(holder[name]).__name__
        raise ValueError(f'{where}: expected {name!r} to be a {kind.__name__}, got a {actual}')
    return holder[name]


def get_optional(holder: dict, name: str, default: str, where: str) -> str:
    """The text `holder[name]`, or `default` if it is missing, null or empty; else ValueError."""
    missing = holder.get(name) in (None, '')
    return default if missing else get_field(holder, name, str, where)


def get_language(holder: dict, default: str, where: str) -> str:
    """The field `language`, or `lang`, or `default`; ValueError for what is no text."""
    return get_optional(holder, 'language', get_optional(holder, 'lang', default, where), where)


def get_text(holder: dict, names: abc.Sequence[str], where: str) -> str:
    """The text of the first of the fields that is there, '' if that is null; else ValueError."""
    name = next((x for x in names if x in holder), names[0])
    return '' if holder.get(name, name) is None else get_field(holder, name, str, where)


def check_group(fields: dict, where: str) -> Group:
    """The group of these fields; ValueError for an unknown one, an empty text, a bad language."""
    unknown = fields.keys() - set(Group._fields)
    if unknown:
        raise ValueError(f'{where}: expected {", ".join(Group._fields)}, got {min(unknown)!r} too')
    name, negatives = fields.get('id'), fields.get('negatives', {})
    if not isinstance(name, str) or not name.strip() or SURROGATE.search(name):
        raise ValueError(f'{where}: id: expected a non-empty string, got {files.shorten(name)}')
    query, passage = (_check_texts(fields.get(x), f'{where}: {x}') for x in ('query', 'passage'))
    where = f'{where}: negatives'
    if not isinstance(negatives, dict):
        raise ValueError(f'{where}: expected {{language: [text]}}, got {files.shorten(negatives)}')
    for code, texts in negatives.items():
        languages.check_language(code, where)
        if not isinstance(texts, list):
            shown = files.shorten(texts)
            raise ValueError(f'{where}: {code}: expected a list of texts, got {shown}')
        for text in texts:
            check_text(text, f'{where}: {code}')
    return Group(name, query, passage, {x: texts for x, texts in negatives.items() if texts})


def _check_texts(texts, where: str) -> dict[str, str]:
    if not isinstance(texts, dict) or not texts:
        raise ValueError(f'{where}: expected {{language: text}}, got {files.shorten(texts)}')
    for code, text in texts.items():
        languages.check_language(code, where)
        check_text(text, f'{where}: {code}')
    return texts


def check_text(text, where: str) -> None:
    """ValueError unless this is a non-empty string without lone surrogates."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f'{where}: expected a non-empty text, got {files.shorten(text)}')
    check_unicode(text, where)


def check_unicode(text, where: str) -> None:
    """ValueError unless this is a string without lone surrogates, which may be empty."""
    if not isinstance(text, str):
        raise ValueError(f'{where}: expected a text, got {files.shorten(text)}')
    if SURROGATE.search(text):
        raise ValueError(f'{where}: expected Unicode text, got a lone surrogate')
