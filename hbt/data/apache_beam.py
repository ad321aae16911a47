"""Blocks of a source on the machines of an Apache Beam runner, with the results in order.

Takes the place of `workers` where one machine is too small. Hides pipelines, and the files that
their results are left in. Called by `prepare`; imports no JAX, so that its machines need none.
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

END = object()
PARTS = 64  # tasks of a pipeline, where `processes` is 0


class Beam:
    """Runs a pipeline for every `map`."""

    def __init__(self, options: str, folder: pathlib.Path, processes: int):
        """`options` of Apache Beam, as `--runner=...`; `folder` is one that all its machines see.

        Each of the `processes` tasks reads the whole source and works on its share of the blocks.
        ValueError where Apache Beam is not installed.
        """
        try:
            import apache_beam
        except ImportError:
            raise ValueError('--beam: needs Apache Beam: pip install hbt[beam]') from None
        self.beam, self.folder = apache_beam, folder.absolute() / 'progress.beam'
        self.options, self.parts = shlex.split(options), processes or PARTS

    def map(self, function: abc.Callable, blocks: abc.Callable, first: int = 0) -> abc.Iterator:
        """`function(block)` for each of `blocks()` after the `first`, in order.

        The first error of a source is raised in its turn.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        work = functools.partial(share, function, blocks, first, self.parts, str(self.folder))
        options = self.beam.options.pipeline_options.PipelineOptions(self.options)
        with self.beam.Pipeline(options=options) as pipeline:
            parts = pipeline | self.beam.Create(range(self.parts)) | self.beam.Reshuffle()
            parts | self.beam.Map(work)
        for file in sorted(self.folder.iterdir()):
            result = pickle.loads(file.read_bytes())
            file.unlink()
            if isinstance(result, ValueError):
                raise result
            yield result
        self.folder.rmdir()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder, ignore_errors=True)


def share(
    function: abc.Callable, blocks: abc.Callable, first: int, parts: int, folder: str, part: int
) -> int:
    """Works on every `parts`-th block, and leaves each result in a file, whole or not at all.

    Returns how many. An error in a source is a result too: the last of this part.
    """
    count, blocks = 0, blocks()
    for number in itertools.count():
        mine = number >= first and number % parts == part
        try:
            block = next(blocks, END)
            result = function(block) if mine and block is not END else None
        except ValueError as error:
            mine, block, result = True, END, error
        if mine and (block is not END or result is not None):
            partial = pathlib.Path(folder).parent / f'progress.beam.{uuid.uuid4()}'
            partial.write_bytes(pickle.dumps(result))
            os.replace(partial, pathlib.Path(folder) / f'{number:010}')
            count += 1
        if block is END:
            return count
