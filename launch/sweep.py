"""Runs a config with every set of overrides that its `sweep()` yields.

The same command resumes a sweep that was stopped.

python launch/sweep.py configs/scratch_small.py --config.data.root=stores/mine
python launch/sweep.py configs/scratch_small.py --status
python launch/sweep.py configs/hybrid_xlmr.py --jobs=4 --workdir=bucket/sweep \
    --command='python launch/tpu.py run host{slot} -- {args}'
"""

import argparse
import concurrent.futures
import contextlib
import fcntl
import json
import os
import pathlib
import queue
import runpy
import shlex
import signal
import subprocess
import sys
import threading
import typing

from hbt import config
from hbt.utils import distributed, settings

TIMES = 20  # restarts that a run may ask for


class Row(typing.NamedTuple):
    """One run of the sweep."""

    name: str
    args: tuple[str, ...]  # of Python


def expand(file: str, arg: str, workdir: str, rest: list[str]) -> list[Row]:
    """The rows of a config's sweep: `sweep()` yields dicts of settings and their values.

    ValueError names the row whose settings are unknown, are given twice, or are those of another.
    """
    module = runpy.run_path(file)
    if 'sweep' not in module:
        expected = 'a function sweep() that yields dicts of settings'
        raise ValueError(f'{file}: expected {expected}, got none')
    names = set(settings.flatten(config.Config()))
    fixed = {text.lstrip('-').partition('=')[0].removeprefix('config.') for text in rest}
    rows = {}
    for i, values in enumerate(module['sweep']()):
        if not isinstance(values, dict) or not values or not values.keys() <= names - fixed:
            raise ValueError(
                f'{file}: sweep, row {i}: expected a dict of settings such as sampler.alpha, none '
                f'of them on the command line too, got {values!r}'
            )
        name = '_'.join(k.rpartition('.')[2] + text(v) for k, v in values.items()).replace('/', '-')
        if name in rows:
            raise ValueError(f'{file}: sweep, row {i}: expected new values, got {name} again')
        flags = [f'--config.{k}={text(v)}' for k, v in values.items()]
        source = f'--config={file}' + (f':{arg}' if arg else '')
        workdir_flag = f'--workdir={workdir}/{name}'
        rows[name] = Row(name, ('-m', 'hbt.main', source, workdir_flag, *flags, *rest))
    if not rows:
        raise ValueError(f'{file}: sweep: expected at least one row, got none')
    return list(rows.values())


def text(value) -> str:
    """A value as the command line takes it."""
    return ','.join(map(str, value)) if isinstance(value, tuple | list) else str(value)


