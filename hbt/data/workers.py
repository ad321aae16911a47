"""A function over many blocks in several processes, with the results in order.

Hides how processes are started and what waits where. Called by `prepare`.
"""

import collections
import concurrent.futures
import itertools
import multiprocessing
import os
from collections import abc

from hbt.data import tokenization

SMALL = 1 << 22  # bytes of input for which no process is started
AHEAD = 3  # blocks that wait for each process


class Workers:
    """Processes that live until the end of the `with` block."""

    def __init__(self, processes: int, size: int, method: str):
        """`processes` 0: one for each core, or none for an input of few bytes.

        `method` of starting them: 'fork' shares the memory of the tokenizer, hundreds of MB, but is
        safe only in a program that runs no threads of its own or of JAX; else 'forkserver'.
        """
        self.count = processes or (1 if size < SMALL else len(os.sched_getaffinity(0)))
        self.pool = None
        if self.count > 1:
            context = multiprocessing.get_context(method)
            self.pool = concurrent.futures.ProcessPoolExecutor(
                self.count, context, tokenization.start
            )
            self.pool.submit(int).result()  # starts all of them, before any thread is there

    def map(self, function: abc.Callable, blocks: abc.Callable, first: int = 0) -> abc.Iterator:
        """`function(block)` for each of `blocks()` after the `first`, in order.

        The first error is raised in its turn.
        """
        blocks = itertools.islice(blocks(), first, None)
        if self.pool is None:
            yield from map(function, blocks)
            return
        waiting = collections.deque()
        try:
            for block in blocks:
                waiting.append(self.pool.submit(function, block))
                if len(waiting) > AHEAD * self.count:
                    yield result(waiting.popleft())
            while waiting:
                yield result(waiting.popleft())
        finally:
            for future in waiting:
                future.cancel()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)


def result(future: concurrent.futures.Future):
    try:
        return future.result()
    except concurrent.futures.process.BrokenProcessPool:
        raise ValueError(
            'a process that tokenises was killed, perhaps for want of memory: run again, with a '
            'smaller --processes, to continue'
        ) from None
