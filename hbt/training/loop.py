"""The training loop: steps, log, evaluations, checkpoints."""

import collections
import concurrent.futures
import contextlib
import functools
import os
import pathlib
import typing
from collections import abc

import jax
import numpy as np

from hbt import config
from hbt.data import store, tokenizer_files
from hbt.evaluation import evaluator, results
from hbt.models import encoder
from hbt.sampling import batches, packing, proportions, sampler, validation
from hbt.training import checkpoint, planning, run_dir, telemetry, train_state, train_step
from hbt.utils import distributed, files, log, sharding

PREFETCH = 2  # batches built while a step runs
MAX_NONFINITE_FILES = 100  # a run that skips for ever must not fill the disk


class Run(typing.NamedTuple):
    """What the parts of a training run share."""

    config: config.Config
    workdir: pathlib.Path
    mesh: jax.sharding.Mesh
    sampler: sampler.Sampler
    evaluation: abc.Callable  # of parameters
    validate: abc.Callable | None  # of a state
    metrics: log.MetricsWriter
    checkpoints: checkpoint.Checkpoints
    best: checkpoint.Best
    stopping: telemetry.EarlyStopping


def keep_compiled(folder: str | None = None) -> None:
    """Keeps what is compiled in a folder, where a later run finds it; before anything is compiled.

    Without `folder`, in the user's cache, unless JAX_COMPILATION_CACHE_DIR names another one, or
    none, and only if that can be written. In `folder`, even what took no time to compile.
    """
    if folder is not None:
        jax.config.update('jax_compilation_cache_dir', folder)
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
        jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
    elif 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
        cache = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
        path = pathlib.Path(cache, 'hbt', 'compiled')
        with contextlib.suppress(OSError):
            path.mkdir(parents=True, exist_ok=True)
        if os.access(path, os.W_OK):
            jax.config.update('jax_compilation_cache_dir', str(path))


def train_config(c: config.Config, workdir: pathlib.Path) -> None:
    """Trains `c` in `workdir`; the same call resumes, and ends as if it had never been stopped.

    Raises ValueError, before anything is trained, if settings, data or weights do not fit, and
    SystemExit where a signal stopped the run, with a status that tells a launcher what to do.
    """
    mesh = sharding.make_mesh()
    s = store.open_store(config.store_path(c))
    c = run_dir.resolve_config(c, s, mesh)
    if c.data.verify:
        with log.activity(f'{s.path}: comparing the files with their checksums'):
            store.verify_store(s)
    batch_sampler = sampler.Sampler(c, s, mesh.size)
    tokenizer = tokenizer_files.load_tokenizer(s.path / 'tokenizer.json')
    suite = evaluator.load_benchmarks(c.eval)
    evaluator.check_best(c.eval, suite)
    evaluation = evaluator.make_evaluation(c, tokenizer, mesh, suite)
    validate = _make_validation(c, batch_sampler.languages, workdir, mesh)
    with contextlib.ExitStack() as stack:  # closed in the opposite order
        stack.enter_context(run_dir.claim(c, workdir, s))
        distributed.barrier('workdir')
        checkpoints, best = checkpoint.Checkpoints(workdir), checkpoint.Best(workdir)
        with log.activity(f'{workdir}: preparing the parameters'):
            restored = checkpoints.restore(train_state.state_shapes(c, mesh))
            state, sums = restored or (train_state.init_state(c, mesh), {})
        start = int(state.step)
        logged = start if restored else -1
        lines = [x for x in log.read_metrics(workdir / 'metrics.jsonl') if x['step'] <= logged]
        best_metric = checkpoint.best_metric(c.eval)
        stopping = telemetry.EarlyStopping(best_metric, c.eval.patience, lines)
        metrics = telemetry.open_metrics(c, workdir, logged)
        outputs = metrics, checkpoints, best, stopping
        run = Run(c, workdir, mesh, batch_sampler, evaluation, validate, *outputs)
        if restored:
            encoder.check_finite(state.params, f'{workdir}: step {start}')
            if start < c.steps and not stopping.reason():
                log.info(f'{workdir}: continuing after step {start}')
        elif c.eval.at_start:
            _evaluate(run, state)
        for line in run_dir.list_surprises(batch_sampler, sharding.platform(mesh)):
            log.info(line)
        _report_proportions(run, 0)
        requests = stack.enter_context(distributed.StopRequests())
        stack.enter_context(files.name_in_errors(workdir))
        stack.callback(metrics.close)
        stack.callback(checkpoints.close)
        done = start if stopping.reason() else _train_steps(run, state, sums, requests)
        _report_proportions(run, done)
    if done < c.steps and (reason := stopping.reason()):
        best_steps = ', '.join(x.name for x in best.folder.iterdir() if x.name.isdigit()) or 'none'
        log.info(
            f'{workdir}: stopped at step {done}: {reason}; best/ has the parameters of {best_steps}'
        )
    elif done < c.steps:
        name = requests.signal.name
        log.info(f'{workdir}: {name}: saved at step {done}; run the same command again to resume')
        raise SystemExit(requests.status)
    else:
        log.info(f'{workdir}: complete at step {done}')