class Sweep:
    """The states of the rows, record in files: NAME.json beside NAME.log."""

    def __init__(self, folder: pathlib.Path, rows: list[Row], template: str):
        self.folder, self.rows, self.template = folder, rows, template
        self.stopping, self.children = threading.Event(), set()
        self.lock = -1  # open while this sweep runs, also in its children should it be killed

    def state(self, row: Row) -> str:
        """waiting, running, done or failed. ValueError if it was run with other settings."""
        path = self.folder / f'{row.name}.json'
        if not path.exists():
            return 'waiting'
        record = json.loads(path.read_text())
        if record['args'] != list(row.args):
            raise ValueError(
                f'{path}: expected a run with {shlex.join(row.args)}, got one with '
                f'{shlex.join(record["args"])}; choose another --out, or delete this file'
            )
        if record['state'] == 'running' and not locked(self.folder):
            return 'waiting'  # what ran it was killed
        return record['state']

    def note(self, row: Row, state: str) -> None:
        path = self.folder / f'{row.name}.json'
        partial = path.with_suffix('.partial')
        partial.write_text(json.dumps({'state': state, 'args': row.args}))
        os.replace(partial, path)
        print(f'{row.name}: {state}{self.reason(row, state)}', flush=True)

    def line(self, row: Row, slot: int) -> str:
        """The command of the shell that runs a row."""
        try:
            return self.template.format(args=shlex.join(row.args), slot=slot, row=row.name)
        except (KeyError, IndexError, ValueError):
            raise ValueError(
                f'--command: expected {{args}}, {{slot}} or {{row}} in braces, got {self.template}'
            ) from None

    def reason(self, row: Row, state: str) -> str:
        """The last line of the log of a row that failed."""
        log = self.folder / f'{row.name}.log'
        if state != 'failed' or not log.exists():
            return ''
        lines = log.read_text(errors='replace').replace('\r', '\n').split('\n')
        return ': ' + next((line.strip() for line in reversed(lines) if line.strip()), '')[-200:]

    def table(self) -> str:
        """One line a row, and the counts of the states."""
        states = {row: self.state(row) for row in self.rows}
        width = max(len(row.name) for row in self.rows)
        lines = [f'{r.name:{width}}  {s}{self.reason(r, s)}' for r, s in states.items()]
        words = list(states.values())
        counts = ', '.join(f'{words.count(s)} {s}' for s in sorted(set(words)))
        return '\n'.join([*lines, counts])

    def run(self, row: Row, slots: queue.SimpleQueue) -> None:
        """Runs a row to its end, in a free slot, and restarts it as often as it asks."""
        if self.stopping.is_set():
            return
        slot = slots.get()
        line = self.line(row, slot)
        self.note(row, 'running')
        code, times = distributed.RESTART, TIMES
        while code == distributed.RESTART and times and not self.stopping.is_set():
            with open(self.folder / f'{row.name}.log', 'ab') as log:
                child = subprocess.Popen(
                    ['bash', '-c', line],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=[self.lock],
                )
                self.children.add(child)
                if self.stopping.is_set():  # between the question above and the child's start
                    self.stop()
                code, times = child.wait(), times - 1
                self.children.discard(child)
        slots.put(slot)
        ended = 'waiting' if self.stopping.is_set() else 'failed'
        self.note(row, 'done' if code == 0 else ended)

    def stop(self, *_) -> None:
        """Asks the running rows to save their state and end; the others stay as they are."""
        self.stopping.set()
        for child in tuple(self.children):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)


def locked(folder: pathlib.Path) -> bool:
    """Whether a sweep runs in this folder."""
    with open(folder / 'lock', 'a') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument('config', help='file with sweep(), FILE or FILE:ARG')
    parser.add_argument('--jobs', type=int, default=1, help='rows at a time')
    parser.add_argument('--out', default='', help='logs and states; none: runs/sweep/<config>')
    parser.add_argument('--workdir', default='', help='the runs; none: the same')
    parser.add_argument('--command', default=f'{shlex.quote(sys.executable)} {{args}}')
    parser.add_argument('--status', action='store_true', help='print the table and end')
    parser.add_argument('--dry_run', action='store_true', help='print the commands and end')
    args, rest = parser.parse_known_args(argv)
    file, _, arg = args.config.partition(':')
    sys.path.insert(0, os.getcwd())  # as `python -m` does: configs import each other
    folder = pathlib.Path(args.out or f'runs/sweep/{pathlib.Path(file).stem}')
    try:
        return sweep(args, folder, expand(file, arg, args.workdir or str(folder), rest))
    except ValueError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1


def sweep(args, folder: pathlib.Path, rows: list[Row]) -> int:
    """Runs what is not done; 0 if all is."""
    todo = Sweep(folder, rows, args.command)
    shown = [todo.line(row, 0) for row in rows]
    if args.dry_run or args.status:
        print('\n'.join(shown) if args.dry_run else todo.table())
        return 0
    left = [row for row in rows if todo.state(row) != 'done']
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / 'lock', 'a') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f'{folder}: a sweep runs here already') from None
        todo.lock = lock.fileno()
        slots = queue.SimpleQueue()
        for slot in range(args.jobs):
            slots.put(slot)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, todo.stop)
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            for one in [pool.submit(todo.run, row, slots) for row in left]:
                one.result()
    print(todo.table())
    return 0 if all(todo.state(row) == 'done' for row in rows) else 1


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
