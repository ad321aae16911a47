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
import types
from collections import abc

import jax
from jax._src import distributed  # the client has no public name
from jax.experimental import multihost_utils

RESTART = 75  # exit status that asks a launcher to run the same command again (EX_TEMPFAIL)
SIGNAL_STATUS = {signal.SIGTERM: RESTART, signal.SIGINT: 130}
HEARTBEAT_TIMEOUT = 30  # seconds after which a silent process counts as lost
FAILURE_DELAY = 5  # seconds that a failed process stays, so that the others read its message
POLL_INTERVAL = 1000  # ms between two looks at whether the work is done
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
    """Requests to stop: SIGTERM from a scheduler, Ctrl-C from a person.

    Notes the first signal, for the next step; a second one ends the process at once.
    """

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

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        del frame
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
    status. At once: Python's own way out would wait for all of them.
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
    except Exception as error:
        traceback.print_exc()
        _fail(f'{type(error).__name__}: {_one_line(error)}', 1)
    finally:  # Python ends in its own way: neither the thread nor the handler outlives it
        done.set()
        listener.join()
        set_handler(signal.SIGABRT, None)


def _join_processes() -> None:
    """Joins the processes of a run as the cluster, or else the environment, describes them.

    JAX_COORDINATOR_ADDRESS (host:port), JAX_NUM_PROCESSES and JAX_PROCESS_ID, all three or none.
    """
    names = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')
    values = [os.environ.get(name) for name in names]
    if not any(values):
        jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT)
        return
    for name, value in zip(names, values, strict=True):
        if value is None or (name != names[0] and not value.isdigit()):
            raise ValueError(f'{name}: expected a value beside {", ".join(names)}, got {value}')
    address, count, number = values
    jax.distributed.initialize(
        address, int(count), int(number), heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT
    )


def _listen(done: threading.Event) -> None:
    """Ends this process when another one publishes that it failed, until `done`."""
    client = distributed.global_state.client
    while not done.is_set():
        try:
            note = client.blocking_key_value_get(FAILURE_KEY, POLL_INTERVAL)
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
        time.sleep(FAILURE_DELAY)
    _exit(message, status)


def _exit_lost(message: str) -> None:
    message = f'another process, or a device, is lost: {message}; run the same command to resume'
    _exit(message, RESTART)


def _exit(message: str, status: int) -> None:
    print('error:', message, file=sys.stderr, flush=True)
    os._exit(status)


def _one_line(error: BaseException) -> str:
    return ' '.join(str(error).split())[:1000]


# A module-level name, so that it lives as long as a signal can come. Not in Python's own table:
# that is looked at by the main thread only, which may be waiting for the lost process.
_ABORT_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: _exit_lost('JAX says above which'))
