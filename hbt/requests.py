"""Requests to stop: SIGTERM from a scheduler that takes the machine back, Ctrl-C from a person.

Hides signals and, with several processes, their agreement on one step. Called by `main`.
"""

import signal
import types

import jax
from jax.experimental import multihost_utils

RESTART = 75  # exit status that asks a launcher for the same command again (EX_TEMPFAIL)
STATUS = {signal.SIGTERM: RESTART, signal.SIGINT: 130}


class Requests:
    """Notes the first signal, for the next step boundary; a second one ends the process at once."""

    def __init__(self):
        self.signal = None
        self.alone = jax.process_count() == 1  # else JAX's own service notes SIGTERM

    def __enter__(self):
        self.before = {x: signal.signal(x, self.note) for x in STATUS} if self.alone else {}
        return self

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def note(self, number: int, frame: types.FrameType | None) -> None:
        del frame
        self.signal = signal.Signals(number)
        signal.signal(number, signal.SIG_DFL)

    def due(self, step: int) -> bool:
        """Whether to stop after this step; the same on all processes, which all have to ask."""
        if not self.alone and multihost_utils.reached_preemption_sync_point(step):
            self.signal = signal.SIGTERM
        return self.signal is not None

    @property
    def status(self) -> int:
        return STATUS[self.signal]
