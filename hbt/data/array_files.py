"""Growing files of arrays that survive a kill: bytes after the last commit are truncated."""

import json
import os
import pathlib

import numpy as np

from hbt.utils import files


class ArrayFiles:
    """The array files of a folder, and `state`: what the next piece needs to know.

    Opening truncates every file to the size that `commit` saved, atomically with the state.
    """

    def __init__(self, folder: pathlib.Path, state: dict):
        """`state`: that of an empty folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._progress = folder, folder / 'progress.json'
        saved = json.loads(self._progress.read_text()) if self._progress.exists() else {}
        self.sizes: dict[str, int] = saved.get('sizes', {})  # file -> bytes
        self.state: dict = saved.get('state', state)
        for file in folder.iterdir():
            if file.name in self.sizes:
                os.truncate(file, self.sizes[file.name])
            elif file != self._progress:
                file.unlink()

    def write(self, name: str, data: np.ndarray, start: int | None = None) -> int:
        """Writes at a byte, or at the end; zeros lie between. Returns where the data begin."""
        start = position = self.sizes.get(name, 0) if start is None else start
        with self.grow(name, 0).open('r+b', buffering=0) as file:
            view = memoryview(data.tobytes())
            try:
                while len(view):
                    written = os.pwrite(file.fileno(), view, position)
                    view, position = view[written:], position + written
            except OSError as error:
                raise OSError(error.errno, error.strerror, file.name) from None
        self.sizes[name] = max(self.sizes[name], position)
        return start

    def scatter(self, name: str, indices: np.ndarray, values: np.ndarray, length: int) -> None:
        """Sets elements of an array that has at least `length`, zeros where nothing is set."""
        if len(indices) and (np.diff(indices) == 1).all():
            self.write(name, values, int(indices[0]) * values.itemsize)
        elif len(indices):
            self.map_array(name, values.dtype, length)[indices] = values

    def map_array(self, name: str, dtype, length: int) -> np.ndarray:
        """A file as an array to read and write, that has at least `length`."""
        path = self.grow(name, length * np.dtype(dtype).itemsize)
        # memmap refuses empty files.
        return np.memmap(path, dtype, 'r+', shape=(length,)) if length else np.zeros(0, dtype)

    def grow(self, name: str, size: int) -> pathlib.Path:
        """Makes a file at least `size` bytes long, with zeros; returns its path."""
        path = self.folder / name
        if name not in self.sizes:
            path.touch()
        if self.sizes.setdefault(name, 0) < size:
            os.truncate(path, size)
            self.sizes[name] = size
        return path

    def commit(self) -> None:
        """Saves the sizes of all files and the state."""
        files.write_json(self._progress, {'sizes': self.sizes, 'state': self.state})
