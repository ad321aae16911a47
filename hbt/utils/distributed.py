"""What a person sees of a run: progress bars, metrics.jsonl, TensorBoard, one-line errors.

Hides the writers; silent on all processes but the first. Called by every program.


Requests to stop: SIGTERM from a scheduler that takes the machine back, Ctrl-C from a person.

Hides signals and, with several processes, their agreement on one step. Called by `main`.


Several processes as one run: where one is lost or fails, all end within a minute, saying why.

Hides jax.distributed, whose answer to a lost process is to abort the others. Called by `main`.


Devices: the mesh, what lies where, and one way to map a function over it.

Hides shard_map and pmap. The mesh has one axis, `data`. Called by `main`,
`search` and `evaluate`.
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


def is_main_process() -> bool:
    """Whether this process is the one that writes."""
    return not jax.distributed.is_initialized() or jax.process_index() == 0


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


LOST = 30  # seconds after which a process that is silent counts as lost
HEARD = 5  # seconds that a process which failed stays, for the others to hear why
EAR = 1000  # ms between two looks at whether all is done
KEY = 'hbt/failed'
OURS = ('RESOURCE_EXHAUSTED', 'INVALID_ARGUMENT', 'UNIMPLEMENTED')  # would come again


def run_as_one_of_many(work: abc.Callable[[], None]) -> None:
    """Joins the processes of a run and calls `work`.

    Where a process is lost, the others end with `requests.RESTART`; where one fails, all end with
    its exit status. At once: Python's own way out would wait for all of them.
    """
    set_handler = ctypes.pythonapi.PyOS_setsig
    set_handler.argtypes, set_handler.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    set_handler(signal.SIGABRT, ctypes.cast(ABORTED, ctypes.c_void_p))
    join_processes()
    done = threading.Event()
    listener = threading.Thread(target=listen, args=(done,), daemon=True)
    listener.start()
    try:
        work()
    except jax.errors.JaxRuntimeError as error:
        told = one_line(error)
        if told.startswith(OURS):
            fail(told, 1)
        lost(told)
    except (ValueError, OSError) as error:
        fail(one_line(error), 2)
    except KeyboardInterrupt:
        fail('interrupted', STATUS[signal.SIGINT])
    except Exception as error:
        traceback.print_exc()
        fail(f'{type(error).__name__}: {one_line(error)}', 1)
    finally:  # Python ends in its own way: neither the thread nor the handler outlives it
        done.set()
        listener.join()
        set_handler(signal.SIGABRT, None)


def join_processes() -> None:
    """Joins the processes of a run: as the cluster tells, or as the environment does.

    JAX_COORDINATOR_ADDRESS (host:port), JAX_NUM_PROCESSES and JAX_PROCESS_ID, all three or none.
    """
    names = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')
    given = [os.environ.get(name) for name in names]
    if not any(given):
        jax.distributed.initialize(heartbeat_timeout_seconds=LOST)
        return
    for name, value in zip(names, given, strict=True):
        if value is None or (name != names[0] and not value.isdigit()):
            raise ValueError(f'{name}: expected a value beside {", ".join(names)}, got {value}')
    address, count, number = given
    jax.distributed.initialize(address, int(count), int(number), heartbeat_timeout_seconds=LOST)


def listen(done: threading.Event) -> None:
    """Ends this process when another one tells that it failed, until `done`."""
    while not done.is_set():
        try:
            note = distributed.global_state.client.blocking_key_value_get(KEY, EAR)
        except jax.errors.JaxRuntimeError as error:
            if 'DEADLINE_EXCEEDED' in str(error):
                continue
            return  # a process is lost, of which JAX tells
        number, told, status = json.loads(note)
        if number != jax.process_index():
            leave(f'process {number} failed: {told}', status)
        return


def fail(told: str, status: int) -> None:
    note = json.dumps([jax.process_index(), told, status])
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # only the first one is heard
        distributed.global_state.client.key_value_set(KEY, note)
        time.sleep(HEARD)
    leave(told, status)


def lost(told: str) -> None:
    told = f'another process, or a device, is lost: {told}; the same command goes on'
    leave(told, RESTART)


def leave(told: str, status: int) -> None:
    print('error:', told, file=sys.stderr, flush=True)
    os._exit(status)


def one_line(error: BaseException) -> str:
    return ' '.join(str(error).split())[:1000]


# Kept for as long as a signal can come. Not in Python's own table: that is looked at by the main
# thread only, which may be waiting for the lost process.
ABORTED = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: lost('JAX tells above which one'))


def barrier(name: str) -> None:
    """Waits until all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
