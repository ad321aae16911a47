"""A function over many blocks on the machines of an Apache Beam runner, results in order."""

import contextlib
import functools
import os
import pathlib
import pickle
import shlex
import shutil
import uuid
from collections import abc


@contextlib.contextmanager
def open_runner(options: str, folder: pathlib.Path, tasks: int) -> abc.Iterator[abc.Callable]:
    """Runs blocks in pipelines, as `workers.start_workers` does in processes of one machine.

    `options` are those of Apache Beam, as `--runner=...`. The results go through `folder`, which
    all machines must see. Each of the tasks (0: 64) reads the whole source and works on its share
    of the blocks. Raises ValueError if Apache Beam is not installed.
    """
    try:
        import apache_beam
    except ImportError:
        raise ValueError('--beam: needs Apache Beam: pip install hbt[beam]') from None
    folder = folder.absolute() / 'progress.beam'
    options = apache_beam.options.pipeline_options.PipelineOptions(shlex.split(options))
    try:
        yield functools.partial(_run_blocks, apache_beam, options, folder, tasks or 64)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_blocks(beam, options, folder: pathlib.Path, tasks: int, function, blocks, first: int = 0):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    work = functools.partial(_run_task, function, blocks, first, tasks, folder)
    with beam.Pipeline(options=options) as pipeline:
        numbers = pipeline | beam.Create(range(tasks)) | beam.Reshuffle()
        numbers | beam.Map(work)
    for file in sorted(folder.iterdir()):
        result = pickle.loads(file.read_bytes())
        file.unlink()
        if isinstance(result, ValueError):
            raise result
        yield result


def _run_task(function, blocks, first: int, tasks: int, folder: pathlib.Path, task: int) -> None:
    """Works on every `tasks`-th block and saves each result; an error is the last of a task."""
    number = 0
    try:
        for block in blocks():
            if number >= first and number % tasks == task:
                _save_result(folder / f'{number:010}', function(block))
            number += 1  # before the next block is read: its error takes its place
    except ValueError as error:
        _save_result(folder / f'{number:010}', error)


def _save_result(file: pathlib.Path, result) -> None:
    # Beam may run a task twice at a time: their partial files need different names.
    partial = file.parent.with_name(f'progress.beam.{uuid.uuid4()}')
    partial.write_bytes(pickle.dumps(result))
    os.replace(partial, file)
