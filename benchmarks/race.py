"""Measures several ways to do the same work, turn by turn, each in its own process.

A turn of one entrant runs while the others wait, so that other load on the machine falls on all.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import typing
from collections import abc


class Result(typing.NamedTuple):
    """Of one entrant: seconds of each turn, and facts that it reports."""

    seconds: list[float]
    facts: dict

    def times(self, other: 'Result') -> float:
        """How many times faster than another: the median of the ratios of equal turns."""
        pairs = zip(other.seconds, self.seconds, strict=True)
        return statistics.median(theirs / ours for theirs, ours in pairs)


def serve(make: abc.Callable[[str], tuple[abc.Callable[[], float], dict]], name: str) -> None:
    """In the process of an entrant: `make(name)` gives (turn, facts), `turn()` its seconds."""
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # what libraries print goes to stderr
    turn, facts = make(name)
    for line in itertools.chain(('ready',), sys.stdin):
        answer = facts if line == 'ready' else {'seconds': turn()}
        print(json.dumps(answer), file=answers, flush=True)


def run(module: str, names: abc.Sequence[str], turns: int, more: abc.Sequence[str]) -> dict:
    """{name: Result} of `python -m module --entrant=name`, which calls `serve`."""
    processes = {}
    for name in names:
        print(f'{name}: set-up', file=sys.stderr, flush=True)
        command = [sys.executable, '-m', module, f'--entrant={name}', *more]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        processes[name] = process, Result([], read_answer(process, name))
    for _ in range(turns):
        for name, (process, result) in processes.items():
            process.stdin.write('go\n')
            process.stdin.flush()
            result.seconds.append(read_answer(process, name)['seconds'])
            print('.', end='', file=sys.stderr, flush=True)
    for process, _ in processes.values():
        process.stdin.close()
        process.wait()
    print(file=sys.stderr)
    return {name: result for name, (_, result) in processes.items()}


def read_answer(process, name: str) -> dict:
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f'{name}: expected an answer, got the exit code {process.wait()}')
    return json.loads(line)
