"""Computes any step of a training run again."""

import contextlib
import pathlib

import jax

from hbt import config
from hbt.data import store
from hbt.sampling import sampler
from hbt.training import checkpoint, run_dir, train_state, train_step
from hbt.utils import log, sharding


def replay_step(c: config.Config, workdir: pathlib.Path, number: int) -> None:
    """Computes step `number` again, from the newest checkpoint before it, and writes nothing.

    Prints the texts of its batch, its metrics, and the loss of each pair.
    """
    mesh = sharding.make_mesh()
    s = store.open_store(config.store_path(c))
    c = run_dir.resolve_config(c, s, mesh)
    batches = sampler.Sampler(c, s, mesh.size)
    with contextlib.closing(checkpoint.Checkpoints(workdir)) as checkpoints:
        restored = checkpoints.restore(train_state.state_shapes(c, mesh), number)
    if restored is None and number > 1:
        log.info(f'{workdir}: no checkpoint before step {number}: from the first step')
    state, _ = restored or (train_state.init_state(c, mesh), {})
    step, start = train_step.make_step(c, mesh), int(state.step)
    with log.activity(f'computing steps {start + 1} to {number}'):
        for i in range(start, number):
            state, metrics = step(state, batches.batch(i, sharding.local_device_range(mesh))[1])
    log.info('\n'.join(sampler.describe_batch(batches, number - 1)))
    pairs = metrics.pop('pairs')
    for name, value in jax.device_get(metrics).items():
        log.info(f'{name} {float(value):.9g}')
    for i, loss in enumerate(jax.device_get(pairs.loss).reshape(-1)):
        log.info(f'pair {i} loss {loss:.9g}')
