"""What a step takes, compiled from shapes alone, before anything is trained or written."""

import collections
import math
import re
from collections import abc

import jax
import numpy as np

from hbt import config
from hbt.sampling import batches, packing, proportions, sampler
from hbt.training import telemetry, train_state, train_step
from hbt.utils import sharding, text_table

PLANNED_STEPS = 200  # whose batches are measured, without their tokens
COLLECTIVE = re.compile(
    r' (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\('
)


def describe_step(
    c: config.Config, s: sampler.Sampler, mesh: jax.sharding.Mesh, compile: bool = True
) -> str:
    """Parameters, batches and, with `compile`, the step of the largest one; `c` is resolved."""
    steps = range(min(PLANNED_STEPS, c.steps))
    rows, tokens, squares = np.array([measure_batch(s, i) for i in steps]).T
    width = packing.row_width(c.data)
    filled = np.array([packing.computed_rows(c.encoder.chunk, width, int(n)) for n in rows])
    computed = mesh.size * width * filled
    flops = telemetry.model_flops(c, float(tokens.mean()), float(squares.mean()), len(s.plans(0)))
    shapes = sorted(set(rows.tolist()))
    lines = [
        ('devices', f'{mesh.size} x {mesh.devices.flat[0].device_kind}'),
        ('parameters', f'{count_parameters(c):,}'),
        ('tokens a step', f'{tokens.mean():,.0f} real of {computed.mean():,.0f} computed,'),
        ('', f'{tokens.sum() / computed.sum():.1%} (first {len(steps)} steps)'),
        ('shapes', f'{len(shapes)}: {", ".join(map(str, shapes))} rows of {width}'),
        *_epochs(c, s),
        ('FLOPs a step', f'{flops:.3g} of the model'),
    ]
    if compile:
        batch = s.batch(int(rows.argmax()), sharding.local_device_range(mesh))[1]
        lines += _describe_compiled(compile_step(c, mesh, batch), mesh.size)
    return text_table.format_table((), lines)


def _describe_compiled(compiled, devices: int) -> abc.Iterator[tuple[str, str]]:
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    state, temporary = memory.argument_size_in_bytes, memory.temp_size_in_bytes
    total = state + temporary + memory.output_size_in_bytes - memory.alias_size_in_bytes
    counts = collections.Counter(COLLECTIVE.findall(compiled.as_text()))
    yield 'compiled FLOPs', f'{devices * cost["flops"]:.3g}'
    yield 'bytes a device', f'{total:,} at the largest batch:'
    yield '', f'{state:,} of state and batch, {temporary:,} of the step itself'
    yield 'collectives', ', '.join(f'{n} {name}' for name, n in counts.items()) or 'none'


def count_parameters(c: config.Config) -> int:
    """Parameters of the encoder, from shapes alone."""
    params = jax.eval_shape(lambda: train_state.random_state(c).params)
    return sum(math.prod(x.shape) for x in jax.tree.leaves(params))


def measure_batch(s: sampler.Sampler, step: int) -> tuple[int, int, int]:
    """Rows of a device, real tokens, and the sum of the squared lengths, of a step."""
    texts = batches.collect_texts(s.config, s.store, s.languages, s.plans(step))
    _, rows, _ = batches.assign_rows(texts.lengths, packing.row_width(s.config.data), s.devices)
    return rows, int(texts.lengths.sum()), int(np.square(texts.lengths).sum())


def compile_step(c: config.Config, mesh: jax.sharding.Mesh, batch: batches.Batch):
    """The step for batches of this shape, compiled; neither weights nor moments are made."""
    step = train_step.make_step(c, mesh)
    return step.function.lower(train_state.state_shapes(c, mesh), step.put(batch)).compile()


def _epochs(c: config.Config, s: sampler.Sampler) -> abc.Iterator[tuple[str, str]]:
    """Pairs that can be drawn, and the steps until that many were drawn."""
    mono = proportions.mean_alpha(c.sampler, c.steps)
    parts = (1, 1) if c.sampler.kind == 'multitask' else (mono, 1 - mono)
    for kind, part in zip(sampler.KINDS, parts, strict=True):
        if kind in s.mixtures:
            pairs = sum(pool.size for pool in s.mixtures[kind].pools)
            steps = pairs / (c.batch_size * part)
            yield f'{kind} epoch', f'{pairs:,} pairs, {steps:,.0f} steps of {c.batch_size} pairs'
