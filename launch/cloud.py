"""Creates and deletes machines so that no machine that costs money is lost from the record.

A machine is recorded before its first part is created, and its record deleted only when the cloud
confirms that all of it is deleted. The commands come from `machines.py`.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

import machines

RETRIES = 6  # of a deletion
SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


class Cloud:
    """Runs commands, or only shows them; keeps the records of what was created."""

    def __init__(self, dry: bool, poll: float, settle: float):
        self.dry, self.poll, self.settle = dry, poll, settle  # seconds
        self.folder = pathlib.Path(os.environ.get('HBT_MACHINES', '~/.hbt/machines')).expanduser()

    def run(self, argv: list[str], show: bool = False, timeout: float | None = None):
        """A subprocess.CompletedProcess; exit code 124 if it took more than `timeout` seconds."""
        if self.dry or show:
            print(f'+ {shlex.join(argv)}\n', end='', flush=True)  # whole lines, from any thread
        if self.dry:
            return subprocess.CompletedProcess(argv, 0, '', '')
        quiet = {'capture_output': True, 'text': True, 'stdin': subprocess.DEVNULL}
        try:
            return subprocess.run(argv, timeout=timeout, **quiet)
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(argv, 124, '', f'no answer in {timeout:g} s')
        except FileNotFoundError:
            raise ValueError(f'{argv[0]}: expected this program to be installed') from None

    def run_checked(self, argv: list[str], show: bool = False) -> str:
        """Returns the output; ValueError with the last lines of stderr if the command fails."""
        done = self.run(argv, show)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f'exit code {done.returncode}']
            raise ValueError(f'{shlex.join(argv)}: ' + ' '.join(lines[-3:]))
        return done.stdout

    def list_items(self, m: machines.Machine, kind: str) -> list[machines.Item]:
        text = self.run_checked(machines.listing(m, kind))
        return machines.items(kind, text or '[]')

    def exists(self, m: machines.Machine, kind: str) -> bool:
        return any(item.name == m.name for item in self.list_items(m, kind))

    def record_path(self, name: str) -> pathlib.Path:
        """Its record. A dry run keeps its own, so that all verbs can be shown before any is run."""
        real = self.folder / f'{name}.json'
        return real if real.exists() or not self.dry else self.folder / f'{name}.dry'

    def save(self, m: machines.Machine) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.record_path(m.name)
        if self.dry and path.suffix == '.json':
            return
        partial = path.with_suffix('.partial')
        partial.write_text(json.dumps(dataclasses.asdict(m), indent=1))
        os.replace(partial, path)

    def load(self, name: str) -> machines.Machine:
        try:
            values = json.loads(self.record_path(name).read_text())
        except FileNotFoundError:
            raise ValueError(
                f'{name}: no such machine in {self.folder}; the verb status shows what exists'
            ) from None
        values |= {'data': tuple(values['data']), 'command': tuple(values['command'])}
        return machines.Machine(**values)

    def recorded(self) -> list[machines.Machine]:
        return [self.load(path.stem) for path in sorted(self.folder.glob('*.json'))]

    def is_active(self, m: machines.Machine) -> bool:
        """Whether it is still recorded, and no other process is stopping it."""
        return self.record_path(m.name).exists() and not self.load(m.name).stopping

    def delete_record(self, m: machines.Machine) -> None:
        path = self.record_path(m.name)
        if not (self.dry and path.suffix == '.json'):
            path.unlink(missing_ok=True)


def say(*words, sep: str = ' ') -> None:
    print(*words, sep=sep, file=sys.stderr, flush=True)


def create(at: Cloud, m: machines.Machine, wait: float) -> None:
    """Creates the machine and waits until it is ready; ValueError, and nothing left, otherwise."""
    if at.record_path(m.name).suffix == '.json' and at.record_path(m.name).exists():
        raise ValueError(f'{m.name}: recorded already in {at.folder}; stop it or choose a new name')
    for argv in machines.checks(m):
        at.run_checked(argv)
    parts = machines.resources(m)
    for kind, _ in parts:
        if at.exists(m, kind):
            raise ValueError(f'{m.name}: a {kind} of this name exists already; see status')
    at.save(m)
    try:
        for _, argv in parts:
            at.run_checked(argv, show=True)
        deadline = time.monotonic() + 60 * wait
        before = ''
        while not at.dry and (word := state(at, m)) != 'ready':
            if word != before:
                say(f'{time.strftime("%H:%M:%S")} {m.name}: {word}')
            before = word
            if word == 'gone' or time.monotonic() > deadline:
                raise ValueError(f'{m.name}: not ready ({word}) after waiting up to {wait} min')
            time.sleep(at.poll)
    except BaseException as error:  # whatever it was: what was created costs money
        say(f'{m.name}: {error or "interrupted"}; deleting what was created')
        delete(at, m, at.settle)
        raise


def delete(at: Cloud, m: machines.Machine, settle: float = 0) -> None:
    """Deletes all of a machine. ValueError says what is left and how to delete it.

    A creation that failed may still take effect: for `settle` seconds it is looked for again.
    """
    left = []
    with uninterrupted():
        for kind, _ in reversed(machines.resources(m)):
            argv = machines.deletion(m, kind, m.name)
            end = time.monotonic() + (0 if at.dry else settle)
            deleted = delete_part(at, m, kind, argv)
            while deleted and time.monotonic() < end:
                time.sleep(min(at.poll, settle))
                deleted = delete_part(at, m, kind, argv)
            if not deleted:
                left.append(argv)
        if left:
            lines = '\n  '.join(shlex.join(argv) for argv in left)
            raise ValueError(f'{m.name}: STILL THERE and may cost money; delete with:\n  {lines}')
        at.delete_record(m)
    if not at.dry:
        say(f'{m.name}: nothing is left of it in the cloud')


def delete_part(at: Cloud, m: machines.Machine, kind: str, argv: list[str]) -> bool:
    """Deletes one part, and returns whether the cloud confirms it; some must wait for others."""
    for attempt in range(RETRIES):
        if at.run(argv, show=attempt == 0).returncode == 0:
            return True
        with contextlib.suppress(ValueError):
            if not at.exists(m, kind):
                return True
        time.sleep(at.poll)
    return False


@contextlib.contextmanager
def uninterrupted():
    """Ctrl-C and the end of the terminal do not stop a deletion half-way."""
    before = {s: signal.signal(s, signal.SIG_IGN) for s in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def state(at: Cloud, m: machines.Machine) -> str:
    """What the cloud says of it: ready, waiting, gone (preempted, failed) or missing."""
    if m.route == 'ssh':
        return 'ready'
    vms = list_vms(at, m)
    words = [machines.STATES.get(item.state, 'waiting') for item in vms]
    if at.dry or words == ['ready'] * (m.hosts if m.route == 'gce' else 1):
        return 'ready'
    return 'missing' if not words else 'gone' if 'gone' in words else 'waiting'


def list_vms(at: Cloud, m: machines.Machine) -> list[machines.Item]:
    """The lines of the listing that are this machine."""
    kind = 'instance' if m.route == 'gce' else machines.resources(m)[0][0]
    vms = [item for item in at.list_items(m, kind) if item.zone in (m.zone, '')]
    return [x for x in vms if m.name == (x.label if m.route == 'gce' else x.name)]


def orphan(kind: str, item: machines.Item, project: str) -> list[list[str]]:
    """Commands that delete what another record, or a lost one, created."""
    m = machines.Machine(item.label, '', zone=item.zone, project=project)
    if kind != 'instance':
        return [machines.deletion(m, kind, item.name)]
    parts = ('instance group', 'instance template', 'workload policy')
    return [machines.deletion(m, part, item.label) for part in parts]
