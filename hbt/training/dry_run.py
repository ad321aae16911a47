"""What a run will take, before anything is trained or written.

Hides the compilation of a step ahead of time, from shapes alone. Called by `main`.
"""

import collections
import math
import re
from collections import abc

import jax
import numpy as np

from hbt import config
from hbt.data import store
from hbt.sampling import batches, packing, proportions, sampler
from hbt.training import run_dir, telemetry, train_state, train_step
from hbt.utils import log, sharding, text_table

LOOKED_AT = 200  # steps that are planned, without their tokens
COLLECTIVE = re.compile(
    r' (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\('
)


def rehearse(c: config.Config) -> None:
    """Prints what the run of `c` would take; neither trains nor writes anything.

    Raises ValueError for settings, data or weights that do not fit.
    """
    mesh = sharding.make_mesh()
    sharding.check_divides('batch_size', c.batch_size, mesh)
    data = store.open_store(config.store_path(c))
    c = run_dir.resolve(c, data, mesh)
    batches = sampler.Sampler(c, data, mesh.size)
    log.info(proportions.format_proportions(proportions.count_proportions(batches, c.steps, 0)))
    log.info(report(c, batches, mesh))


def report(c: config.Config, s: sampler.Sampler, mesh: jax.sharding.Mesh) -> str:
    """Lines of text on the parameters, the batches, and the compiled step of the largest batch."""
    steps = range(min(LOOKED_AT, c.steps))
    rows, tokens, squares = (np.array(x) for x in zip(*(look(s, i) for i in steps), strict=True))
    width = packing.row_width(batches.longest_text(c.data))
    filled = np.array([packing.computed_rows(c.encoder.chunk, width, int(n)) for n in rows])
    computed = mesh.size * width * filled
    batch = s.batch(int(rows.argmax()), sharding.local_device_range(mesh))[1]
    compiled = compile_step(c, mesh, batch)
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    state, temporary = memory.argument_size_in_bytes, memory.temp_size_in_bytes
    total = state + temporary + memory.output_size_in_bytes - memory.alias_size_in_bytes
    found = collections.Counter(COLLECTIVE.findall(compiled.as_text()))
    tasks = len(s.plans(0))
    flops = telemetry.flops(c, float(tokens.mean()), float(squares.mean()), tasks)
    table = [
        ('devices', f'{mesh.size} x {mesh.devices.flat[0].device_kind}'),
        ('parameters', f'{parameters(c):,}'),
        ('bytes a device', f'{total:,} at the largest batch:'),
        ('', f'{state:,} of state and batch, {temporary:,} of the step itself'),
        ('tokens a step', f'{tokens.mean():,.0f} real of {computed.mean():,.0f} computed,'),
        ('', f'{tokens.sum() / computed.sum():.1%} (first {len(steps)} steps)'),
        ('shapes', f'{len(set(rows))}: {", ".join(map(str, sorted(set(rows))))} rows of {width}'),
        *epochs(c, s),
        ('collectives', ', '.join(f'{n} {name}' for name, n in found.items()) or 'none'),
        ('FLOPs a step', f'{flops:.3g} of the model; {mesh.size * cost["flops"]:.3g} compiled'),
    ]
    return text_table.format_table((), table)


def parameters(c: config.Config) -> int:
    params = jax.eval_shape(lambda: train_state.random_state(c).params)
    return sum(math.prod(x.shape) for x in jax.tree.leaves(params))


def look(s: sampler.Sampler, step: int) -> tuple[int, int, int]:
    """Rows of a device, real tokens, and the sum of the squared lengths, of a step."""
    texts = batches.collect_texts(s.config, s.store, s.languages, s.plans(step))
    width = packing.row_width(batches.longest_text(s.config.data))
    _, rows, _ = batches.assign_rows(texts.lengths, width, s.devices)
    return rows, int(texts.lengths.sum()), int(np.square(texts.lengths).sum())


def compile_step(c: config.Config, mesh: jax.sharding.Mesh, batch: batches.Batch):
    """The step for batches of this shape, compiled; neither weights nor moments are made."""
    step = train_step.make_step(c, mesh)
    return step.function.lower(train_state.state_shapes(c, mesh), step.place(batch)).compile()


def epochs(c: config.Config, s: sampler.Sampler) -> abc.Iterator[tuple[str, str]]:
    """How many pairs of texts there are, and the steps until as many were drawn."""
    mono = proportions.mean_alpha(c.sampler, c.steps)
    parts = (1, 1) if c.sampler.kind == 'multitask' else (mono, 1 - mono)
    for kind, part in zip(sampler.KINDS, parts, strict=True):
        if kind in s.mixtures:
            pairs = sum(pool.size for pool in s.mixtures[kind].pools)
            steps = pairs / (c.batch_size * part)
            yield f'{kind} epoch', f'{pairs:,} pairs, {steps:,.0f} steps of {c.batch_size} rows'
