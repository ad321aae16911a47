"""Any step of a run again, from the newest checkpoint before it.

Hides which steps have to be taken on the way. Called by `main`.
"""

import contextlib
import pathlib

import jax

from hbt import config
from hbt.data import store
from hbt.sampling import sampler
from hbt.training import checkpoint, run_dir, train_state, train_step
from hbt.utils import log, sharding


def replay_step(c: config.Config, workdir: pathlib.Path, number: int) -> None:
    """Computes a step of a run again, from the newest checkpoint before it, and prints it.

    Nothing is written. Raises ValueError if no checkpoint is old enough.
    """
    mesh = sharding.make_mesh()
    data = store.open_store(config.store_path(c))
    c = run_dir.resolve_config(c, data, mesh)
    batches = sampler.Sampler(c, data, mesh.size)
    with contextlib.closing(checkpoint.Checkpoints(workdir)) as checkpoints:
        restored = checkpoints.restore(train_state.state_shapes(c, mesh), number)
    if restored is None and number > 1:
        log.info(f'{workdir}: no checkpoint before step {number}: from the beginning')
    state, _ = restored or (train_state.init_state(c, mesh), {})
    step = train_step.make_step(c, mesh)
    for at in range(int(state.step), number):
        state, values = step(state, batches.batch(at, sharding.local_device_range(mesh))[1])
    for line in sampler.describe_batch(batches, number - 1):
        log.info(line)
    rows = values.pop('rows')
    for name, value in jax.device_get(values).items():
        log.info(f'{name} {float(value):.9g}')
    for i, loss in enumerate(jax.device_get(rows.loss).reshape(-1)):
        log.info(f'row {i} loss {loss:.9g}')
