"""Devices: the mesh, what lies where, and one way to map a function over it.

Hides jax.distributed, shard_map and pmap. The mesh has one axis, `data`. Called by `main`,
`search` and `evaluate`.
"""

from collections import abc

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = 'data'


def make_mesh(devices: abc.Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """These devices, or all of all hosts; those of a host are neighbours, so its rows are too."""
    devices = sorted(devices or jax.devices(), key=lambda d: (d.process_index, d.id))
    return jax.sharding.Mesh(np.array(devices), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


def check_divides(name: str, rows: int, mesh: jax.sharding.Mesh) -> None:
    """ValueError with the nearest size that divides over the devices, if `rows` does not."""
    n = mesh.size
    if rows % n:
        nearest = max(n, n * round(rows / n))
        raise ValueError(
            f'{name}: expected a multiple of the {n} devices, such as {nearest}, got {rows}'
        )


def replicate(tree, mesh: jax.sharding.Mesh):
    """A copy of every array on every device."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def varying(tree):
    """Marks replicated arrays as each device's own, so that their gradient is the local one.

    Inside a mapped function. The gradients are then averaged once, not once for every use.
    """
    return jax.tree.map(lambda x: jax.lax.pcast(x, AXIS, to='varying'), tree)


def spmd(function, mesh, mapping: str, dim: int, donate: bool = False) -> abc.Callable:
    """Maps `function(replicated, split)` over the devices and compiles it.

    Axis `dim` of every array of `split`, which are this host's rows in numpy, is divided over the
    devices; results are the same on all of them, unless they are split themselves: then they are
    concatenated. `mapping`: 'shard_map', or 'pmap', which in today's JAX is the same thing
    with another interface.
    """
    return MAPPINGS[mapping](function, mesh, dim, donate)


def by_shard_map(function, mesh, dim, donate):
    spec = P(*[None] * dim, AXIS)
    mapped = jax.jit(
        jax.shard_map(function, mesh=mesh, in_specs=(P(), spec), out_specs=P()),
        donate_argnums=(0,) if donate else (),
    )

    def call(replicated, split):
        place = NamedSharding(mesh, spec)
        split = jax.tree.map(lambda x: jax.make_array_from_process_local_data(place, x), split)
        return mapped(replicated, split)

    return call


def by_pmap(function, mesh, dim, donate):
    mapped = jax.pmap(
        function,
        AXIS,
        in_axes=(None, 0),
        out_axes=None,
        devices=list(mesh.devices),
        donate_argnums=(0,) if donate else (),
    )

    def call(replicated, split):
        n = mesh.local_mesh.size
        split = jax.tree.map(lambda x: np.stack(np.split(x, n, axis=dim)), split)
        return mapped(replicated, split)

    return call


MAPPINGS = {'shard_map': by_shard_map, 'pmap': by_pmap}
