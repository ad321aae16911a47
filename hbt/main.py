"""Command line: trains one config, evaluating and checkpointing on the way.

The same command resumes a run that was stopped, and ends as if it had never been.
"""

import collections
import concurrent.futures
import contextlib
import os
import pathlib
import shutil
import sys
import typing
from collections import abc

import jax
import tokenizers
from absl import flags
from ml_collections import config_flags

from hbt import (
    checkpoint,
    config,
    dry_run,
    evaluate,
    files,
    log,
    prepare,
    requests,
    sampler,
    sharding,
    shares,
    store,
    telemetry,
    train,
)

AHEAD = 2  # batches assembled while a step runs


class Run(typing.NamedTuple):
    """What the parts of a run share."""

    config: config.Config
    workdir: pathlib.Path
    mesh: jax.sharding.Mesh
    batches: sampler.Sampler
    evaluation: abc.Callable
    metrics: log.Metrics
    checkpoints: checkpoint.Checkpoints


def train_config(c: config.Config, workdir: pathlib.Path) -> None:
    """Trains `c` in `workdir`, from the newest checkpoint there if there is one.

    Raises ValueError for settings, data or weights that do not fit, before anything is trained.
    """
    mesh = sharding.make_mesh()
    sharding.check_divides('batch_size', c.batch_size, mesh)
    data = open_store(c)
    if c.data.verify:
        store.verify(data)
    c = train.resolve(c, data, mesh)
    batches = sampler.Sampler(c, data, mesh.size)
    tokenizer = tokenizers.Tokenizer.from_file(str(data.path / 'tokenizer.json'))
    evaluation = evaluate.make(c, tokenizer, mesh, evaluate.read(c.eval))
    held = claim(c, workdir, data)
    sharding.meet('workdir')
    checkpoints = checkpoint.Checkpoints(workdir)
    restored = checkpoints.restore(train.shapes(c, mesh))
    state, sums = restored or (train.init(c, mesh), {})
    metrics = log.Metrics(workdir, -1 if restored is None else int(state.step))
    run = Run(c, workdir, mesh, batches, evaluation, metrics, checkpoints)
    if restored is not None:
        done = int(state.step)
        log.say(
            f'{workdir}: {"complete at" if done >= c.steps else "continuing after"} step {done}'
        )
    elif c.eval.at_start:
        measure(run, state)
    show_shares(run, 0)
    with requests.Requests() as asked, contextlib.ExitStack() as stack:
        for opened in (held, metrics, checkpoints):  # closed in the opposite order
            stack.callback(opened.close)
        done = loop(run, state, sums, asked)
        show_shares(run, done)
    if done < c.steps:
        log.say(f'{workdir}: {asked.signal.name}: saved at step {done}; the same command goes on')
        raise SystemExit(asked.status)


def rehearse(c: config.Config) -> None:
    """Prints what the run of `c` would take; neither trains nor writes anything.

    Raises ValueError for settings, data or weights that do not fit.
    """
    mesh = sharding.make_mesh()
    sharding.check_divides('batch_size', c.batch_size, mesh)
    data = store.open(root_of(c))
    c = train.resolve(c, data, mesh)
    batches = sampler.Sampler(c, data, mesh.size)
    log.say(shares.table(shares.of(batches, c.steps, 0)))
    log.say(dry_run.report(c, batches, mesh))


def loop(run: Run, state: train.State, sums: dict, asked: requests.Requests) -> int:
    """Trains to the last step, which it returns, or to that at which it is asked to stop.

    What is due is logged, evaluated, then checkpointed. `sums` are those of the steps since the
    last line of the log.
    """
    c, start = run.config, int(state.step)
    step = train.make_step(c, run.mesh)
    unchecked = []
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
                run.metrics.write(done, line)
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
    """Writes down the rows of steps that were skipped; ValueError where the run is to stop."""
    numbers, skipped = zip(*steps, strict=True)
    for done, bad in zip(numbers, jax.device_get(skipped), strict=True):
        if not bad:
            continue
        if log.first():
            lines = sampler.show(run.batches, done - 1)
            (run.workdir / f'nonfinite-{done}.txt').write_text('\n'.join(lines) + '\n')
        told = (
            f'{run.workdir}: step {done}: the loss or its gradient is not finite, and the step was '
            f'skipped; its rows are in nonfinite-{done}.txt'
        )
        if run.config.nonfinite == 'stop':
            raise ValueError(
                f'{told}. --replay={done} computes it again; --config.nonfinite=skip goes on'
            )
        log.say(told)


def replay(c: config.Config, workdir: pathlib.Path, number: int) -> None:
    """Computes a step of a run again, from the newest checkpoint before it, and prints it.

    Nothing is written. Raises ValueError if no checkpoint is old enough.
    """
    mesh = sharding.make_mesh()
    data = store.open(root_of(c))
    c = train.resolve(c, data, mesh)
    batches = sampler.Sampler(c, data, mesh.size)
    with contextlib.closing(checkpoint.Checkpoints(workdir)) as checkpoints:
        restored = checkpoints.restore(train.shapes(c, mesh), number)
    if restored is None and number > 1:
        log.say(f'{workdir}: no checkpoint before step {number}: from the beginning')
    state, _ = restored or (train.init(c, mesh), {})
    step = train.make_step(c, mesh)
    for at in range(int(state.step), number):
        state, values = step(state, batches.batch(at, sharding.local_devices(mesh))[1])
    for line in sampler.show(batches, number - 1):
        log.say(line)
    rows = values.pop('rows')
    for name, value in jax.device_get(values).items():
        log.say(f'{name} {float(value):.9g}')
    for i, loss in enumerate(jax.device_get(rows.loss).reshape(-1)):
        log.say(f'row {i} loss {loss:.9g}')


