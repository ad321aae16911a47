"""Growing files of arrays that survive a kill: what was written and not yet counted is cut off.

Hides how a store is written piece by piece. Called by `prepare`.
"""

import json
import os
import pathlib

import numpy as np

from hbt.utils import files


class Columns:
    """The array files of one folder, and how far they are whole.

    Data go to the files first; `commit` then counts them in `progress.json`, which is replaced
    whole. Opening again cuts every file to its counted size and goes on from there.
    """

    def __init__(self, folder: pathlib.Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.files = folder, {}
        self.progress = folder / 'progress.json'
        saved = json.loads(self.progress.read_text()) if self.progress.exists() else {}
        self.sizes: dict[str, int] = saved.get('sizes', {})
        self.state: dict = saved.get('state', {})
        for file in folder.iterdir():
            if file.name != self.progress.name and file.name not in self.sizes:
                file.unlink()
        for name, size in self.sizes.items():
            os.truncate(folder / name, size)

    def open(self, name: str):
        if name not in self.files:
            path = self.folder / name
            path.touch()
            self.files[name] = path.open('r+b', buffering=0)
            self.sizes.setdefault(name, 0)
        return self.files[name]

    def write(self, name: str, start: int, data: bytes | np.ndarray) -> None:
        """Writes at a byte; what lies between the end and it becomes zeros."""
        view = memoryview(np.ascontiguousarray(data) if isinstance(data, np.ndarray) else data)
        view, file = view.cast('B') if view.nbytes else b'', self.open(name)
        at = start
        try:
            while len(view):
                written = os.pwrite(file.fileno(), view, at)
                view, at = view[written:], at + written
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.folder / name)) from None
        self.sizes[name] = max(self.sizes[name], at)

    def append(self, name: str, data: bytes | np.ndarray) -> int:
        """Writes at the end; returns the byte where the data begin."""
        start = self.size(name)
        self.write(name, start, data)
        return start

    def size(self, name: str) -> int:
        """Bytes of a file."""
        self.open(name)
        return self.sizes[name]

    def place(self, name: str, at: np.ndarray, values: np.ndarray, rows: int) -> None:
        """Puts values at rows of an array of `rows` rows, which is zeros where nothing was put."""
        if not len(at):
            return
        if at[-1] - at[0] + 1 == len(at) and (np.diff(at) == 1).all():
            self.write(name, int(at[0]) * values.itemsize, values)
            return
        self.array(name, values.dtype, rows)[at] = values

    def array(self, name: str, dtype, rows: int) -> np.ndarray:
        """The file as an array of `rows` rows, to read and write."""
        self.grow(name, rows * np.dtype(dtype).itemsize)
        return (
            np.memmap(self.folder / name, dtype, 'r+', shape=(rows,))
            if rows
            else np.zeros(0, dtype)
        )

    def grow(self, name: str, size: int) -> None:
        """Makes a file at least `size` bytes long, with zeros."""
        if self.size(name) < size:
            os.truncate(self.open(name).fileno(), size)
            self.sizes[name] = size

    def drop(self, name: str) -> None:
        """Removes a file that was of use only while writing; commits what there is."""
        self.open(name).close()
        del self.files[name], self.sizes[name]
        self.commit(**self.state)
        (self.folder / name).unlink()

    def commit(self, **state) -> None:
        """Counts all that was written; `state` is what the next piece needs to know."""
        self.state = state
        files.write_json(self.progress, {'sizes': self.sizes, 'state': state})

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        for file in self.files.values():
            file.close()
        self.files = {}
