"""Kills programs at random moments and damages their files at random, and counts what is lost.

    python -m tests.faults.campaign --kills=200 --corruptions=100

A trial is survived if the same command then ends with what it gives undisturbed, and refused if it
ends with an error of hbt's own that names a file; else something is lost, or unclear. Children are
forked before JAX starts anything, which saves them the imports; programs are compiled once.
"""

import argparse
import collections
import dataclasses
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import typing
from collections import abc

import jax

from hbt import config, main
from hbt.data import build, store
from hbt.data.curation import translation
from hbt.data.readers import registry, synthetic
from hbt.evaluation import evaluator, results
from hbt.models import embedder, embedding_file, model_dir
from hbt.serving import dual_encoder
from hbt.training import hard_negatives, loop, model_export
from hbt.utils import distributed, log, sharding
from tests import tiny

TEXTS = 400


class Job(typing.NamedTuple):
    """A program in a folder, and what it leaves there."""

    run: abc.Callable[[pathlib.Path], None]
    result: abc.Callable[[pathlib.Path], str]  # a digest
    needs: tuple[str, ...] = ()  # jobs whose results must be there


def settings(folder: pathlib.Path) -> config.Config:
    c = tiny.get_config()
    data = dataclasses.replace(c.data, root=str(folder / 'store'))
    # Of the training data, as any evaluation will do.
    evaluation = config.Eval(
        benchmarks=('jsonl:held.jsonl',),
        root=str(folder),
        every=6,
        batch_size=64,
        validation=str(folder / 'held.jsonl'),
        best='loss',
        patience=9,
    )
    with (folder / 'held.jsonl').open('w') as file:
        for group in synthetic.groups('test', 6):
            row = {key: group[key] for key in ('id', 'query', 'passage')}
            file.write(json.dumps(row) + '\n')
    return dataclasses.replace(c, steps=10, ckpt_every=2, data=data, eval=evaluation)


def run_prepare(folder):
    data = settings(folder).data
    build.build_store(data, folder / 'store', data.sources)


def run_main(folder, name='run'):
    c = config.check(settings(folder))
    main.make_validation(c, folder / name)
    loop.train_config(c, folder / name)


def run_export(folder):
    if not (folder / 'model').exists():
        model_export.export_model(str(folder / 'run'), None, 'latest', folder / 'model')


def run_embed(folder):
    embedding_file.CHUNK = 50
    (folder / 'texts').write_text(''.join(f'{i} euros\n' for i in range(TEXTS)))
    if not (folder / 'out.npy').exists():
        model = model_dir.load_model(str(folder / 'model'))
        embedding_file.embed_lines(
            embedder.make_embedder(model, 64, 'float32'), folder / 'texts', folder / 'out.npy', {}
        )


