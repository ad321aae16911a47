"""Any step of a run again, from the newest checkpoint before it.

Hides which steps have to be taken on the way. Called by `main`.
"""

import contextlib
import pathlib

import jax

from hbt import checkpoint, config, log, sampler, sharding, store, train


def replay(c: config.Config, workdir: pathlib.Path, number: int) -> None:
    """Computes a step of a run again, from the newest checkpoint before it, and prints it.

    Nothing is written. Raises ValueError if no checkpoint is old enough.
    """
    mesh = sharding.make_mesh()
    data = store.open(config.root(c))
    c = train.resolve(c, data, mesh)
    batches = sampler.Sampler(c, data, mesh.size)
    with contextlib.closing(checkpoint.Checkpoints(workdir)) as checkpoints:
        restored = checkpoints.restore(train.shapes(c, mesh), number)
    if restored is None and number > 1:
        log.say(f'{workdir}: no checkpoint before step {number}: from the beginning')
    state, _ = restored or (train.init(c, mesh), {})
    step = train.make_step(c, mesh)
    for at in range(int(state.step), number):
        state, values = step(state, batches.batch(at, sharding.local_devices(mesh))[1])
    for line in sampler.show(batches, number - 1):
        log.say(line)
    rows = values.pop('rows')
    for name, value in jax.device_get(values).items():
        log.say(f'{name} {float(value):.9g}')
    for i, loss in enumerate(jax.device_get(rows.loss).reshape(-1)):
        log.say(f'row {i} loss {loss:.9g}')
