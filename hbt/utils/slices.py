"""TPU slices by the names that people rent: their chips and links, and what a program takes there.

No TPU is needed: the compiler of libtpu takes a topology in place of devices.
"""

import collections
import importlib.util
import math
import os
import typing

import jax
from jax.experimental import topologies

from hbt.utils import compiled

# Chips -> topology, as in launch/machines.py.
FLAT = {1: '1x1', 4: '2x2', 8: '2x4', 16: '4x4', 32: '4x8', 64: '8x8', 128: '8x16', 256: '16x16'}
CUBE = {4: '2x2x1', 8: '2x2x2', 16: '2x2x4', 32: '2x4x4', 64: '4x4x4', 128: '4x4x8'}
CUBE |= {256: '4x8x8', 512: '8x8x8', 1024: '8x8x16', 2048: '8x16x16'}
ENVIRONMENT = {
    'TPU_SKIP_MDS_QUERY': '1',  # else minutes of look-ups of metadata that only a TPU VM has
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'TPU_ACCELERATOR_TYPE': 'v5litepod-8',  # any; the topology is given
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',  # else a second process dies of /tmp/libtpu_lockfile
}


class Generation(typing.NamedTuple):
    """What the chips of a generation have."""

    cores: int  # counted per chip in the name of a slice
    shapes: dict[int, str]  # chips -> topology
    memory: int  # bytes of HBM
    memory_bandwidth: float  # bytes a second
    clock: float  # cycles a second
    link: float  # bytes a second of a link to the next chip, in one direction


# Memory and its bandwidth: the pages of docs.cloud.google.com/tpu/docs (v4, v5e, v5p, v6e). Clock
# and links: Austin et al. 2025, How to Scale Your Model, part 2 and its appendix A.
GENERATIONS = {
    'v4': Generation(2, CUBE, 32 * 2**30, 1228e9, 1.05e9, 45e9),
    'v5e': Generation(1, FLAT, 16 * 2**30, 819e9, 1.5e9, 45e9),
    'v5p': Generation(2, CUBE, 95 * 2**30, 2765e9, 1.75e9, 90e9),
    'v6e': Generation(1, FLAT, 32 * 2**30, 1640e9, 1.75e9, 90e9),
}
ALIASES = {'v5litepod': 'v5e'}


class Slice(typing.NamedTuple):
    """Chips that are wired together."""

    version: str  # a key of GENERATIONS
    axes: tuple[int, ...]  # chips along each axis of the torus

    @property
    def generation(self) -> Generation:
        return GENERATIONS[self.version]

    @property
    def chips(self) -> int:
        return math.prod(self.axes)

    @property
    def wraps(self) -> tuple[bool, ...]:
        """Which axes are rings: those of 16 chips (v5e, v6e), or all if made of whole 4x4x4 cubes.

        Source: Austin et al. 2025, part 2; MaxText's accelerator_to_spec_map.py has the same.
        """
        if self.generation.shapes is FLAT:
            return tuple(size == 16 for size in self.axes)
        return (all(size % 4 == 0 for size in self.axes),) * len(self.axes)

    def collective_seconds(self, kind: str, size: int) -> float:
        """Estimates the time of a collective over all chips, by arithmetic, without latencies.

        An all-gather or reduce-scatter brings (n - 1) / n of the whole array over the links of all
        axes, in both directions where they are rings; an all-reduce is both. An all-to-all is
        bound by the longest axis: a quarter of what its chips hold, over one axis. A permute is one
        hop. Source: Austin et al. 2025, How to Scale Your Model, part 3.

        Args:
          kind: a kind of `compiled.COLLECTIVE`.
          size: bytes of the whole array; of all-to-all and collective-permute, those of a chip.
        """
        if self.chips == 1:
            return 0.0
        axes = [(n, 1 + ring) for n, ring in zip(self.axes, self.wraps, strict=True) if n > 1]
        gather = (self.chips - 1) / self.chips / sum(directions for _, directions in axes)
        parts = {
            'all-gather': gather,
            'reduce-scatter': gather,
            'all-reduce': 2 * gather,
            'all-to-all': max(n / 4 / directions for n, directions in axes),
            'collective-permute': 1,
        }
        return parts[kind] * size / self.generation.link


def find_slice(name: str) -> Slice:
    """The slice of a name such as v5e-16 or v5p-8 (four chips: v4 and v5p count two cores a chip).

    Raises ValueError for a name that cannot be rented.
    """
    head, _, size = name.rpartition('-')
    version = ALIASES.get(head, head)
    if version not in GENERATIONS or not size.isdecimal():
        expected = 'v4, v5e (or v5litepod), v5p or v6e and a size, such as v5e-16'
        raise ValueError(f'--topology: expected {expected}, got {name!r}')
    generation = GENERATIONS[version]
    sizes = {chips * generation.cores: shape for chips, shape in generation.shapes.items()}
    if int(size) not in sizes:
        expected = f'{head} of {", ".join(map(str, sizes))}'
        raise ValueError(f'--topology: expected {expected}, got {name!r}')
    return Slice(version, tuple(map(int, sizes[int(size)].split('x'))))


def make_devices(s: Slice) -> list[jax.Device]:
    """Devices to compile for, one a chip, on as many hosts as the slice has; nothing runs on them.

    Raises ValueError where libtpu is not installed.
    """
    if importlib.util.find_spec('libtpu') is None:
        raise ValueError(
            '--topology: expected libtpu, which compiles for TPUs on any x86-64 Linux; '
            "install hbt's extra tpu (pip install -e '.[tpu]')"
        )
    os.environ.update(ENVIRONMENT)
    flat = s.generation.shapes is FLAT
    host = {1: [1, 1, 1], 8: [2, 4, 1]}.get(s.chips if flat else 0, [2, 2, 1])
    return topologies.get_topology_desc(
        platform='tpu',
        topology_name=f'{s.version}:{"x".join(map(str, s.axes))}',
        chips_per_host_bounds=host,
        # Both cores of a chip are one device, as on a TPU VM.
        chip_config_name='megacore' if s.generation.cores == 2 else 'default',
        wrap=[*s.wraps, *[False] * (3 - len(s.wraps))],
    ).devices


class Estimate(typing.NamedTuple):
    """What a run of a program takes on a chip, without executing it; times in seconds."""

    memory: int  # bytes at the peak
    compiler: dict[str, float]  # by operation, by the compiler's model
    kernels: dict[str, float]  # by Pallas kernel, by what it declares
    links: float  # of all collectives, by arithmetic
    collectives: str  # counts and sizes

    @property
    def seconds(self) -> float:
        return sum(self.compiler.values()) + sum(self.kernels.values()) + self.links


def estimate(program: jax.stages.Compiled, s: Slice, peak: float) -> Estimate:
    """What a program compiled for a slice takes; `peak` is the FLOP/s of a chip in bfloat16."""
    chip, cost = s.generation, compiled.read_cost(program.as_text())
    kernels = collections.Counter()
    for x, calls in cost.kernels.items():
        each = compiled.kernel_seconds(x, peak, chip.memory_bandwidth, chip.clock)
        kernels[x.name] += calls * each
    sizes = (f'{n} {kind} {cost.sizes[kind] / 1e6:,.1f} MB' for kind, n in cost.counts.items())
    return Estimate(
        program.memory_analysis().peak_memory_in_bytes,
        {name: x / chip.clock for name, x in cost.cycles.items()},
        dict(kernels),
        sum(s.collective_seconds(kind, x) for kind, x in cost.sizes.items()),
        ', '.join(sizes),
    )
