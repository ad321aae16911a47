"""What a step takes, compiled from shapes alone, before anything is trained or written.

On the devices of this machine, or, without any of them, on those of a TPU slice.
"""

import collections
import copy
import math
import typing
from collections import abc

import jax
import numpy as np
from jaxtyping import Int

from hbt import config
from hbt.data import ragged
from hbt.evaluation import evaluator, rank_counts, search
from hbt.models import embedder
from hbt.sampling import batches, packing, proportions, repetition, sampler
from hbt.training import telemetry, train_state, train_step
from hbt.utils import compiled, log, settings, sharding, slices, text_table

PLANNED_STEPS = 200  # whose batches are measured, without their tokens
QUERIES, DOCUMENTS, RELEVANT = 13_090, 13_014, 11  # of XQuAD-R, whose search is compiled
TOO_LARGE = 'does not fit'
LARGEST = 5  # parts of the step that are listed
ACROSS = 5  # languages in a line
WIDTHS = {'program': -34, 'GiB': 6, 'compiler': 8, 'kernels': 8, 'links': 7, 'sum': 7}  # in all 80
NOTES = """
Estimates of one chip, times in ms; nothing was executed. GiB: memory (HBM) at
the peak. compiler: cycles of the compiler's own model. kernels: what Pallas
kernels declare, by peak FLOP/s, HBM bandwidth or exponentials. links:
collectives, by arithmetic over the links of the slice. sum: one after another,
as if no collective were hidden. Sorts (the best documents of the search) have
no estimate, and count as nothing."""


class Measures(typing.NamedTuple):
    """Of the first steps: rows of a device, real tokens, and the sum of the squared lengths."""

    rows: Int[np.ndarray, ' s']
    tokens: Int[np.ndarray, ' s']
    squares: Int[np.ndarray, ' s']


def describe_step(
    c: config.Config, s: sampler.Sampler, mesh: jax.sharding.Mesh, compile: bool = True
) -> str:
    """Parameters, batches and, with `compile`, the step of the largest one; `c` is resolved."""
    measures = measure_batches(s)
    lines = list(_describe_batches(c, s, mesh, measures))
    if compile:
        batch = s.batch(int(measures.rows.argmax()))[1]
        rows, width = measures.rows.max(), packing.row_width(c.data)
        with log.activity(f'compiling the step for {rows} rows of {width}'):
            program = compile_step(c, mesh, batch)
        lines += _describe_compiled(program, mesh.size)
    return text_table.format_table((), lines)


def _describe_batches(c, s, mesh, measures: Measures) -> abc.Iterator[tuple[str, str]]:
    rows, tokens, squares = measures
    width = packing.row_width(c.data)
    filled = np.array([packing.computed_rows(c.encoder.chunk, width, int(n)) for n in rows])
    computed = mesh.size * width * filled
    flops = telemetry.model_flops(c, float(tokens.mean()), float(squares.mean()), len(s.plans(0)))
    shapes = sorted(set(rows.tolist()))
    yield 'devices', f'{mesh.size} x {mesh.devices.flat[0].device_kind}'
    yield 'parameters', f'{count_parameters(c):,}'
    yield 'tokens a step', f'{tokens.mean():,.0f} real of {computed.mean():,.0f} computed,'
    yield '', f'{tokens.sum() / computed.sum():.1%} (first {len(rows)} steps)'
    yield 'shapes', f'{len(shapes)}: {", ".join(map(str, shapes))} rows of {width}'
    yield from _epochs(c, s)
    yield 'FLOPs a step', f'{flops:.3g} of the model'


def _describe_compiled(program, devices: int) -> abc.Iterator[tuple[str, str]]:
    memory, cost = program.memory_analysis(), program.cost_analysis()
    state, temporary = memory.argument_size_in_bytes, memory.temp_size_in_bytes
    total = state + temporary + memory.output_size_in_bytes - memory.alias_size_in_bytes
    counts = collections.Counter(compiled.COLLECTIVE.findall(program.as_text()))
    yield 'compiled FLOPs', f'{devices * cost["flops"]:.3g}'
    yield 'bytes a device', f'{total:,} at the largest batch:'
    yield '', f'{state:,} of state and batch, {temporary:,} of the step itself'
    yield 'collectives', ', '.join(f'{n} {name}' for name, n in counts.items()) or 'none'


