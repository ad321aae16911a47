"""Several processes on one machine train as one does, and one goes on where they were killed.

Not bit for bit: processes sum gradients in another order than the devices of one do.
"""

import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from hbt.training import checkpoint
from hbt.utils import distributed, log
from tests import ROOT

STEPS = 10


def start(store_path, workdir, processes, *more):
    """The processes of a run on four devices in all."""
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, '-m', 'hbt.main', '--config=tests/tiny.py', f'--workdir={workdir}'),
        *(
            f'--config.data.root={store_path}',
            f'--config.steps={STEPS}',
            '--config.eval.batch_size=64',
        ),
        # What differs in the last bit of a gradient near zero, Adam makes a share of this.
        '--config.optim.lr=1e-4',
        *more,
    ]
    each = f'--xla_force_host_platform_device_count={4 // processes}'
    flags = [x for x in os.environ['XLA_FLAGS'].split() if 'device_count' not in x]
    environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': ' '.join([*flags, each])}
    if processes > 1:
        command.append('--config.distributed=true')
        environment['JAX_COORDINATOR_ADDRESS'] = f'localhost:{port}'
        environment['JAX_NUM_PROCESSES'] = str(processes)
    return [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment | {'JAX_PROCESS_ID': str(i)} if processes > 1 else environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(processes)
    ]


def finish(processes):
    outputs = [process.communicate(timeout=300) for process in processes]
    for process, (_, error) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, error[-3000:]
    return outputs


def trajectory(workdir):
    return {
        x['step']: x['loss'] for x in log.read_metrics(workdir / 'metrics.jsonl') if 'loss' in x
    }


def parameters(workdir):
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    step, params = checkpoint.load_params(workdir, 'latest', place)
    assert step == STEPS
    return jax.tree.leaves(params)


@pytest.fixture(scope='module')
def single(tiny_store, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('single')
    finish(start(tiny_store.path, workdir, 1))
    return workdir


@pytest.mark.slow
def test_two_processes_that_are_killed_and_one_that_resumes_end_as_one(
    tiny_store, single, tmp_path
):
    processes = start(tiny_store.path, tmp_path, 2)
    deadline = time.monotonic() + 200
    while not any(x.name.isdigit() and int(x.name) >= 3 for x in tmp_path.glob('ckpt/*')):
        assert all(x.poll() is None for x in processes), finish(processes)
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for process in processes:
        process.send_signal(signal.SIGKILL)
    for process in processes:
        process.communicate()
    ((out, _),) = finish(start(tiny_store.path, tmp_path, 1))
    assert 'continuing after step' in out
    agree(tmp_path, single)


def agree(one, other):
    """Every loss and every parameter within 1e-6."""
    actual, expected = trajectory(one), trajectory(other)
    assert actual.keys() == expected.keys() == set(range(1, STEPS + 1))
    np.testing.assert_allclose(list(actual.values()), list(expected.values()), rtol=1e-6)
    for a, b in zip(parameters(one), parameters(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_two_processes_with_split_parameters_take_the_steps_of_one(tiny_store, single, tmp_path):
    finish(start(tiny_store.path, tmp_path, 2, '--config.shard_params=true'))
    agree(tmp_path, single)


@pytest.mark.slow
def test_four_processes_take_the_steps_of_one_and_only_the_first_speaks(
    tiny_store, single, tmp_path
):
    outputs = finish(start(tiny_store.path, tmp_path, 4))
    spoken = [[x for x in out.splitlines() if '[Gloo]' not in x] for out, _ in outputs[1:]]
    assert spoken == [[], [], []]
    agree(tmp_path, single)


@pytest.mark.slow
@pytest.mark.parametrize('victim', [0, 1])
@pytest.mark.parametrize('way', ['SIGKILL', 'SIGSTOP'])
def test_where_a_process_is_lost_the_other_asks_for_a_restart(tiny_store, tmp_path, victim, way):
    processes = start(tiny_store.path, tmp_path, 2, '--config.steps=100000')
    while len(log.read_metrics(tmp_path / 'metrics.jsonl')) < 5:
        assert all(x.poll() is None for x in processes), finish(processes)
        time.sleep(0.05)
    processes[victim].send_signal(getattr(signal, way))
    try:
        _, error = processes[1 - victim].communicate(timeout=60)
    finally:
        for process in processes:
            process.kill()
        processes[victim].communicate()
    assert processes[1 - victim].returncode == distributed.RESTART, error
    assert 'error: another process, or a device, is lost' in error


@pytest.mark.slow
def test_where_a_process_fails_the_other_prints_its_error_and_ends_too(tiny_store, tmp_path):
    (tmp_path / 'file').touch()
    processes = start(tiny_store.path, tmp_path / 'file' / 'run', 2)
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [x.returncode for x in processes] == [2, 2], outputs
    reason = f"[Errno 20] Not a directory: '{tmp_path}/file/run'"
    assert outputs[0][1].endswith(f'error: {reason}\n')
    assert outputs[1][1].endswith(f'error: process 0 failed: {reason}\n')


@pytest.mark.slow
def test_processes_evaluate_together(tiny_store, tmp_path):
    more = '--config.eval.benchmarks=cldr', '--config.eval.at_start=true', '--config.steps=1'
    results = []
    for processes in (1, 2):
        workdir = tmp_path / str(processes)
        finish(start(tiny_store.path, workdir, processes, *more))
        results.append((workdir / 'results/0/cldr.json').read_text())
    assert results[0] == results[1]
