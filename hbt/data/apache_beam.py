"""A function over many blocks on the machines of an Apache Beam runner, with the results in order.

Takes the place of `workers` where one machine is too small.
"""

import contextlib
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


@contextlib.contextmanager
def open_runner(options: str, folder: pathlib.Path, tasks: int) -> abc.Iterator[abc.Callable]:
    """Runs blocks in pipelines, as `workers.start_workers` does in processes.

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
    folder = folder.absolute() / 'progress.beam'
    options = apache_beam.options.pipeline_options.PipelineOptions(shlex.split(options))
    try:
        yield functools.partial(_run_blocks, apache_beam, options, folder, tasks or _DEFAULT_TASKS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_blocks(
    beam,
    options,
    folder: pathlib.Path,
    tasks: int,
    function: abc.Callable,
    blocks: abc.Callable,
    first: int = 0,
) -> abc.Iterator:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    work = functools.partial(_run_task, function, blocks, first, tasks, str(folder))
    with beam.Pipeline(options=options) as pipeline:
        numbers = pipeline | beam.Create(range(tasks)) | beam.Reshuffle()
        numbers | beam.Map(work)
    for file in sorted(folder.iterdir()):
        result = pickle.loads(file.read_bytes())
        file.unlink()
        if isinstance(result, ValueError):
            raise result
        yield result
    folder.rmdir()


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
            # Beam may run a task twice at a time: their partial files need different names.
            partial = pathlib.Path(folder).parent / f'progress.beam.{uuid.uuid4()}'
            partial.write_bytes(pickle.dumps(result))
            os.replace(partial, pathlib.Path(folder) / f'{number:010}')
            count += 1
        if block is _END:
            return count
