"""A function over many blocks in several processes of this machine, with the results in order."""

import collections
import concurrent.futures
import itertools
import multiprocessing
import os
from collections import abc

_SMALL_INPUT = 1 << 22  # bytes for which no process is started
_WAITING_BLOCKS = 3  # per process


class Workers:
    """Processes that live until the end of the `with` block."""

    def __init__(self, processes: int, num_bytes: int, method: str):
        """Starts the processes.

        Args:
          processes: 0: one for each core, or none for a small input.
          num_bytes: size of the input.
          method: 'fork' shares the memory of the tokenizer, hundreds of MB, but is safe only in a
            program that runs no threads of its own or of JAX; else 'forkserver'.
        """
        small = num_bytes < _SMALL_INPUT
        self._count = processes or (1 if small else len(os.sched_getaffinity(0)))
        self._pool = None
        if self._count > 1:
            context = multiprocessing.get_context(method)
            self._pool = concurrent.futures.ProcessPoolExecutor(self._count, context, _start)
            self._pool.submit(int).result()  # starts all of them, before any thread is there

    def map(self, function: abc.Callable, blocks: abc.Callable, first: int = 0) -> abc.Iterator:
        """Yields `function(block)` for each of `blocks()` after the `first`, in order.

        The first error is raised in its turn.
        """
        blocks = itertools.islice(blocks(), first, None)
        if self._pool is None:
            yield from map(function, blocks)
            return
        waiting = collections.deque()
        try:
            for block in blocks:
                waiting.append(self._pool.submit(function, block))
                if len(waiting) > _WAITING_BLOCKS * self._count:
                    yield _result(waiting.popleft())
            while waiting:
                yield _result(waiting.popleft())
        finally:
            for future in waiting:
                future.cancel()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def _start() -> None:
    # One thread of the tokenizer in every process is as fast as all of its threads in one, and the
    # rest of the work runs beside it.
    os.environ['TOKENIZERS_PARALLELISM'] = 'false'


def _result(future: concurrent.futures.Future):
    try:
        return future.result()
    except concurrent.futures.process.BrokenProcessPool:
        raise ValueError(
            'a worker process was killed, perhaps for want of memory; run the same command again, '
            'with a smaller --processes, to resume'
        ) from None
