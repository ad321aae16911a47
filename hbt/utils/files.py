"""Small files, and what error messages tell of files.

Called by whatever reads a file that somebody else wrote.


What a source of training data yields: rows or texts, read from blocks of lines.

Hides how files are cut into blocks, and the checks that every format shares: what is wrong is
named with file and line, what was expected and what came. Called by `sources` and its formats.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import socket
import typing


def read_json(file: pathlib.Path, kind: type[dict] | type[list]):
    """The content of a JSON file; ValueError if it is no object or no list, as `kind` demands."""
    try:
        content = json.loads(file.read_text('utf-8'))
        if not isinstance(content, kind):
            raise ValueError(type(content).__name__)
    except OSError as error:
        raise ValueError(f'{file}: expected a JSON file, got {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise format_error(
            file, f'a JSON {dict(dict="object", list="list")[kind.__name__]}', error
        ) from error
    return content


def format_error(file: pathlib.Path, expected: str, error: Exception) -> ValueError:
    size = file.stat().st_size
    return ValueError(
        f'{file}: expected {expected}, got {size} bytes that are none: {first_line(error)}'
    )


def shorten_list(names: list[str], limit: int = 4) -> str:
    rest = f', ... ({len(names)} in all)' if len(names) > limit else ''
    return ', '.join(names[:limit]) + rest


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip('.')


def describe_path(path: str | pathlib.Path) -> str:
    """What stands at a path, for error messages."""
    path = pathlib.Path(path)
    if not path.is_dir():
        return 'a file' if path.exists() else 'no such directory'
    return shorten_list(sorted(entry.name for entry in path.iterdir()), 12) or 'an empty one'


def sha256(file: pathlib.Path) -> str:
    with file.open('rb') as data:
        return hashlib.file_digest(data, 'sha256').hexdigest()


@contextlib.contextmanager
def name_in_errors(place: str | os.PathLike):
    """Names the place in errors that do not tell of a file, as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(f'{place}: {first_line(error)}') from error


def write_json(path: pathlib.Path, content) -> None:
    """Writes a JSON file, whole or not at all."""
    partial = path.with_name(path.name + '.partial')
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False))
    os.replace(partial, path)


def lock(path: pathlib.Path) -> typing.TextIO:
    """A file that is this process's until it is closed or the process ends, however it ends.

    ValueError if it is another's.
    """
    file = path.open('a+')
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip()
        raise ValueError(
            f'{path}: expected to be alone in {path.parent}, got {holder} at work there'
        ) from None
    file.truncate(0)
    file.write(f'process {os.getpid()} on {socket.gethostname()}\n')
    file.flush()
    return file


def shorten(value) -> str:
    """A value as it appears in a message, cut to one short line."""
    text = json.dumps(value, ensure_ascii=False, default=str) if value is not None else 'nothing'
    return text if len(text) <= 60 else text[:57] + '...'
