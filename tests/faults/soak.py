"""Trains a tiny model for long and measures what must not grow.

    python -m tests.faults.soak --steps=10000

Prints, by least squares over the steps after the warm-up, what resident memory (KiB), open files,
threads and compiled programs grow a step, and the bytes of log files. It looks just before each
checkpoint, when none is being written. Ends with 1 if memory grows by 1 KiB a step or more, or
anything else by more than one in a thousand steps.
"""

import argparse
import ctypes
import dataclasses
import gc
import os
import pathlib
import sys
import tempfile
import threading
import time

import jax
import numpy as np

from hbt import config, main
from hbt.training import loop, telemetry
from hbt.utils import log
from tests import tiny

WARM = 0.2  # of the steps
EVERY = 200  # steps between checkpoints, and looks
LIBC = ctypes.CDLL(None)
M_MMAP_THRESHOLD = -3  # of mallopt
COUNTED = ('files', 'threads', 'programs')


def settings(folder: pathlib.Path, steps: int) -> config.Config:
    c = tiny.get_config()
    data = dataclasses.replace(c.data, root=str(folder / 'store'))
    encoder = dataclasses.replace(c.encoder, num_layers=1)
    changes = dict(steps=steps, log_every=10, ckpt_every=EVERY, data=data, encoder=encoder)
    evaluation = config.Eval(benchmarks=('cldr',), batch_size=512, every=max(1, steps // 10))
    return dataclasses.replace(c, **changes, eval=evaluation)


class Watch:
    """Looks at the process each time that the run writes a line of its log."""

    def __init__(self):
        self.seen, self.programs, self.write = [], 0, log.MetricsWriter.write
        jax.monitoring.register_event_duration_secs_listener(self.heard)

    def heard(self, event: str, seconds: float, **more) -> None:
        del seconds, more
        self.programs += event == telemetry.COMPILED

    def look(self, metrics: log.MetricsWriter, step: int, values: dict) -> None:
        self.write(metrics, step, values)
        if step % EVERY != EVERY - 10 or 'loss' not in values:
            return
        gc.collect()
        LIBC.malloc_trim(0)
        pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
        memory = pages * os.sysconf('SC_PAGE_SIZE') / 1024
        files = len(os.listdir('/proc/self/fd'))
        self.seen.append((step, memory, files, threading.active_count(), self.programs))


def growth(seen: list[tuple]) -> dict[str, float]:
    """What each of the numbers grows a step after the warm-up, by least squares."""
    steps, *columns = np.array(seen, float).T
    late = steps > WARM * steps[-1]
    names = ('memory', *COUNTED)
    return {
        name: float(np.polyfit(steps[late], x[late], 1)[0])
        for name, x in zip(names, columns, strict=True)
    }


def soak(steps: int, folder: pathlib.Path) -> int:
    """The exit status."""
    # What is freed goes back to the system, so that only what is held is seen.
    LIBC.mallopt(M_MMAP_THRESHOLD, 1 << 16)
    watch, start = Watch(), time.monotonic()
    log.MetricsWriter.write = lambda metrics, step, values: watch.look(metrics, step, values)
    c = config.check(settings(folder, steps))
    main.make_store(c)
    loop.train_config(c, folder / 'run')
    grows, (_, *first), (_, *last) = (
        growth(watch.seen),
        watch.seen[int(WARM * len(watch.seen))],
        watch.seen[-1],
    )
    kept = sorted(x.name for x in (folder / 'run/ckpt').iterdir() if x.name.isdigit())
    logs = [x for x in (folder / 'run').rglob('*') if x.is_file() and x.parent.name != 'ckpt']
    logged = sum(x.stat().st_size for x in logs if x.suffix == '.jsonl' or 'events' in x.name)
    for look in watch.seen:
        print('step {}: {:.0f} KiB, {} files, {} threads, {} programs'.format(*look))
    print(f'{steps} steps in {time.monotonic() - start:.0f} s, looked at {len(watch.seen)} times')
    print(f'{"":12}{"after warm-up":>16}{"at the end":>14}{"a step":>14}')
    for name, a, b in zip(grows, first, last, strict=True):
        unit = ' KiB' if name == 'memory' else ''
        print(f'{name:12}{a:>12.0f}{unit:4}{b:>10.0f}{unit:4}{grows[name]:>14.5f}{unit}')
    print(f'checkpoints kept: {", ".join(kept)}; log files: {logged / steps:.0f} bytes a step')
    flat = grows['memory'] < 1 and all(grows[name] < 1e-3 for name in COUNTED)
    print('flat' if flat else 'NOT FLAT')
    return 0 if flat else 1


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--steps', type=int, default=10_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix='soak-') as name:
        sys.exit(soak(given.steps, pathlib.Path(name)))
