"""Growing files of arrays that survive a kill: what follows the last commit is cut off."""

import json
import os
import pathlib

import numpy as np

from hbt.utils import files


class ArrayFiles:
    """The array files of a folder, and `state`: what the next piece needs to know.

    Data go to the files first; `commit` then saves their sizes and the state, atomically. Opening
    the folder again truncates every file to its saved size.
    """

    def __init__(self, folder: pathlib.Path, state: dict):
        """`state`: that of an empty folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._files = folder, {}
        self._progress = folder / 'progress.json'
        saved = json.loads(self._progress.read_text()) if self._progress.exists() else {}
        self._sizes: dict[str, int] = saved.get('sizes', {})
        self.state: dict = saved.get('state', state)
        for file in folder.iterdir():
            if file.name != self._progress.name and file.name not in self._sizes:
                file.unlink()
        for name, size in self._sizes.items():
            os.truncate(folder / name, size)

    @property
    def names(self) -> list[str]:
        """Of all files, sorted."""
        return sorted(self._sizes)

    def _open(self, name: str):
        if name not in self._files:
            path = self.folder / name
            path.touch()
            self._files[name] = path.open('r+b', buffering=0)
            self._sizes.setdefault(name, 0)
        return self._files[name]

    def write(self, name: str, start: int, data: bytes | np.ndarray) -> None:
        """Writes at a byte; what lies between the end and it becomes zeros."""
        view = memoryview(np.ascontiguousarray(data) if isinstance(data, np.ndarray) else data)
        view, file = view.cast('B') if view.nbytes else b'', self._open(name)
        position = start
        try:
            while len(view):
                written = os.pwrite(file.fileno(), view, position)
                view, position = view[written:], position + written
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.folder / name)) from None
        self._sizes[name] = max(self._sizes[name], position)

    def append(self, name: str, data: bytes | np.ndarray) -> int:
        """Writes at the end; returns the byte where the data begin."""
        start = self.size(name)
        self.write(name, start, data)
        return start

    def size(self, name: str) -> int:
        """Bytes of a file."""
        self._open(name)
        return self._sizes[name]

    def scatter(self, name: str, indices: np.ndarray, values: np.ndarray, length: int) -> None:
        """Sets elements of an array that has at least `length`, zeros where nothing is set."""
        if not len(indices):
            return
        if indices[-1] - indices[0] + 1 == len(indices) and (np.diff(indices) == 1).all():
            self.write(name, int(indices[0]) * values.itemsize, values)
            return
        self.map_array(name, values.dtype, length)[indices] = values

    def map_array(self, name: str, dtype, length: int) -> np.ndarray:
        """A file as an array to read and write."""
        self.grow(name, length * np.dtype(dtype).itemsize)
        if not length:  # memmap refuses empty files
            return np.zeros(0, dtype)
        return np.memmap(self.folder / name, dtype, 'r+', shape=(length,))

    def grow(self, name: str, size: int) -> None:
        """Makes a file at least `size` bytes long, with zeros."""
        if self.size(name) < size:
            os.truncate(self._open(name).fileno(), size)
            self._sizes[name] = size

    def remove(self, name: str) -> None:
        """Removes a file that only the writing needed; commits."""
        self._open(name).close()
        del self._files[name], self._sizes[name]
        self.commit()
        (self.folder / name).unlink()

    def commit(self) -> None:
        """Saves the sizes of all files and the state."""
        files.write_json(self._progress, {'sizes': self._sizes, 'state': self.state})

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        for file in self._files.values():
            file.close()
        self._files = {}
