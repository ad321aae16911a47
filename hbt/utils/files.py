"""Small files: JSON, writing whole or not at all, locks, checksums; and how errors name them."""

import contextlib
import hashlib
import json
import os
import pathlib
import socket
import typing
from collections import abc

import filelock


def read_json(file: pathlib.Path, kind: type[dict] | type[list]):
    """The content of a JSON file; ValueError unless it is of this kind."""
    try:
        content = json.loads(file.read_text('utf-8-sig'))  # with or without a byte order mark
        if not isinstance(content, kind):
            raise ValueError(type(content).__name__)
    except OSError as error:
        raise ValueError(f'{file}: expected a JSON file, got {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        name = 'object' if kind is dict else 'list'
        raise format_error(file, f'a JSON {name}', error) from error
    return content


def read_optional_json(file: pathlib.Path) -> dict:
    """The object in a JSON file, empty without such a file; ValueError as `read_json`."""
    return read_json(file, dict) if file.is_file() else {}


def format_error(file: pathlib.Path, expected: str, error: BaseException) -> ValueError:
    """The error that a file is not in the expected format, because of `error`."""
    got = f'{file.stat().st_size} bytes that are none: {first_line(error)}'
    return ValueError(f'{file}: expected {expected}, got {got}')


def shorten_list(names: list[str], limit: int = 4) -> str:
    """The first names, in one line, and how many there are."""
    rest = f', ... ({len(names)} in all)' if len(names) > limit else ''
    return ' '.join(', '.join(names[:limit]).split()) + rest


def first_line(error: BaseException) -> str:
    """The first line of an error, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip('.')


def describe_path(path: str | pathlib.Path) -> str:
    """What is at a path, for error messages."""
    path = pathlib.Path(path)
    if not path.is_dir():
        return 'a file' if path.exists() else 'no such directory'
    return shorten_list(sorted(entry.name for entry in path.iterdir()), 12) or 'an empty one'


def is_free(path: pathlib.Path) -> bool:
    """Whether nothing is at a path but perhaps an empty folder, so that a new one can go there."""
    return not (any(path.iterdir()) if path.is_dir() else path.exists())


def sha256(file: pathlib.Path) -> str:
    """SHA-256 of the bytes of a file, in hexadecimal digits."""
    with file.open('rb') as data:
        return hashlib.file_digest(data, 'sha256').hexdigest()


def sha256_of_text(text: str) -> str:
    """SHA-256 of a text in UTF-8, in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def name_in_errors(where: str | os.PathLike):
    """Adds a path to errors that name no file, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(f'{where}: {first_line(error)}') from error


def partial_path(path: pathlib.Path) -> pathlib.Path:
    """Where a file or folder grows until it is whole."""
    return path.with_name(path.name + '.partial')


@contextlib.contextmanager
def atomic(path: pathlib.Path, mode: str = 'w') -> abc.Iterator[typing.IO]:
    """Opens a file that appears whole, when the block ends, or not at all."""
    partial = partial_path(path)
    with partial.open(mode, encoding=None if 'b' in mode else 'utf-8') as file:
        yield file
    os.replace(partial, path)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    with atomic(path) as file:
        file.write(text)


def write_json(path: pathlib.Path, content) -> None:
    """Writes a JSON file, whole or not at all."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False))


@contextlib.contextmanager
def lock(path: pathlib.Path) -> abc.Iterator[None]:
    """Locks a folder by the file `path` in it for the block; ValueError if it is locked."""
    try:
        acquired = filelock.FileLock(path, timeout=0, fallback_to_soft=False).acquire()
    except filelock.Timeout:
        raise ValueError(f'{path.parent} is locked by {path.read_text().strip()}') from None
    with acquired:
        path.write_text(f'process {os.getpid()} on {socket.gethostname()}\n')
        yield


def shorten(value) -> str:
    """A value as it appears in a message, in one short line."""
    text = json.dumps(value, ensure_ascii=False, default=str) if value is not None else 'nothing'
    return text if len(text) <= 60 else text[:57] + '...'
