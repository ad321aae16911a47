"""Devices: the mesh, what lies where, and one way to map a function over it.

Hides shard_map and pmap. The mesh has one axis, `data`. Called by `main`,
`search` and `evaluate`.
"""

import typing
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


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, P())


def sharded(mesh: jax.sharding.Mesh, dim: int = 0) -> NamedSharding:
    """Axis `dim` divided over the devices."""
    return NamedSharding(mesh, P(*[None] * dim, AXIS))


def mark_varying(tree):
    """Marks replicated arrays as each device's own, so that their gradient is the local one.

    Inside a mapped function. The gradients are then averaged once, not once for every use.
    """
    return jax.tree.map(lambda x: jax.lax.pcast(x, AXIS, to='varying'), tree)


class Mapped(typing.NamedTuple):
    """A function of (whole, rows) on all devices."""

    function: typing.Any  # compiled; takes the rows where `place` puts them
    place: abc.Callable

    def __call__(self, whole, rows):
        return self.function(whole, self.place(rows))


def map_over_devices(
    function, mesh, mapping: str, dims, whole=None, results=None, donate: bool = False
) -> Mapped:
    """Maps `function(whole, rows)` over the devices and compiles it.

    Every device gets its part of `rows`, this host's rows in numpy, divided along the axes `dims`,
    a prefix of their tree. Both `whole` and the results are the same on all devices, but for what
    the trees of specs of these names split (shard_map only). `mapping`: 'shard_map', or 'pmap',
    which in today's JAX is the same thing with another interface. `donate`: `whole` is used up.
    """
    return MAPPINGS[mapping](function, mesh, dims, whole or P(), results or P(), donate)


def by_shard_map(function, mesh, dims, whole, results, donate):
    specs = jax.tree.map(lambda dim: sharded(mesh, dim).spec, dims)
    mapped = jax.jit(
        jax.shard_map(function, mesh=mesh, in_specs=(whole, specs), out_specs=results),
        donate_argnums=(0,) if donate else (),
    )

    def place(dim, rows):
        where = sharded(mesh, dim)
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(where, x), rows)

    return Mapped(mapped, lambda rows: jax.tree.map(place, dims, rows))


def by_pmap(function, mesh, dims, whole, results, donate):
    assert whole == results == P(), 'pmap splits no parameters'
    if jax.process_count() > 1:
        raise ValueError('mapping: expected shard_map on several hosts, got pmap')
    mapped = jax.pmap(
        function,
        AXIS,
        in_axes=(None, 0),
        out_axes=None,
        devices=list(mesh.devices),
        donate_argnums=(0,) if donate else (),
    )

    def stack(dim, rows):
        return jax.tree.map(lambda x: np.stack(np.split(x, mesh.size, axis=dim)), rows)

    return Mapped(mapped, lambda rows: jax.tree.map(stack, dims, rows))


def local_device_range(mesh: jax.sharding.Mesh) -> range:
    """The numbers of this host's devices in the mesh."""
    mine = [i for i, d in enumerate(mesh.devices) if d.process_index == jax.process_index()]
    return range(mine[0], mine[-1] + 1)


MAPPINGS = {'shard_map': by_shard_map, 'pmap': by_pmap}
