"""Devices: the mesh of one axis, where arrays lie, and one way to map a function over it."""

import typing
from collections import abc

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = 'data'


def make_mesh(devices: abc.Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """A mesh of these devices, or of all of all hosts; those of a host are neighbours."""
    devices = sorted(devices or jax.devices(), key=lambda d: (d.process_index, d.id))
    return jax.sharding.Mesh(np.array(devices), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


def platform(mesh: jax.sharding.Mesh) -> str:
    """Where the mesh computes, if not where this process does: cpu, gpu, or such as tpu v5 lite."""
    device = mesh.devices.flat[0]
    return device.device_kind.lower() if device.platform == 'tpu' else device.platform


def check_divides(name: str, size: int, mesh: jax.sharding.Mesh) -> None:
    """ValueError with the nearest multiple of the number of devices, if `size` is none."""
    n = mesh.size
    if size % n:
        expected = f'a multiple of the {n} devices, such as {max(n, n * round(size / n))}'
        raise ValueError(f'{name}: expected {expected}, got {size}')


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, P())


def sharded(mesh: jax.sharding.Mesh, dim: int = 0) -> NamedSharding:
    """Axis `dim` divided over the devices."""
    return NamedSharding(mesh, P(*[None] * dim, AXIS))


def mark_varying(tree):
    """Marks replicated arrays, in a mapped function, as varying: their gradient is the local one.

    The gradients are then averaged once, not once for every use.
    """
    return jax.tree.map(lambda x: jax.lax.pcast(x, AXIS, to='varying'), tree)


class Mapped(typing.NamedTuple):
    """A function of (replicated, batch) on all devices."""

    function: typing.Any  # compiled; takes the batch as `put` gives it
    put: abc.Callable  # from this host's part of the batch, in numpy

    def __call__(self, replicated, batch):
        return self.function(replicated, self.put(batch))


def map_over_devices(
    function,
    mesh,
    mapping: str,
    axes,
    in_specs=None,
    out_specs=None,
    result_specs=None,
    donate: bool = False,
) -> Mapped:
    """Maps `function(replicated, batch)` over the devices, each with its part, and compiles it.

    `axes`, a prefix of the batch's tree, says along which axis each array is divided; the specs, of
    `replicated` and of the results, which parts of these are split (shard_map only; none: no part).
    Results are gathered to `result_specs`. With `donate` the buffers of `replicated` are reused.
    """
    specs = in_specs or P(), out_specs or P(), result_specs or out_specs or P()
    return MAPPINGS[mapping](function, mesh, axes, *specs, (0,) if donate else ())


def _map_by_shard_map(function, mesh, axes, in_specs, out_specs, result_specs, donate_argnums):
    specs = jax.tree.map(lambda axis: sharded(mesh, axis).spec, axes)
    mapped = jax.shard_map(function, mesh=mesh, in_specs=(in_specs, specs), out_specs=out_specs)

    def put(axis, arrays):
        named = sharded(mesh, axis)
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(named, x), arrays)

    results = jax.tree.map(lambda spec: NamedSharding(mesh, spec), result_specs)
    jitted = jax.jit(mapped, donate_argnums=donate_argnums, out_shardings=results)
    return Mapped(jitted, lambda batch: jax.tree.map(put, axes, batch))


def _map_by_pmap(function, mesh, axes, in_specs, out_specs, result_specs, donate_argnums):
    assert in_specs == out_specs == result_specs == P(), 'pmap splits no parameters'
    if jax.process_count() > 1:
        raise ValueError('mapping: expected shard_map on several hosts, got pmap')
    options = {'in_axes': (None, 0), 'out_axes': None, 'donate_argnums': donate_argnums}
    mapped = jax.pmap(function, AXIS, devices=list(mesh.devices), **options)

    def stack(axis, arrays):
        return jax.tree.map(lambda x: np.stack(np.split(x, mesh.size, axis=axis)), arrays)

    return Mapped(mapped, lambda batch: jax.tree.map(stack, axes, batch))


def local_device_range(mesh: jax.sharding.Mesh) -> range:
    """Indices of this host's devices in the mesh."""
    local = [i for i, d in enumerate(mesh.devices) if d.process_index == jax.process_index()]
    return range(local[0], local[-1] + 1)


MAPPINGS = {'shard_map': _map_by_shard_map, 'pmap': _map_by_pmap}
