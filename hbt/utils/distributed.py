"""Several processes as one run: barriers, requests to stop, and the loss of a process.

Where a process is lost or fails, all end within a minute, saying why; jax.distributed alone would
abort the others.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections import abc

import jax
from jax._src import distributed  # the client has no public name
from jax.experimental import multihost_utils

RESTART = 75  # exit status that asks a launcher to run the same command again (EX_TEMPFAIL)
SIGNAL_STATUS = {signal.SIGTERM: RESTART, signal.SIGINT: 130}
FAILURE_KEY = 'hbt/failed'
PERMANENT_ERRORS = ('RESOURCE_EXHAUSTED', 'INVALID_ARGUMENT', 'UNIMPLEMENTED')


def is_main_process() -> bool:
    """Whether this process is the one that writes."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def barrier(name: str) -> None:
    """Barrier across all processes."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


class StopRequests:
    """Notes the first SIGTERM or Ctrl-C, for the next step; a second one ends the process."""

    def __init__(self):
        self.signal = None
        self.is_single_process = jax.process_count() == 1  # else JAX's own service notes SIGTERM

    def __enter__(self):
        signals = SIGNAL_STATUS if self.is_single_process else ()
        self.previous = {x: signal.signal(x, self._note) for x in signals}
        return self

    def __exit__(self, *_):
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _) -> None:
        self.signal = signal.Signals(number)
        signal.signal(number, signal.SIG_DFL)

    def due(self, step: int) -> bool:
        """Whether to stop after this step; every process calls it, and gets the same answer."""
        if not self.is_single_process and multihost_utils.reached_preemption_sync_point(step):
            self.signal = signal.SIGTERM
        return self.signal is not None

    @property
    def status(self) -> int:
        return SIGNAL_STATUS[self.signal]


def run_in_processes(work: abc.Callable[[], None]) -> None:
    """Joins the processes of a run and calls `work`.

    Where a process is lost, the others end with status RESTART; where one fails, all end with its
    status. At once: a regular exit of Python would wait for all of them.
    """
    set_handler = ctypes.pythonapi.PyOS_setsig
    set_handler.argtypes, set_handler.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    set_handler(signal.SIGABRT, ctypes.cast(_ABORT_HANDLER, ctypes.c_void_p))
    _join_processes()
    done = threading.Event()
    listener = threading.Thread(target=_listen, args=(done,), daemon=True)
    listener.start()
    try:
        work()
    except jax.errors.JaxRuntimeError as error:
        message = _one_line(error)
        if message.startswith(PERMANENT_ERRORS):
            _fail(message, 1)
        _exit_lost(message)
    except (ValueError, OSError) as error:
        _fail(_one_line(error), 2)
    except KeyboardInterrupt:
        _fail('interrupted', SIGNAL_STATUS[signal.SIGINT])
    except Exception as error:  # the other processes end too, and hear of any error
        traceback.print_exc()
        _fail(f'{type(error).__name__}: {_one_line(error)}', 1)
    finally:  # neither the thread nor the handler may outlive Python
        done.set()
        listener.join()
        set_handler(signal.SIGABRT, None)


def _join_processes() -> None:
    """Joins the processes that three variables, all or none, or else the cluster describe."""
    names = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')
    values = [os.environ.get(name) for name in names]  # host:port and two numbers
    arguments = []
    if any(values):
        for name, value in zip(names, values, strict=True):
            if value is None or (name != names[0] and not value.isdigit()):
                raise ValueError(f'{name}: expected a value beside {", ".join(names)}, got {value}')
        arguments = [values[0], *map(int, values[1:])]
    # A process that is silent for 30 s counts as lost.
    jax.distributed.initialize(*arguments, heartbeat_timeout_seconds=30)


def _listen(done: threading.Event) -> None:
    """Ends this process when another one publishes that it failed, until `done`."""
    client = distributed.global_state.client
    while not done.is_set():
        try:
            note = client.blocking_key_value_get(FAILURE_KEY, 1000)  # ms, then looks at `done`
        except jax.errors.JaxRuntimeError as error:
            if 'DEADLINE_EXCEEDED' in str(error):
                continue
            return  # a process is lost, which JAX reports
        number, message, status = json.loads(note)
        if number != jax.process_index():
            _exit(f'process {number} failed: {message}', status)
        return


def _fail(message: str, status: int) -> None:
    note = json.dumps([jax.process_index(), message, status])
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # another process failed first
        distributed.global_state.client.key_value_set(FAILURE_KEY, note)
        time.sleep(5)  # until the others have read it
    _exit(message, status)


def _exit_lost(message: str) -> None:
    message = f'another process, or a device, is lost: {message}; run the same command to resume'
    _exit(message, RESTART)


def _exit(message: str, status: int) -> None:
    print('error:', message, file=sys.stderr, flush=True)
    os._exit(status)


def _one_line(error: BaseException) -> str:
    return ' '.join(str(error).split())[:1000]


# A module-level name, so that it lives as long as a signal can come. Not in Python's own table,
# which only the main thread looks at, that may be waiting for the lost process.
_ABORT_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: _exit_lost('JAX says above which'))
