"""What a compiled program costs, read from its text (optimised HLO): nothing is executed.

A TPU's compiler writes the cycles that it expects into the text. It has none for collectives and
Pallas kernels; of the latter, it repeats what they declare.
"""

import collections
import math
import re
import typing
from collections import abc

COLLECTIVE = re.compile(
    r' (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\('
)
# Cycles of a kernel for 1024 exponentials or the like, one for each lane of a vector register:
# calibrated on the compiler's own schedule of the attention kernel (11.2 bundles of instructions
# forward, 14.8 backward).
TRANSCENDENTAL_CYCLES = 13
_COMPUTATION = re.compile(r'(ENTRY )?%?([\w.\-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_COST = re.compile(r'"(flops|transcendentals|bytes_accessed)":"?(\d+)')


class Instruction(typing.NamedTuple):
    """A line of a computation."""

    name: str
    shape: str  # such as f32[8,128]{1,0}, or a tuple of these
    op: str
    rest: str  # operands and attributes


class Kernel(typing.NamedTuple):
    """A call of a Pallas kernel, by what it declares."""

    name: str
    flops: int
    transcendentals: int
    bytes: int


class Cost(typing.NamedTuple):
    """A run of a program on one chip; what a loop does counts as often as it does it."""

    cycles: dict[str, int]  # what -> all its cycles, by the compiler's model
    kernels: dict[Kernel, int]  # -> calls
    counts: dict[str, int]  # kind of collective -> how many
    sizes: dict[str, int]  # kind of collective -> bytes of the whole arrays; see `_whole_bytes`


def read_cost(text: str) -> Cost:
    """The cost of a program, from what `as_text()` of a compiled function returns.

    A loop runs as often as its condition says by a constant, else once; of the branches of a
    conditional, the costliest one counts; what an operation does without an estimate, does not.
    """
    computations, entry = _parse(text)
    cycles, kernels, counts, sizes = (collections.Counter() for _ in range(4))
    for x, times in _walk(computations, entry, 1):
        if match := COLLECTIVE.match(f' {x.op}('):
            counts[match[1]] += times
            sizes[match[1]] += times * _whole_bytes(x, match[1])
        if 'custom_call_target="tpu_custom_call"' in x.rest:
            declared = {key: int(value) for key, value in _COST.findall(x.rest)}
            names = 'flops', 'transcendentals', 'bytes_accessed'
            kernels[Kernel(_readable(x), *(declared.get(key, 0) for key in names))] += times
        elif own := _own_cycles(x):
            cycles[_readable(x)] += times * own
    return Cost(dict(cycles.most_common()), dict(kernels), dict(counts), dict(sizes))


def kernel_seconds(x: Kernel, peak: float, bandwidth: float, clock: float) -> float:
    """Time of a call by its slowest part: products, memory, or exponentials.

    Args:
      peak: FLOP/s of a chip in bfloat16; kernels that multiply float32 take longer.
      bandwidth: bytes a second of its memory.
      clock: cycles a second.
    """
    exponentials = x.transcendentals / 1024 * TRANSCENDENTAL_CYCLES / clock
    return max(x.flops / peak, x.bytes / bandwidth, exponentials)


def _parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """The computations of a program by their names, and the name of the one that is run."""
    computations, entry, current = {}, '', []
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            current = computations[header[2]] = []
            entry = header[2] if header[1] else entry
        elif match := _INSTRUCTION.match(line):
            current.append(Instruction(*match.groups()))
    return computations, entry


def _walk(computations, name: str, times: int) -> abc.Iterator[tuple[Instruction, int]]:
    """Yields the instructions that a computation runs, and how often each is run."""
    for x in computations[name]:
        yield x, times
        called = _called(x, computations)
        if x.op == 'while':
            yield from _walk(computations, called['body'], times * _trips(computations, called))
        elif x.op == 'conditional':
            costs = {n: sum(_own_cycles(y) for y in computations[n]) for n in called.values()}
            yield from _walk(computations, max(costs, key=costs.get), times)
        elif x.op == 'call':
            yield from _walk(computations, called['to_apply'], times)
        elif x.op in ('fusion', 'async-start'):
            yield from ((y, times) for y in _fused_collectives(computations[called['calls']]))


def _called(x: Instruction, computations) -> dict[str, str]:
    """Role -> name of the computations that an instruction calls."""
    roles = dict(re.findall(r'(\w+)=%?([\w.\-]+)', x.rest.split('backend_config=')[0]))
    branches = re.search(r'branch_computations=\{(.*?)\}', x.rest)
    names = re.findall(r'[\w.\-]+', branches[1]) if branches else ()
    roles |= {str(i): name for i, name in enumerate(names)}
    return {role: name for role, name in roles.items() if name in computations}


def _trips(computations, called: dict[str, str]) -> int:
    """How often a loop runs: the constant in its condition."""
    condition = computations[called['condition']]
    values = [x.rest.split(')')[0] for x in condition if x.op == 'constant']
    return max((int(x) for x in values if x.isdigit()), default=1)


def _fused_collectives(fused: list[Instruction]) -> abc.Iterator[Instruction]:
    """The collectives that begin in a fusion.

    The compiler spreads one over several fusions, to hide it: each has the instruction again.
    """
    starts = any('AsyncCollectiveStart' in x.rest for x in fused)
    for x in fused:
        spread = 'async_collective_fusion_config' in x.rest
        if COLLECTIVE.match(f' {x.op}(') and (starts or not spread):
            yield x


def _own_cycles(x: Instruction) -> int:
    match = _CYCLES.search(x.rest)
    return int(match[1]) if match else 0


def _whole_bytes(x: Instruction, kind: str) -> int:
    """Bytes of the array that a collective gathers, scatters or reduces, over all its chips.

    Of an all-to-all or a collective-permute, those of one chip.
    """
    size, chips = _shape_bytes(x.shape), _group_size(x.rest)
    if kind == 'reduce-scatter':
        return size * chips
    if x.op == 'all-gather-start':  # a tuple of operands and results
        return size * chips // (chips + 1)
    if x.op == 'collective-permute-start':  # also of two semaphores
        return (size - _shape_bytes('u32[] u32[]')) // 2
    return size


def _group_size(attributes: str) -> int:
    """How many chips take part in a collective, from any of three ways to write it."""
    if groups := re.search(r'replica_groups=\{\{([\d,]*)\}', attributes):
        return len(groups[1].split(','))
    if groups := re.search(r'replica_groups=\[\d+,(\d+)\]', attributes):
        return int(groups[1])
    groups = re.search(r'replica_groups=mesh\[(.*?)\] \{(.*?)\}', attributes)
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", groups[1])) if groups else {}
    return math.prod(int(size) for name, size in sizes.items() if f"'{name}'" in groups[2])


def _shape_bytes(shape: str) -> int:
    total = 0
    for kind, bits, dims in re.findall(r'\b([a-z]+)(\d*)\w*\[([\d,]*)\]', shape):
        count = math.prod(int(x) for x in dims.split(',') if x)
        total += count * int(bits or 8) // 8 if kind != 'token' else 0
    return total


def _readable(x: Instruction) -> str:
    """Such as `dot_general of the gradient, bf16[64,256,768]`: end of JAX's name, and result."""
    name = re.search(r'op_name="([^"]*)"', x.rest)
    name = name[1] if name else x.name
    suffix = ' of the gradient' if 'transpose(' in name else ''
    shapes = re.findall(r'\w+\[[\d,]*\]', x.shape)
    return f'{name.rpartition("/")[2]}{suffix}, {max(shapes, key=_shape_bytes, default="")}'