def run_index(folder):
    embedding_file.CHUNK = 50
    rows = ({'id': str(i), 'text': f'{i} euros', 'language': 'en'} for i in range(TEXTS))
    (folder / 'corpus.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    dual_encoder.load_model(folder / 'model', batch_size=64).build_index(folder / 'corpus.jsonl')


def run_evaluate(folder):
    model = model_dir.load_model(str(folder / 'model'))
    c = dataclasses.replace(model.config, eval=settings(folder).eval)
    mesh = sharding.make_mesh()
    params = jax.device_put(model.params, sharding.replicated(mesh))
    loaded = evaluator.load_benchmarks(c.eval)
    cache = folder / 'embeddings'
    for result in evaluator.make_evaluation(c, model.tokenizer, mesh, loaded, cache=cache)(
        params
    ).values():
        results.save_result(result, folder / 'results', 0)


def run_translate(folder):
    """By a program that turns every letter to the next."""
    out, engine = folder / 'parallel.jsonl.gz', ('command:tr a-z b-za',)
    if not out.exists():
        (reader,) = registry.open_sources(['cldr:60'])
        setting = translation.TranslationConfig(
            'en', ('fr', 'nl'), engine, 8, 3.0, translation.FILTERS
        )
        translation.translate_source(reader, out, setting)


def run_mine(folder):
    if not (folder / 'mined').exists():
        model = model_dir.load_model(str(folder / 'model'))
        setting = hard_negatives.Settings(count=2, depth=10, margin=0.0)
        hard_negatives.mine_negatives(
            model.config,
            model.params,
            store.open_store(folder / 'store'),
            folder / 'mined',
            setting,
        )


def of_results(folder):
    return digest(*(folder / f'results/jsonl-held.jsonl.{x}' for x in ('json', 'npz')))


def of_index(folder):
    names = 'embeddings.npy', 'documents.jsonl', 'offsets.npy', 'codes.npy', 'languages.json'
    return digest(*(folder / 'corpus.jsonl.index' / name for name in names))


def digest(*files: pathlib.Path) -> str:
    checksum = hashlib.sha256()
    for file in files:
        checksum.update(file.read_bytes())
    return checksum.hexdigest()


def of_store(folder, name='store'):
    files = sorted(x for x in (folder / name).rglob('*') if x.is_file())
    return digest(*(x for x in files if x.name != 'manifest.json'))


def of_parameters(folder):
    """By way of an export."""
    shutil.rmtree(folder / 'last', ignore_errors=True)
    model_export.export_model(str(folder / 'run'), None, 'latest', folder / 'last')
    return digest(folder / 'last/model.safetensors')


def of_run(folder):
    """The parameters, and every number logged but those of time."""
    lines = [
        {
            k: v
            for k, v in line.items()
            if k == 'step' or k.startswith(('loss', 'jsonl', 'accuracy', 'validation'))
        }
        for line in log.read_metrics(folder / 'run/metrics.jsonl')
    ]
    best = sorted(x.name for x in (folder / 'run/best').iterdir() if x.name.isdigit())
    told = json.dumps([lines, best])
    return of_parameters(folder) + hashlib.sha256(told.encode()).hexdigest()


JOBS = {
    'prepare': Job(run_prepare, of_store),
    'main': Job(run_main, of_run, ('store',)),
    'export': Job(run_export, lambda x: digest(x / 'model/model.safetensors'), ('store', 'run')),
    'embed': Job(run_embed, lambda x: digest(x / 'out.npy'), ('model',)),
    'index': Job(run_index, of_index, ('model',)),
    'evaluate': Job(run_evaluate, of_results, ('model',)),
    'translate': Job(run_translate, lambda x: digest(x / 'parallel.jsonl.gz')),
    'mine': Job(run_mine, lambda x: of_store(x, 'mined'), ('store', 'model')),
}


def child(function: abc.Callable, folder: pathlib.Path) -> int:
    """Runs it in a process of its own; gives the process."""
    process = os.fork()
    if process:
        return process
    os.setsid()
    output = os.open(folder / 'output', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    status = 0
    try:
        function(folder)
    except (ValueError, OSError) as error:
        print('refused:', ' '.join(str(error).split()), flush=True)
        status = 2
    except SystemExit as error:
        status = error.code
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    os._exit(status)


def finish(process: int) -> int:
    """The exit status, or minus the signal."""
    status = os.waitpid(process, 0)[1]
    return os.waitstatus_to_exitcode(status)


def digest_of(job: Job, folder: pathlib.Path) -> str:
    """The digest, made in a process of its own."""

    def write(folder):
        (folder / 'digest').write_text(job.result(folder))

    (folder / 'digest').unlink(missing_ok=True)
    status = finish(child(write, folder))
    return (folder / 'digest').read_text() if status == 0 else f'none: {tail(folder)}'


def tail(folder: pathlib.Path) -> str:
    lines = (folder / 'output').read_text(errors='replace').strip().splitlines()
    return lines[-1] if lines else ''


def begin(job: Job, reference: pathlib.Path, folder: pathlib.Path) -> None:
    folder.mkdir()
    for name in job.needs:
        shutil.copytree(reference / name, folder / name)


def kill(name: str, reference: pathlib.Path, expected: str, seconds: float, folder, dice) -> tuple:
    """(outcome, kills, note) of a program that is killed a few times and then left alone."""
    job, kills = JOBS[name], 0
    begin(job, reference, folder)
    for _ in range(dice.randint(1, 3)):
        process = child(job.run, folder)
        time.sleep(dice.uniform(0, seconds))
        try:
            os.killpg(process, signal.SIGKILL)
        except ProcessLookupError:  # it has not made its group yet
            os.kill(process, signal.SIGKILL)
        if finish(process) == -signal.SIGKILL:
            kills += 1
    status = finish(child(job.run, folder))
    return *judge(job, status, expected, folder, allowed=('survived',)), kills


def judge(job: Job, status: int, expected: str, folder, allowed: tuple[str, ...]) -> tuple:
    """(outcome, note)."""
    if status == 2:
        note = tail(folder)
        fine = 'refused' in allowed and str(folder) in note
        return ('refused' if fine else 'lost'), note
    if status:
        return 'unclear', tail(folder)
    got = digest_of(job, folder)
    return ('survived', '') if got == expected else ('lost', f'expected {expected}, got {got}')


def corrupt(reference: pathlib.Path, expected: str, folder: pathlib.Path, dice) -> tuple:
    """(outcome, note) of a run that goes on after one of its files was damaged."""
    job = JOBS['main']
    begin(job, reference, folder)
    shutil.copytree(reference / 'half', folder / 'run')
    part = folder / dice.choice(('run', 'store'))  # of which the store has more files by far
    files = sorted(x for x in part.rglob('*') if x.is_file() and 'tensorboard' not in x.parts)
    file = dice.choice(files)
    how = damage(file, dice)
    status = finish(child(job.run, folder))
    job = job._replace(result=of_parameters)
    outcome, note = judge(job, status, expected, folder, allowed=('survived', 'refused'))
    return outcome, f'{file.relative_to(folder)} {how}: {note}'


def damage(file: pathlib.Path, dice) -> str:
    content, how = bytearray(file.read_bytes()), dice.choice(('flipped', 'cut', 'gone'))
    if how == 'gone':
        file.unlink()
    elif how == 'cut':
        file.write_bytes(content[: dice.randrange(len(content) or 1)])
    elif content:
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        file.write_bytes(content)
    return how


def half(folder: pathlib.Path) -> None:
    """A run that is asked to stop at step 5."""

    def due(self, step):
        self.signal = signal.SIGTERM if step == 5 else None
        return step == 5

    distributed.StopRequests.due = due
    run_main(folder, 'half')


def references(folder: pathlib.Path) -> dict[str, tuple[str, float]]:
    """Job -> (digest, seconds) undisturbed; leaves their results, and a run stopped half-way."""
    folder.mkdir()
    finished = {}
    for name, job in JOBS.items():
        for place in (folder, folder / 'again'):  # the second time it is compiled already
            if place != folder:
                begin(job, folder, place)
            start = time.monotonic()
            status = finish(child(job.run, place))
            assert status == 0, (name, tail(place))
            seconds = time.monotonic() - start
        finished[name] = digest_of(job, folder), seconds
        assert digest_of(job, folder / 'again') == finished[name][0], f'{name} is not deterministic'
        shutil.rmtree(folder / 'again')
        if name == 'prepare':
            assert finish(child(half, folder)) == distributed.RESTART, tail(folder)
    return finished


def campaign(kills: int, corruptions: int, seed: int, folder: pathlib.Path, processes: int = 2):
    """Outcome -> trials, of so many kills and corruptions; prints those that are not survived."""
    jax.config.update('jax_compilation_cache_dir', str(folder / 'compiled'))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
    known = references(folder / 'reference')

    def part(number: int) -> abc.Callable[[pathlib.Path], None]:
        shares = [(n + number) // processes for n in (kills, corruptions)]
        return lambda place: (place / 'counts').write_text(
            json.dumps(trials(*shares, f'{seed} {number}', place, folder / 'reference', known))
        )

    parts = []
    for number in range(processes):
        place = folder / f'part{number}'
        place.mkdir()
        parts.append((child(part(number), place), place))
    table = collections.Counter()
    for process, place in parts:
        status = finish(process)
        print((place / 'output').read_text(), end='')
        assert status == 0, place
        table.update(json.loads((place / 'counts').read_text()))
    return table


def trials(
    kills: int, corruptions: int, seed: str, folder, reference, known: dict
) -> collections.Counter:
    """The trials of one process."""
    dice, table, trial = random.Random(seed), collections.Counter(kills=0), 0
    while table['kills'] < kills:
        trial += 1
        name, place = list(JOBS)[trial % len(JOBS)], folder / f'kill{trial}'
        outcome, note, count = kill(name, reference, *known[name], place, dice)
        table['kills'] += count
        table[f'{name} killed: {outcome}'] += 1
        report(table, f'{name} (trial {trial})', outcome, note, place)
    for trial in range(corruptions):
        place = folder / f'corrupt{trial}'
        outcome, note = corrupt(reference, known['main'][0][:64], place, dice)
        table['corruptions'] += 1
        table[f'corrupted: {outcome}'] += 1
        report(table, f'corruption {trial}', outcome, note, place)
    return table


def report(table, what: str, outcome: str, note: str, place: pathlib.Path) -> None:
    table[outcome] += 1
    if outcome in ('lost', 'unclear'):
        print(f'{what}: {outcome}: {note} (kept in {place})', flush=True)
    else:
        shutil.rmtree(place)


if __name__ == '__main__':
    os.environ['XLA_FLAGS'] = '--xla_backend_optimization_level=0'
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=200)
    parser.add_argument('--corruptions', type=int, default=100)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--processes', type=int, default=2)
    given = parser.parse_args()
    place, start = pathlib.Path(tempfile.mkdtemp(prefix='faults-')), time.monotonic()
    for line, count in sorted(campaign(**vars(given), folder=place).items()):
        print(f'{line:32}{count:6}')
    print(f'{"seconds":32}{time.monotonic() - start:6.0f}')