def _train_steps(run: Run, state, sums: dict, requests: distributed.StopRequests) -> int:
    """Trains to the last step, or to a stop, and returns it; `sums`: since the last logged line."""
    c, start = run.config, int(state.step)
    step = _announce_compiling(train_step.make_step(c, run.mesh), run)
    spikes = telemetry.SpikeDetector(log.read_metrics(run.workdir / 'metrics.jsonl'))
    meter = telemetry.Meter(c, run.sampler.languages, run.mesh.size, sums)
    bar = log.progress(total=c.steps, initial=start, desc=c.name, unit=' steps')
    unchecked = []
    with meter, bar:
        for done, (plans, batch) in enumerate(meter.timed(_prefetch(run, start)), start + 1):
            state, metrics = step(state, batch)
            unchecked.append((done, metrics['skipped']))
            meter.add_step(plans, batch, metrics)
            bar.update()
            is_last = done == c.steps
            if is_last or done % min(c.log_every, c.ckpt_every) == 0:
                _check_finite(run, unchecked)
                unchecked = []
            if is_last or done % c.log_every == 0:
                bar.set_postfix(_log_line(run, done, meter.pop_line(), spikes))
            if is_last or (c.eval.every and done % c.eval.every == 0):
                with meter.paused():
                    _evaluate(run, state)
            stop = is_last or bool(run.stopping.reason()) or requests.due(done)
            if stop or done % c.ckpt_every == 0:
                sums = meter.state()
                with meter.paused():
                    run.checkpoints.save(done, state, sums)
            if stop:
                return done
    return start


def _announce_compiling(step: abc.Callable, run: Run) -> abc.Callable:
    """The step, which says that it is compiled for a number of rows that is new."""
    width, compiled = packing.row_width(run.config.data), set()
    devices = len(sharding.local_device_range(run.mesh))
    # Not before a first step: a run that is complete has none.
    shapes = functools.cache(lambda: planning.measure_batches(run.sampler).rows.tolist())

    def announced(state, batch: batches.Batch):
        rows = len(batch.packed.tokens) // devices
        with log.compiling(f'the step for {rows} rows of {width}', rows, compiled, shapes()):
            return step(state, batch)

    return announced


def _log_line(run: Run, done: int, line: dict, spikes: telemetry.SpikeDetector) -> dict[str, str]:
    """Writes a line of metrics, and names a spike of the loss; returns the line for the bar."""
    message = spikes.update(line['loss']) if 'loss' in line else ''
    run.metrics.write(done, line | {'spike': float(bool(message))})
    if message:
        log.info(f'{run.workdir}: step {done}: {message}; --replay={done} computes it again')
    return telemetry.format_postfix(line)


