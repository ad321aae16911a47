"""A function over many blocks in several processes of this machine, with the results in order."""

import collections
import concurrent.futures
import contextlib
import functools
import itertools
import multiprocessing
import os
from collections import abc

_SMALL_INPUT = 1 << 22  # bytes for which no process is started


@contextlib.contextmanager
def start_workers(processes: int, num_bytes: int, method: str) -> abc.Iterator[abc.Callable]:
    """Starts processes (0: one for each core, or none for a small input) for a `with` block.

    `method` is 'fork', which shares the memory of the tokenizer, hundreds of MB, but is safe only
    in a program that runs no threads of its own or of JAX; else 'forkserver'. Yields
    `run_blocks(function, blocks, first=0)`, which yields `function(block)` for each of `blocks()`
    after the `first`, in order, and raises the first error in its turn.
    """
    count = processes or (1 if num_bytes < _SMALL_INPUT else len(os.sched_getaffinity(0)))
    if count == 1:
        yield lambda function, blocks, first=0: map(
            function, itertools.islice(blocks(), first, None)
        )
        return
    context = multiprocessing.get_context(method)
    # One thread of the tokenizer in every process is as fast as all of its threads in one, and the
    # rest of the work runs beside it.
    variable = 'TOKENIZERS_PARALLELISM', 'false'
    pool = concurrent.futures.ProcessPoolExecutor(count, context, os.putenv, variable)
    try:
        pool.submit(int).result()  # starts all of them, before any thread is there
        yield functools.partial(_run_blocks, pool, 3 * count)
    finally:
        pool.shutdown(cancel_futures=True)


def _run_blocks(pool, limit: int, function, blocks: abc.Callable, first: int = 0) -> abc.Iterator:
    waiting = collections.deque()
    try:
        for block in itertools.islice(blocks(), first, None):
            waiting.append(pool.submit(function, block))
            if len(waiting) > limit:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except concurrent.futures.process.BrokenProcessPool:
        raise ValueError(
            'a worker process was killed, perhaps for want of memory; run the same command again, '
            'with a smaller --processes, to resume'
        ) from None
