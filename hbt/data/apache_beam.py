"""A function over many blocks on the machines of an Apache Beam runner, with the results in order.

Takes the place of `workers` where one machine is too small.
"""

import functools
import itertools
import os
import pathlib
import pickle
import shlex
import shutil
import uuid
from collections import abc

_END = object()
_DEFAULT_TASKS = 64


class Beam:
    """Runs a pipeline for every `map`."""

    def __init__(self, options: str, folder: pathlib.Path, tasks: int):
        """Parses the options.

        Args:
          options: of Apache Beam, as `--runner=...`.
          folder: for the results; all machines must see it.
          tasks: each reads the whole source and works on its share of the blocks; 0: 64.

        Raises:
          ValueError: Apache Beam is not installed.
        """
        try:
            import apache_beam
        except ImportError:
            raise ValueError('--beam: needs Apache Beam: pip install hbt[beam]') from None
        self._beam, self._folder = apache_beam, folder.absolute() / 'progress.beam'
        self._options, self._tasks = shlex.split(options), tasks or _DEFAULT_TASKS

    def map(self, function: abc.Callable, blocks: abc.Callable, first: int = 0) -> abc.Iterator:
        """Yields `function(block)` for each of `blocks()` after the `first`, in order.

        The first error of a source is raised in its turn.
        """
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        work = functools.partial(_run_task, function, blocks, first, self._tasks, str(self._folder))
        options = self._beam.options.pipeline_options.PipelineOptions(self._options)
        with self._beam.Pipeline(options=options) as pipeline:
            tasks = pipeline | self._beam.Create(range(self._tasks)) | self._beam.Reshuffle()
            tasks | self._beam.Map(work)
        for file in sorted(self._folder.iterdir()):
            result = pickle.loads(file.read_bytes())
            file.unlink()
            if isinstance(result, ValueError):
                raise result
            yield result
        self._folder.rmdir()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self._folder, ignore_errors=True)


def _run_task(
    function: abc.Callable, blocks: abc.Callable, first: int, tasks: int, folder: str, task: int
) -> int:
    """Works on every `tasks`-th block, writes each result to a file, and returns how many.

    An error in a source is a result too: the last one of this task.
    """
    count, blocks = 0, blocks()
    for number in itertools.count():
        own = number >= first and number % tasks == task
        try:
            block = next(blocks, _END)
            result = function(block) if own and block is not _END else None
        except ValueError as error:
            own, block, result = True, _END, error
        if own and (block is not _END or result is not None):
            # The partial file of a task that Beam runs twice must have a name of its own.
            partial = pathlib.Path(folder).parent / f'progress.beam.{uuid.uuid4()}'
            partial.write_bytes(pickle.dumps(result))
            os.replace(partial, pathlib.Path(folder) / f'{number:010}')
            count += 1
        if block is _END:
            return count
