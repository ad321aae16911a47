"""The hosts of a machine: copies code and data to them, starts one program on all, reads its state.

On the hosts `host.sh` does the work.
"""

import concurrent.futures
import contextlib
import datetime
import importlib.metadata
import os
import pathlib
import shlex
import subprocess
import tarfile
import tempfile
import time

import cloud
import machines

ROOT = pathlib.Path(__file__).resolve().parents[1]
HOST = ('bash', 'hbt/code/launch/host.sh')
RESTART = 75  # EX_TEMPFAIL: hbt was preempted, has saved its state, and asks for a restart
WIDTH = 16  # hosts reached at once


def everywhere(at: cloud.Cloud, m: machines.Machine, script: str, timeout=300.0) -> list:
    """Runs a script of the shell on every host; in the order of the hosts."""
    hosts = names(at, m)
    with concurrent.futures.ThreadPoolExecutor(WIDTH) as pool:
        waiting = [
            pool.submit(at.run, machines.reach(m, h, script), timeout=timeout) for h in hosts
        ]
    return [one.result() for one in waiting]


def names(at: cloud.Cloud, m: machines.Machine) -> list[str]:
    if m.route != 'gce':
        return [str(i) for i in range(m.hosts)]
    if at.dry:  # the cloud chooses the ends of the names
        return [f'{m.name}-{i:04}' for i in range(m.hosts)]
    return sorted(item.name for item in cloud.list_vms(at, m))


def setup(at: cloud.Cloud, m: machines.Machine) -> None:
    """Copies code and data to every host and installs what they need. ValueError names the host."""
    m.date = m.date or datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%dT%H:%M:%SZ')
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        m.jax = m.jax or importlib.metadata.version('jax')  # what was tried here runs there
    at.save(m)
    unpack = 'rm -rf hbt/code.new && mkdir -p hbt/code.new && tar xzf hbt.tgz -C hbt/code.new'
    script = 'hbt/code.new/launch/host.sh'
    install = shlex.join(['bash', script, 'setup', m.packages, m.date, m.bucket])
    with tempfile.TemporaryDirectory() as folder:
        bundle = os.path.join(folder, 'hbt.tgz')
        pack(bundle, m.data)

        def one(host: str) -> None:
            for attempt in range(10):  # new VMs refuse connections for a while
                try:
                    at.run_checked(machines.copying(m, host, bundle, 'hbt.tgz'))
                    break
                except ValueError:
                    if attempt == 9:
                        raise
                    time.sleep(at.poll)
            at.run_checked(machines.reach(m, host, f'{unpack} && {install}'))

        first, *rest = names(at, m)
        one(first)  # alone: gcloud makes its ssh keys the first time
        with concurrent.futures.ThreadPoolExecutor(WIDTH) as pool:
            list(pool.map(one, rest))


def pack(bundle: str, data: tuple[str, ...]) -> None:
    """Writes what git knows or does not ignore, and the data, as they lie in the checkout."""
    listed = subprocess.run(
        ['git', '-C', str(ROOT), 'ls-files', '-zco', '--exclude-standard'],
        capture_output=True,
        check=True,
    ).stdout
    names = [os.fsdecode(name) for name in listed.split(b'\0') if name] + list(data)
    with tarfile.open(bundle, 'w:gz', compresslevel=1) as tar:
        for name in names:
            if os.path.lexists(ROOT / name):  # git lists what was deleted too
                tar.add(ROOT / name, name)


def inside(path: str) -> str:
    """A path of data as it is named on the hosts, where programs run in the checkout."""
    full = pathlib.Path(path).resolve()
    if not full.exists() or not full.is_relative_to(ROOT):
        raise ValueError(f'--data: expected a path inside {ROOT} (or use --bucket), got {path}')
    return str(full.relative_to(ROOT))


def start(at: cloud.Cloud, m: machines.Machine) -> None:
    """Starts the command on every host, or on none. ValueError if one runs or may be running."""
    word, busy, lines = jobs(at, m)
    if busy or word == 'unknown':
        word = 'one' if busy else word
        raise ValueError(f'{m.name}: expected no program there, got {word}: ' + '; '.join(lines))
    for i, done in enumerate(everywhere(at, m, shlex.join([*HOST, 'start', *m.command]))):
        if done.returncode:
            end(at, m)
            raise ValueError(
                f'{m.name}: host {i} did not start (is it set up?): {done.stderr.strip()[-400:]}'
            )


def end(at: cloud.Cloud, m: machines.Machine) -> None:
    """Ends the program on every host that answers, after it could save its state."""
    everywhere(at, m, shlex.join([*HOST, 'end']))


def jobs(at: cloud.Cloud, m: machines.Machine) -> tuple[str, bool, list[str]]:
    """The state of the hosts together, whether a program still runs on any, and a line of each.

    `unknown` if any cannot be asked, else `done` if all ended well, `again` if any asks for a
    restart, `failed` if any failed, `running` if none did.
    """
    words, lines = [], []
    script = f'if [ -e {HOST[1]} ]; then {shlex.join(HOST)} state; else echo none; fi'
    for i, done in enumerate(everywhere(at, m, script)):
        answer = done.stdout.splitlines() if done.returncode == 0 else []
        words.append(answer[0] if answer else 'unknown')
        lines.append(f'[{i}] ' + ' | '.join(answer or [done.stderr.strip()[-200:]]))
    ended = {int(word.split()[1]) for word in words if word.startswith('exit')}
    if at.dry or all(word == 'exit 0' for word in words) and len(words) == m.hosts:
        word = 'done'
    elif len(words) != m.hosts or 'unknown' in words:
        word = 'unknown'
    elif RESTART in ended or {'none', 'lost'} & set(words):
        word = 'again'
    else:
        word = 'failed' if ended - {0} else 'running'
    return word, 'running' in words, lines