def _check_finite(run: Run, steps: list[tuple[int, jax.Array]]) -> None:
    """Writes the texts of steps that were skipped; ValueError where the run is to stop."""
    for done in (done for done, skipped in jax.device_get(steps) if skipped):
        message = f'{run.workdir}: step {done}: the loss or its gradient is not finite; skipped'
        count = len(list(run.workdir.glob('nonfinite-*.txt')))
        if distributed.is_main_process() and count < MAX_NONFINITE_FILES:
            lines = sampler.describe_batch(run.sampler, done - 1)
            (run.workdir / f'nonfinite-{done}.txt').write_text('\n'.join(lines) + '\n')
            message += f'; its texts are in nonfinite-{done}.txt'
        if run.config.nonfinite == 'stop':
            raise ValueError(
                f'{message}. --replay={done} computes it again; --config.nonfinite=skip continues'
            )
        log.info(message)


def _report_proportions(run: Run, done: int) -> None:
    """Prints and writes what the run is to draw, and what its first `done` steps have drawn."""
    with log.activity(f'counting the pairs of {done:,} steps'):
        pools = proportions.count_proportions(run.sampler, run.config.steps, done)
        if distributed.is_main_process():
            proportions.write_proportions(pools, run.workdir)
    log.info(proportions.format_proportions(pools))


def _evaluate(run: Run, state: train_state.State) -> None:
    """Runs the evaluations of a step; saves the parameters if they are the best so far."""
    done = int(state.step)
    evaluated = run.evaluation(state.params)
    for result in evaluated.values():
        if distributed.is_main_process():
            results.save_result(result, run.workdir / 'results' / str(done), done)
            telemetry.draw_result(run.metrics, result, run.config.eval, done)
        log.info(evaluator.format_result(result.numbers, done))
    scores = evaluator.flatten_scores(evaluated)
    if run.validate:
        scores[checkpoint.VALIDATION_LOSS] = run.validate(state)
        log.info(f'validation at step {done}: loss {scores[checkpoint.VALIDATION_LOSS]:.6g}')
    if scores:
        run.metrics.write(done, scores)
        run.best.save(done, state.params, scores, run.stopping.metric)
        run.stopping.update(done, scores)


def _make_validation(
    c: config.Config, languages: abc.Sequence[str], workdir: pathlib.Path, mesh: jax.sharding.Mesh
) -> abc.Callable | None:
    """Returns `validate(state)`, the mean loss of the pairs of `eval.validation`, if there are."""
    if not c.eval.validation:
        return None
    held_out = store.open_store(run_dir.validation_path(workdir))
    if c.data.verify:
        store.verify_store(held_out)
    plans = validation.plan_batches(c, held_out, languages)
    losses, devices = train_step.make_validation(c, mesh), sharding.local_device_range(mesh)

    def validate(state: train_state.State) -> float:
        trainable = train_state.trainable(state.params, state.log_scale)
        total = 0.0
        for plan in log.progress(iterable=plans, desc='validation', unit=' batches', leave=False):
            batch = batches.make_batch(c, held_out, languages, [plan], mesh.size, devices)
            of_pairs = jax.device_get(losses(trainable, batch))[0, : len(plan.groups)]
            total += of_pairs.sum(dtype=np.float64)
        return float(total / sum(len(plan.groups) for plan in plans))

    return validate


def _prefetch(run: Run, start: int) -> abc.Iterator[tuple[list[batches.Plan], batches.Batch]]:
    """This host's batches, built by a thread while the devices work."""
    stop, devices = run.config.steps, sharding.local_device_range(run.mesh)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = collections.deque()
        for step in range(start, stop + PREFETCH):
            if step < stop:
                waiting.append(pool.submit(run.sampler.batch, step, devices))
            if step >= start + PREFETCH:
                yield waiting.popleft().result()