def show_shares(run: Run, done: int) -> None:
    """Prints and writes what the run is to draw, and after `done` steps what it has drawn."""
    found = shares.of(run.batches, run.config.steps, done)
    log.say(shares.table(found))
    if log.first():
        shares.write(found, run.workdir)


def measure(run: Run, state: train.State) -> None:
    """Runs the evaluations of a step; keeps the parameters if they are the best so far."""
    eval_, done = run.config.eval, int(state.step)
    results = run.evaluation(state.params)
    for result in results.values():
        if log.first():
            evaluate.save(result, run.workdir / 'results' / str(done), done)
        log.say(evaluate.table(result.numbers, done))
    if results:
        scores = evaluate.flat(results)
        run.metrics.write(done, scores)
        name = f'{eval_.benchmarks[0]}/{eval_.best}'
        if name not in scores:
            raise ValueError(f'eval.best: expected one of {", ".join(scores)}, got {name}')
        run.checkpoints.save_best(done, state.params, scores[name])


def prefetch(run: Run, start: int):
    """Yields this host's batches, assembled by a thread while the device works."""
    stop, mine = run.config.steps, sharding.local_devices(run.mesh)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = collections.deque()
        for step in range(start, stop + AHEAD):
            if step < stop:
                waiting.append(pool.submit(run.batches.batch, step, mine))
            if step >= start + AHEAD:
                yield waiting.popleft().result()


def root_of(c: config.Config) -> pathlib.Path:
    return pathlib.Path(c.data.root or f'stores/{c.name}')


def open_store(c: config.Config) -> store.Store:
    """The store of the config, made from its sources first if it is not there yet."""
    root = root_of(c)
    if not log.first():  # the first process makes the store, the others wait for it
        sharding.meet('store')
        return store.open(root)
    made = make_store(c, root)
    sharding.meet('store')
    return made


def make_store(c: config.Config, root: pathlib.Path) -> store.Store:
    if root.exists() or not c.data.sources:
        return store.open(root)
    log.say(f'{root}: no store yet, preparing it from {", ".join(c.data.sources)}')
    try:
        made = prepare.prepare(c.data, root, c.data.sources, processes=0)
    except ValueError as error:
        raise ValueError(
            f'data.sources: {error}; make the store from files of your own with: '
            f'python -m hbt.prepare --input=FILE --tokenizer={c.data.tokenizer} --out={root}'
        ) from None
    log.say(prepare.table(made.manifest))
    return made


def claim(c: config.Config, workdir: pathlib.Path, data: store.Store) -> contextlib.ExitStack:
    """Makes the run directory, with the data's tokenizer and counts; an older one must fit `c`.

    The directory is this run's until what is returned is closed.
    """
    path = workdir / 'config.json'
    if path.exists():
        changed = config.changes(config.load(path), c)
        for name, (old, new) in changed.items():
            if not name.startswith(FREE):
                raise ValueError(
                    f'{workdir}: {name}: expected {old!r}, with which this run began, got {new!r}; '
                    'choose another --workdir, or delete this one'
                )
            log.say(f'{workdir}: {name} is now {new!r}, was {old!r}')
    held = contextlib.ExitStack()
    if log.first():
        workdir.mkdir(parents=True, exist_ok=True)
        held.enter_context(files.lock(workdir / 'lock'))
        shutil.copyfile(data.path / 'tokenizer.json', workdir / 'tokenizer.json')
        shutil.copyfile(data.path / 'manifest.json', workdir / 'data.json')
        config.save(c, path)
    return held


# What may change while a run is continued: it has no say in what the next step computes.
# With `steps`, the rest of the schedule follows the new number.
FREE = (
    'steps',
    'log_every',
    'ckpt_every',
    'nonfinite',
    'mapping',
    'distributed',
    'eval.',
    'data.root',
    'data.s',
    'data.verify',
)


def main(_) -> None:
    c = config.check(flags.FLAGS.config)
    if c.distributed:
        sharding.connect()
    workdir = pathlib.Path(flags.FLAGS.workdir or f'runs/{c.name}')
    if flags.FLAGS.dry_run:
        rehearse(c)
    elif flags.FLAGS.replay:
        replay(c, workdir, flags.FLAGS.replay)
    elif c.distributed:
        together(c, workdir)
    else:
        train_config(c, workdir)


def together(c: config.Config, workdir: pathlib.Path) -> None:
    """Trains as one of several processes; ends at once, to be started again, if one is lost."""
    try:
        train_config(c, workdir)
    except jax.errors.JaxRuntimeError as error:
        reason = ' '.join(str(error).split())[:200]
        print(f'error: a process or its devices are lost: {reason}', file=sys.stderr, flush=True)
        os._exit(requests.RESTART)  # the way out of Python would wait for all processes


if __name__ == '__main__':
    config_flags.DEFINE_config_file('config', None, 'file of the experiment')
    flags.DEFINE_string('workdir', None, 'directory of the run; none: runs/<name of the config>')
    flags.DEFINE_integer('replay', 0, 'prints this step of a run, computed again')
    flags.DEFINE_bool('dry_run', False, 'print what the run will take, and end')
    flags.mark_flags_as_required(['config'])
    log.program(main, config.check_flags)
