"""What a source of training data yields: rows or texts, read from blocks of lines.

Hides how files are cut into blocks, and the checks that every format shares: what is wrong is
named with file and line, what was expected and what came. Called by `sources` and its formats.
"""

import functools
import glob
import gzip
import hashlib
import json
import pathlib
import re
import typing
import zlib
from collections import abc

import babel

BLOCK = 1 << 20  # bytes read at a time; a block is whole lines of about as many
LONGEST = 1 << 22  # bytes of a line


class Row(typing.NamedTuple):
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


class Source(typing.NamedTuple):
    """A named stream of rows that can be read more than once, in parts and by other processes."""

    name: str
    origin: str
    sha256: str
    size: int  # bytes, about
    blocks: abc.Callable[[], abc.Iterator]
    read: abc.Callable[[typing.Any], list[Row]]  # of a block
    place: abc.Callable[[int], str]  # of row n, for errors

    def rows(self) -> abc.Iterator[Row]:
        for block in self.blocks():
            yield from self.read(block)


class Part(typing.NamedTuple):
    """Blocks and what reads one of them: texts of a side and language, or links."""

    blocks: abc.Callable[[], abc.Iterator]
    read: abc.Callable[[typing.Any], list]


class Collection(typing.NamedTuple):
    """A named source whose texts are apart from the links between them."""

    name: str
    origin: str
    sha256: str
    size: int
    texts: dict[tuple[str, str], Part]  # (side, language) -> Text
    links: Part  # Link


class Lines(typing.NamedTuple):
    """Whole lines of a file, the first of which has the number `first`."""

    file: str
    first: int
    data: bytes

    def numbered(self) -> abc.Iterator[tuple[str, str]]:
        """Yields (place, line without its end)."""
        for number, line in enumerate(self.data.split(b'\n'), self.first):
            place = f'{self.file}:{number}'
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise ValueError(f'{place}: expected UTF-8, got {error}') from None
            if not text.strip():
                raise ValueError(f'{place}: expected text, got an empty line')
            yield place, text.removesuffix('\r')


def lines(files: abc.Sequence[pathlib.Path], skip: int = 0) -> abc.Iterator[Lines]:
    """Blocks of the lines of files, plain or gzip, without the first `skip` lines of each.

    ValueError names file and line of a gzip file that ends early and of a line over 4 MiB.
    Blank lines at the end of a file are dropped.
    """
    for file in files:
        with file.open('rb') as raw:
            opened = gzip.open(raw) if raw.read(2) == b'\x1f\x8b' else raw
            raw.seek(0)
            first, rest = 1, b''
            while data := chunk(opened, file, first, rest):
                whole, rest = divide(rest + data)
                if whole:
                    yield from unskipped(Lines(str(file), first, whole), skip)
                    first += whole.count(b'\n') + 1
                too_long(file, first + rest.count(b'\n'), rest)
            if rest.strip():
                yield from unskipped(Lines(str(file), first, divide(rest + b'\n')[0]), skip)


def chunk(opened, file, first: int, rest: bytes) -> bytes:
    try:
        return opened.read(BLOCK)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        line = first + rest.count(b'\n')
        raise ValueError(f'{file}:{line}: expected a whole gzip file, got {error}') from None


def divide(data: bytes) -> tuple[bytes, bytes]:
    """The whole lines of data, and the rest: blank lines at the end, and a line without its end."""
    last = len(data[: data.rfind(b'\n') + 1].rstrip())  # of what is not blank
    cut = data.find(b'\n', last)
    return (data[:cut], data[cut + 1 :]) if last and cut >= 0 else (b'', data)


def whole(file: pathlib.Path) -> str:
    """The text of a file that is not made of lines, plain or gzip."""
    with file.open('rb') as raw:
        opened = gzip.open(raw) if raw.read(2) == b'\x1f\x8b' else raw
        raw.seek(0)
        try:
            return opened.read().decode()
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f'{file}: expected a whole gzip file, got {error}') from None
        except UnicodeDecodeError as error:
            raise ValueError(f'{file}: expected UTF-8, got {error}') from None


def too_long(file, number: int, line: bytes) -> None:
    if len(line) > LONGEST:
        raise ValueError(
            f'{file}:{number}: expected a line up to {LONGEST} bytes, got a longer one'
        )


def unskipped(block: Lines, skip: int) -> abc.Iterator[Lines]:
    drop = max(0, skip + 1 - block.first)
    parts = block.data.split(b'\n', drop)
    if len(parts) > drop:
        yield Lines(block.file, block.first + drop, parts[drop])


