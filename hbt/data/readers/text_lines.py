"""What a source of training data yields: rows or texts, read from blocks of lines.

Hides how files are cut into blocks, and the checks that every format shares: what is wrong is
named with file and line, what was expected and what came. Called by `sources` and its formats.
"""

import glob
import gzip
import hashlib
import pathlib
import re
import typing
import zlib
from collections import abc

from hbt.utils import files, languages

BLOCK = 1 << 20  # bytes read at a time; a block is whole lines of about as many
LONGEST = 1 << 22  # bytes of a line


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
            f'{place}: expected {len(names)} columns ({expected}), '
            f'got {len(fields)}: {files.shorten(line)}'
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
            code = languages.language(match['lang'], path) if '{lang}' in pattern else ''
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