def count_parameters(c: config.Config) -> int:
    """Parameters of the encoder, from shapes alone."""
    params = jax.eval_shape(lambda: train_state.random_state(c).params)
    return sum(math.prod(x.shape) for x in jax.tree.leaves(params))


def measure_batches(s: sampler.Sampler) -> Measures:
    """The sizes of the batches of the first steps."""
    steps = range(min(PLANNED_STEPS, s.config.steps))
    with log.activity('measuring the first batches'):
        return Measures(*np.array([measure_batch(s, i) for i in steps]).T)


def measure_batch(s: sampler.Sampler, step: int) -> tuple[int, int, int]:
    """Rows of a device, real tokens, and the sum of the squared lengths, of a step."""
    texts = batches.collect_texts(s.config, s.store, s.languages, s.plans(step))
    _, rows, _ = batches.assign_rows(texts.lengths, packing.row_width(s.config.data), s.devices)
    return rows, int(texts.lengths.sum()), int(np.square(texts.lengths).sum())


def compile_step(c: config.Config, mesh: jax.sharding.Mesh, batch: batches.Batch):
    """The step for global batches of this shape, compiled; neither weights nor moments are made."""
    return _lower_step(c, mesh, batch).compile()


def _lower_step(c: config.Config, mesh: jax.sharding.Mesh, batch: batches.Batch):
    step = train_step.make_step(c, mesh)
    if c.mapping == 'pmap':
        return step.function.lower(train_state.state_shapes(c, mesh), step.put(batch))

    def shapes(axis, arrays):
        return jax.tree.map(lambda x: _shape(mesh, x.shape, x.dtype, axis), arrays)

    return step.function.lower(
        train_state.state_shapes(c, mesh), jax.tree.map(shapes, batches.SHARD_AXES, batch)
    )


def _shape(mesh, shape: tuple[int, ...], dtype=np.int32, axis: int = 0) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.sharded(mesh, axis))


def _epochs(c: config.Config, s: sampler.Sampler) -> abc.Iterator[tuple[str, str]]:
    """Pairs that can be drawn, and the steps until that many were drawn."""
    mono = proportions.mean_alpha(c.sampler, c.steps)
    parts = (1, 1) if c.sampler.kind == 'multitask' else (mono, 1 - mono)
    for kind, part in zip(sampler.KINDS, parts, strict=True):
        if kind in s.mixtures:
            pairs = sum(pool.size for pool in s.mixtures[kind].pools)
            steps = pairs / (c.batch_size * part)
            yield f'{kind} epoch', f'{pairs:,} pairs, {steps:,.0f} steps of {c.batch_size} pairs'
    for kind, epochs in repetition.count_epochs(s).items():
        words = [f'{x} {n:,.1f}' for x, n in epochs.items()]
        for start in range(0, len(words), ACROSS):
            more = ',' if start + ACROSS < len(words) else ''
            yield '' if start else f'{kind} epochs', ', '.join(words[start : start + ACROSS]) + more


def plan_slice(
    c: config.Config,
    s: sampler.Sampler,
    mesh: jax.sharding.Mesh,
    tpu: slices.Slice,
    compile: bool = True,
) -> abc.Iterator[str]:
    """Yields, as soon as they are known, the lines that say what a run on a TPU slice takes.

    Args:
      c: resolved on `mesh`, the devices of the slice, none of which need to be here.
      compile: compiles the step, the encoder and the search, which takes minutes for each shape.
    """
    measures = measure_batches(s)
    yield text_table.format_table((), _describe_batches(c, s, mesh, measures))
    if not compile:
        return
    yield '\n' + _format_row(WIDTHS)
    steps, programs = {}, _step_programs(c, s, mesh, measures)
    others = _evaluation_programs(c, mesh)
    for number, (label, lower, rows) in enumerate(programs + others, 1):
        count = f'{number} of {len(programs + others)}'
        with log.activity(f'compiling: {label} ({count})', delay=0.0):
            result = _estimate(lower, tpu, mesh)
        yield _format_result(label, result)
        if rows:
            steps[rows] = result
    yield NOTES
    largest = max(steps)
    if isinstance(steps[largest], str) and TOO_LARGE in steps[largest]:
        yield from _reduce_memory(c, s, mesh, tpu, measures)
    elif not any(isinstance(x, str) for x in steps.values()):
        yield from _summarise(c, s, mesh, measures, steps)