def columns(place: str, line: str, names: abc.Sequence[str], separator: str = '\t') -> list[str]:
    """The fields of a line of a table; ValueError unless there is one for every name."""
    fields = line.split(separator)
    if len(fields) != len(names):
        expected = ', '.join(names)
        raise ValueError(
            f'{place}: expected {len(names)} columns ({expected}), got {len(fields)}: {shown(line)}'
        )
    return fields


def find(pattern: str, option: str) -> dict[str, list[pathlib.Path]]:
    """Language -> files of a pattern with {lang}, which stands for a code or an English name.

    Without {lang} the language is ''. `*` matches what it does in a shell. ValueError names the
    option where there is no such file.
    """
    found = {}
    parts = re.escape(pattern).replace(r'\*', '[^/]*').split(r'\{lang\}')
    named = '(?P<lang>[^/]+?)'
    shape = re.compile(
        parts[0]
        + ''.join((named if i == 0 else '(?P=lang)') + part for i, part in enumerate(parts[1:]))
    )
    for path in sorted(glob.glob(glob_of(pattern))):
        match = shape.fullmatch(path)
        if match and pathlib.Path(path).is_file():
            code = language(match['lang'], path) if '{lang}' in pattern else ''
            found.setdefault(code, []).append(pathlib.Path(path))
    if not found:
        raise ValueError(f'{option}={pattern}: expected some files, found none')
    return found


def glob_of(pattern: str) -> str:
    return glob.escape(pattern).replace('[*]', '*').replace('{lang}', '*')


def digest(files: abc.Iterable[pathlib.Path]) -> tuple[str, int]:
    """SHA-256 of the contents of files, and their bytes."""
    total, size = hashlib.sha256(), 0
    for file in files:
        with file.open('rb') as data:
            total.update(hashlib.file_digest(data, 'sha256').digest())
        size += file.stat().st_size
    return total.hexdigest(), size


def parse_json(line: str, place: str) -> dict:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{place}: expected a JSON object, got {error}') from None
    if not isinstance(fields, dict):
        raise ValueError(f'{place}: expected a JSON object, got {type(fields).__name__}')
    return fields


def check(fields: dict, place: str) -> Row:
    """A row from fields as they come from outside; `place` names them in errors."""
    unknown = fields.keys() - set(Row._fields)
    if unknown:
        raise ValueError(f'{place}: expected {", ".join(Row._fields)}, got {min(unknown)!r} too')
    name = fields.get('id')
    if not isinstance(name, str) or not name.strip() or SURROGATE.search(name):
        raise ValueError(f'{place}: id: expected a non-empty string, got {shown(name)}')
    query = check_texts(fields.get('query'), f'{place}: query')
    passage = check_texts(fields.get('passage'), f'{place}: passage')
    negatives = fields.get('negatives', {})
    where = f'{place}: negatives'
    if not isinstance(negatives, dict):
        raise ValueError(f'{where}: expected {{language: [text]}}, got {shown(negatives)}')
    for code, texts in negatives.items():
        check_language(code, where)
        if not isinstance(texts, list):
            raise ValueError(f'{where}: {code}: expected a list of texts, got {shown(texts)}')
        for text in texts:
            check_text(text, f'{where}: {code}')
    return Row(name, query, passage, {x: texts for x, texts in negatives.items() if texts})


def check_texts(texts, place: str) -> dict[str, str]:
    if not isinstance(texts, dict) or not texts:
        raise ValueError(f'{place}: expected {{language: text}}, got {shown(texts)}')
    for code, text in texts.items():
        check_language(code, place)
        check_text(text, f'{place}: {code}')
    return texts


def check_text(text, place: str) -> None:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f'{place}: expected a non-empty text, got {shown(text)}')
    if SURROGATE.search(text):
        raise ValueError(f'{place}: expected Unicode text, got a lone surrogate')


SURROGATE = re.compile('[\ud800-\udfff]')


@functools.cache
def known_languages() -> dict[str, str]:
    """English name -> code of every language that the Unicode CLDR names."""
    return {name.lower(): code for code, name in babel.Locale('en').languages.items()}


@functools.cache
def is_language(code: str) -> bool:
    code = code.replace('-', '_')
    return code.isidentifier() and code.split('_')[0] in known_languages().values()


def check_language(code: str, place: str) -> None:
    """Accepts codes whose language the Unicode CLDR names, such as en, zh-Hant or pt_BR."""
    if not is_language(code):
        raise ValueError(f'{place}: expected a language code such as en, got {code!r}')


def language(name: str, place: str) -> str:
    """The code of a language given by its code or its English name."""
    code = known_languages().get(name.lower(), name)
    check_language(code, place)
    return code


def shown(value) -> str:
    """A value as it appears in a message, cut to one short line."""
    text = json.dumps(value, ensure_ascii=False, default=str) if value is not None else 'nothing'
    return text if len(text) <= 60 else text[:57] + '...'
