"""Command line: trains one config, evaluating and checkpointing on the way.

The same command resumes a run that was stopped, and ends as if it had never been.
"""

import collections
import concurrent.futures
import contextlib
import pathlib
import typing
from collections import abc

import jax
import tokenizers

from hbt import config
from hbt.data import store
from hbt.evaluation import evaluator, results
from hbt.sampling import proportions, sampler
from hbt.training import checkpoint, run_dir, telemetry, train_state, train_step
from hbt.utils import distributed, files, log, sharding

AHEAD = 2  # batches assembled while a step runs
NOTED = 100  # steps that are not finite whose rows are written down


class Run(typing.NamedTuple):
    """What the parts of a run share."""

    config: config.Config
    workdir: pathlib.Path
    mesh: jax.sharding.Mesh
    batches: sampler.Sampler
    evaluation: abc.Callable
    metrics: log.MetricsWriter
    checkpoints: checkpoint.Checkpoints


def train_config(c: config.Config, workdir: pathlib.Path) -> None:
    """Trains `c` in `workdir`, from the newest checkpoint there if there is one.

    Raises ValueError for settings, data or weights that do not fit, before anything is trained.
    """
    mesh = sharding.make_mesh()
    data = store.open_store(config.store_path(c))
    c = run_dir.resolve_config(c, data, mesh)
    if c.data.verify:
        store.verify_store(data)
    batches = sampler.Sampler(c, data, mesh.size)
    tokenizer = tokenizers.Tokenizer.from_file(str(data.path / 'tokenizer.json'))
    evaluation = evaluator.make_evaluation(c, tokenizer, mesh, evaluator.load_benchmarks(c.eval))
    held = run_dir.claim(c, workdir, data)
    distributed.barrier('workdir')
    checkpoints = checkpoint.Checkpoints(workdir)
    restored = checkpoints.restore(train_state.state_shapes(c, mesh))
    state, sums = restored or (train_state.init_state(c, mesh), {})
    metrics = log.MetricsWriter(workdir, -1 if restored is None else int(state.step))
    run = Run(c, workdir, mesh, batches, evaluation, metrics, checkpoints)
    if restored is not None:
        done = int(state.step)
        log.info(
            f'{workdir}: {"complete at" if done >= c.steps else "continuing after"} step {done}'
        )
    elif c.eval.at_start:
        measure(run, state)
    show_shares(run, 0)
    with (
        distributed.Requests() as asked,
        files.name_in_errors(workdir),
        contextlib.ExitStack() as stack,
    ):
        for opened in (held, metrics, checkpoints):  # closed in the opposite order
            stack.callback(opened.close)
        done = loop(run, state, sums, asked)
        show_shares(run, done)
    if done < c.steps:
        log.info(f'{workdir}: {asked.signal.name}: saved at step {done}; the same command goes on')
        raise SystemExit(asked.status)


def loop(run: Run, state: train_state.State, sums: dict, asked: distributed.Requests) -> int:
    """Trains to the last step, which it returns, or to that at which it is asked to stop.

    What is due is logged, evaluated, then checkpointed. `sums` are those of the steps since the
    last line of the log.
    """
    c, start = run.config, int(state.step)
    step = train_step.make_step(c, run.mesh)
    unchecked, seen = [], telemetry.Spikes(log.read_metrics(run.workdir / 'metrics.jsonl'))
    meter = telemetry.Meter(c, run.batches.languages, run.mesh.size, sums)
    bar = log.progress(total=c.steps, initial=start, desc=c.name, unit=' steps')
    with meter, bar as progress:
        for done, (plans, batch) in enumerate(meter.timed(prefetch(run, start)), start + 1):
            state, values = step(state, batch)
            unchecked.append((done, values['skipped']))
            meter.add(plans, batch, values)
            progress.update()
            last = done == c.steps
            if last or done % min(c.log_every, c.ckpt_every) == 0:
                check_finite(run, unchecked)
                unchecked = []
            if last or done % c.log_every == 0:
                line = meter.line()
                told = seen.seen(line['loss']) if 'loss' in line else ''
                run.metrics.write(done, line | {'spike': float(bool(told))})
                if told:
                    log.info(
                        f'{run.workdir}: step {done}: {told}; --replay={done} computes it again'
                    )
                progress.set_postfix(telemetry.brief(line))
            with meter.paused():
                if last or (c.eval.every and done % c.eval.every == 0):
                    measure(run, state)
            stop = last or asked.due(done)
            if stop or done % c.ckpt_every == 0:
                sums = meter.saved()
                with meter.paused():
                    run.checkpoints.save(done, state, sums)
            if stop:
                return done
    return start


def check_finite(run: Run, steps: list[tuple[int, jax.Array]]) -> None:
    """Writes down the rows of steps that were skipped; ValueError where the run is to stop.

    Those of the first NOTED such steps: a run that goes on for ever must not fill the disk.
    """
    numbers, skipped = zip(*steps, strict=True)
    for done, bad in zip(numbers, jax.device_get(skipped), strict=True):
        if not bad:
            continue
        told = (
            f'{run.workdir}: step {done}: the loss or its gradient is not finite, and the step was '
            'skipped'
        )
        if distributed.is_main_process() and len(list(run.workdir.glob('nonfinite-*.txt'))) < NOTED:
            lines = sampler.describe_batch(run.batches, done - 1)
            (run.workdir / f'nonfinite-{done}.txt').write_text('\n'.join(lines) + '\n')
            told += f'; its rows are in nonfinite-{done}.txt'
        if run.config.nonfinite == 'stop':
            raise ValueError(
                f'{told}. --replay={done} computes it again; --config.nonfinite=skip goes on'
            )
        log.info(told)


def show_shares(run: Run, done: int) -> None:
    """Prints and writes what the run is to draw, and after `done` steps what it has drawn."""
    found = proportions.count_proportions(run.batches, run.config.steps, done)
    log.info(proportions.format_proportions(found))
    if distributed.is_main_process():
        proportions.write_proportions(found, run.workdir)


def measure(run: Run, state: train_state.State) -> None:
    """Runs the evaluations of a step; keeps the parameters if they are the best so far."""
    eval_, done = run.config.eval, int(state.step)
    evaluated = run.evaluation(state.params)
    for result in evaluated.values():
        if distributed.is_main_process():
            results.save_result(result, run.workdir / 'results' / str(done), done)
        log.info(evaluator.format_result(result.numbers, done))
    if evaluated:
        scores = evaluator.flatten_scores(evaluated)
        run.metrics.write(done, scores)
        name = f'{eval_.benchmarks[0]}/{eval_.best}'
        if name not in scores:
            raise ValueError(f'eval.best: expected one of {", ".join(scores)}, got {name}')
        run.checkpoints.save_best(done, state.params, scores[name])


def prefetch(run: Run, start: int):
    """Yields this host's batches, assembled by a thread while the device works."""
    stop, mine = run.config.steps, sharding.local_device_range(run.mesh)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = collections.deque()
        for step in range(start, stop + AHEAD):
            if step < stop:
                waiting.append(pool.submit(run.batches.batch, step, mine))
            if step >= start + AHEAD:
                yield waiting.popleft().result()