def _step_programs(c, s, mesh, measures: Measures) -> list[tuple[str, abc.Callable, int]]:
    """(label, what lowers it, rows) of the smallest, the most frequent and the largest step."""
    values, counts = np.unique(measures.rows, return_counts=True)
    width, programs = packing.row_width(c.data), []
    for i in sorted({0, int(counts.argmax()), len(values) - 1}):
        batch = s.batch(int(np.argmax(measures.rows == values[i])))[1]
        label = f'step, {values[i]} rows of {width} ({counts[i] / counts.sum():.0%})'
        programs.append((label, lambda batch=batch: _lower_step(c, mesh, batch), int(values[i])))
    return programs


def _evaluation_programs(c, mesh) -> list[tuple[str, abc.Callable, int]]:
    """The same of the encoder at every width, and of the search in a benchmark's documents."""
    size = -(-c.eval.batch_size // mesh.size) * mesh.size
    longest = max(c.data.query_length, c.data.passage_length)
    widths = sorted({ragged.bucket_width(n) for n in range(1, longest + 1)})

    def lower_encoder(width: int):
        params = train_state.state_shapes(c, mesh).params
        tokens, lengths = _shape(mesh, (size, width)), _shape(mesh, (size,))
        return embedder.make_encoder(c, mesh).lower(params, tokens, lengths)

    programs = [(f'encoder, {size} texts of {n}', lambda n=n: lower_encoder(n), 0) for n in widths]
    search_label = f'search, {QUERIES:,} in {DOCUMENTS:,} documents'
    return [*programs, (search_label, lambda: lower_search(c, mesh), 0)]


def lower_search(c: config.Config, mesh: jax.sharding.Mesh, documents: int = DOCUMENTS):
    """The search in so many documents, or in a block of them, lowered from shapes."""
    layout = search.make_layout(documents, mesh)
    dim = c.encoder.embedding_dim
    rows = -(-QUERIES // mesh.size)
    pieces = -(-rows // layout.rows)
    q = -(-rows // pieces) * pieces * mesh.size
    integers, floats = _shape(mesh, (q, RELEVANT)), _shape(mesh, (q, RELEVANT), np.float32)
    best = [_shape(mesh, (q, evaluator.DEPTH), dtype) for dtype in (np.float32, np.int32)]
    state = rank_counts.State(floats, integers, integers, *best)
    excluded = _shape(mesh, (q, 0))
    queries = rank_counts.Queries(_shape(mesh, (q, dim), np.float32), integers, integers, excluded)
    block = _shape(mesh, (layout.block, dim), np.float32)
    step = rank_counts.make_step(layout, collect=layout.resident, count=True)
    return step.lower(state, queries, block, _shape(mesh, (layout.block,)), np.int32(0))


def _estimate(lower: abc.Callable, tpu: slices.Slice, mesh) -> slices.Estimate | str:
    """Compiles a program; a text says why it cannot run."""
    try:
        program = lower().compile()
    except jax.errors.JaxRuntimeError as error:
        return ' '.join(str(error).split())[:200].replace('RESOURCE_EXHAUSTED', TOO_LARGE)
    peak = telemetry.peak_flops(mesh.devices.flat[0].device_kind)
    result, memory = slices.estimate(program, tpu, peak), tpu.generation.memory
    if result.memory > memory:
        return f'{TOO_LARGE}: {result.memory / 2**30:.2f} of {memory / 2**30:.0f} GiB'
    return result


def _format_result(label: str, x: slices.Estimate | str) -> str:
    if isinstance(x, str):
        return text_table.format_table((), [(label.ljust(-WIDTHS['program']), x)])
    seconds = sum(x.compiler.values()), sum(x.kernels.values()), x.links, x.seconds
    cells = f'{x.memory / 2**30:.2f}', *(f'{1e3 * value:.2f}' for value in seconds)
    collectives = text_table.format_table((), [('  collectives', x.collectives or 'none')])
    return f'{_format_row((label, *cells))}\n{collectives}'


def _format_row(cells: abc.Iterable[str]) -> str:
    """Columns of fixed widths, so that a row can be printed before the next one is known."""
    sides = zip(cells, WIDTHS.values(), strict=True)
    padded = [x.rjust(width) if width > 0 else x.ljust(-width) for x, width in sides]
    return text_table.format_table((), [padded])


def _summarise(
    c, s, mesh, measures: Measures, steps: dict[int, slices.Estimate]
) -> abc.Iterator[str]:
    """The mean step, whose time between the compiled shapes is interpolated, and its parts."""
    rows, tasks = sorted(steps), len(s.plans(0))
    times = np.interp(measures.rows, rows, [steps[n].seconds for n in rows])
    seconds, kind = times.mean(), mesh.devices.flat[0].device_kind
    flops = telemetry.model_flops(c, measures.tokens.mean(), measures.squares.mean(), tasks)
    mfu = flops / (seconds * telemetry.peak_flops(kind) * mesh.size)
    lines = [
        ('mean step', f'{1e3 * seconds:.1f} ms (first {len(times)} steps)'),
        ('MFU', f'{mfu:.1%} of the peak in bfloat16'),
        ('pairs a second', f'{c.batch_size * tasks / seconds:,.0f}'),
        (f'{c.steps:,} steps', f'{seconds * c.steps / 3600:,.2f} hours, without evaluations'),
    ]
    yield '\n' + text_table.format_table((), lines)
    values, counts = np.unique(measures.rows, return_counts=True)
    x = steps[int(values[counts.argmax()])]
    parts = collections.Counter(x.compiler | x.kernels | {'collectives': x.links})
    lines = [(f'{1e3 * value:.2f}', name) for name, value in parts.most_common(LARGEST)]
    yield '\n' + text_table.format_table(('ms', 'largest parts of the most frequent step'), lines)


def _reduce_memory(c, s, mesh, tpu, measures: Measures) -> abc.Iterator[str]:
    """Tries the settings that need less memory, until the largest step fits."""
    rows, width = int(measures.rows.max()), packing.row_width(c.data)
    batch = s.batch(int(measures.rows.argmax()))[1]
    yield f'\nThe step of {rows} rows does not fit. With less memory:\n{_format_row(WIDTHS)}'
    for flags, changed in smaller_configs(c, width * max(1, rows // 4)):
        with log.activity(f'compiling: the step with {flags}', delay=0.0):
            result = _estimate(lambda x=changed: _lower_step(x, mesh, batch), tpu, mesh)
        yield _format_result(flags.split()[-1].removeprefix('--config.'), result)
        if isinstance(result, slices.Estimate):
            yield f'\nIt fits with {flags}'
            return
    yield '\nNone of these makes it fit: take fewer pairs (batch_size) or more chips.'


def smaller_configs(c: config.Config, tokens: int) -> abc.Iterator[tuple[str, config.Config]]:
    """Yields (flags, config) with ever more settings that need less memory.

    `tokens`: of a chunk, if the config has no chunks.
    """
    remat = {'none': ('cheap', 'layer'), 'cheap': ('layer',), 'layer': ()}[c.encoder.remat]
    changes = [('encoder.dtype', 'bfloat16'), ('encoder.chunk', c.encoder.chunk or tokens)]
    changes += [*(('encoder.remat', x) for x in remat), ('shard_params', True)]
    changed, flags = copy.deepcopy(c), {}
    for name, value in changes:
        if settings.flatten(c)[name] != value:
            part, _, field = name.rpartition('.')
            setattr(changed.encoder if part else changed, field, value)
            flags[name] = f'--config.{name}={str(value).lower()}'
            yield ' '.join(flags.values()), copy.deepcopy(changed)
