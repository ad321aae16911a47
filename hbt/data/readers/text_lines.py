"""Text files, plain or gzip, as blocks of lines, line by line or whole; errors name the line.

A line ends in LF or CR LF, and in no other character. A byte order mark is no text.
"""

import codecs
import contextlib
import gzip
import pathlib
import re
import typing
import zlib
from collections import abc

from hbt.utils import files

BLOCK = 1 << 20  # bytes read at a time; a block is whole lines of about as many
LONGEST = 1 << 22  # bytes of a line
_FIELD = re.compile(r'[^ \t\n\r\f\v]+')


class LineBlock(typing.NamedTuple):
    """Whole lines of a file, the first of which has the number `first`."""

    file: str
    first: int
    data: bytes

    def iter_lines(self) -> abc.Iterator[tuple[str, str]]:
        """Yields (where, line without its newline)."""
        for number, line in enumerate(self.data.split(b'\n'), self.first):
            where = f'{self.file}:{number}'
            yield where, decode(line, where)

    def iter_rows(self) -> abc.Iterator[tuple[str, str]]:
        """Yields (where, line without its end); ValueError for a blank line."""
        for where, line in self.iter_lines():
            if not line.strip():
                raise ValueError(f'{where}: expected text, got an empty line')
            yield where, _strip_end(line, where)


def iter_blocks(paths: abc.Sequence[pathlib.Path]) -> abc.Iterator[LineBlock]:
    """Yields blocks of lines, without blank ones at a file's end; ValueError for one over 4 MiB."""
    for path in paths:
        with _open_binary(path) as file:
            first, number, rest = 1, 1, b''  # of the first line of `rest`, and of its last
            while data := _read(file.read, BLOCK, f'{path}:{number}'):
                lines, rest = _split_lines(rest + data)
                if lines:
                    yield LineBlock(str(path), first, lines)
                    first += lines.count(b'\n') + 1
                number = first + rest.count(b'\n')
                if len(rest) > LONGEST:
                    expected = f'a line up to {LONGEST} bytes'
                    raise ValueError(f'{path}:{number}: expected {expected}, got a longer one')
            if rest.strip():
                yield LineBlock(str(path), first, _split_lines(rest + b'\n')[0])


def iter_lines(path: pathlib.Path) -> abc.Iterator[tuple[str, str]]:
    """Yields (where, line without its end) of all lines; ValueError for bad UTF-8 or gzip."""
    with _open_binary(path) as file:
        number = 1
        while line := _read(file.readline, -1, where := f'{path}:{number}'):
            yield where, _strip_end(decode(line, where).removesuffix('\n'), where)
            number += 1


def iter_rows(*paths: pathlib.Path) -> abc.Iterator[tuple[str, str]]:
    """Yields (where, line) of the lines of files; ValueError for a blank one before the end."""
    for block in iter_blocks(paths):
        yield from block.iter_rows()


def read_text(path: pathlib.Path) -> str:
    """The text of a whole file; ValueError as in `iter_lines`."""
    with _open_binary(path) as file:
        return decode(_read(file.read, -1, str(path)), str(path))


def decode(data: bytes, where: str) -> str:
    """The text of bytes in UTF-8, else ValueError."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f'{where}: expected UTF-8, got {error}') from None
    if '\0' in text:  # without its mark, UTF-16 of ASCII is valid UTF-8
        raise ValueError(f'{where}: expected text in UTF-8, got a NUL character, as in UTF-16')
    return text


@contextlib.contextmanager
def _open_binary(path: pathlib.Path) -> abc.Iterator[typing.BinaryIO]:
    """The file, or what a gzip file holds, after the byte order mark."""
    with path.open('rb') as raw:
        file = gzip.open(raw) if raw.peek(2)[:2] == b'\x1f\x8b' else raw
        if _read(file.read, len(codecs.BOM_UTF8), f'{path}:1') != codecs.BOM_UTF8:
            file.seek(0)
        yield file


def _read(read: abc.Callable[[int], bytes], size: int, where: str) -> bytes:
    try:
        return read(size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f'{where}: expected a whole gzip file, got {error}') from None


def _strip_end(line: str, where: str) -> str:
    """The line without the CR of its end; ValueError for another one: it may end a line, or not."""
    line = line.rstrip('\r')
    if '\r' in line:
        got = files.shorten(line[: line.index('\r') + 1])
        raise ValueError(f'{where}: expected lines that end in LF or CR LF, got a CR after {got}')
    return line


def _split_lines(data: bytes) -> tuple[bytes, bytes]:
    """The whole lines of data, and the rest: blank lines at the end, and a line without its end."""
    last = len(data[: data.rfind(b'\n') + 1].rstrip())  # of what is not blank
    cut = data.find(b'\n', last)
    return (data[:cut], data[cut + 1 :]) if last and cut >= 0 else (b'', data)


def split_white_space(line: str) -> list[str]:
    """The fields between white space of ASCII, as trec_eval has it: ids may hold any other."""
    return _FIELD.findall(line)


def split_columns(
    where: str, line: str, names: abc.Sequence[str], separator: str = '\t'
) -> list[str]:
    """The fields of a line of a table, one for every name; a separator of ' ' is white space."""
    fields = line.split(separator) if separator != ' ' else split_white_space(line)
    if len(fields) != len(names):
        expected = f'{len(names)} columns ({", ".join(names)})'
        raise ValueError(f'{where}: expected {expected}, got {len(fields)}: {files.shorten(line)}')
    return fields
