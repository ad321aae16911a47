"""Pairs per second of a training step: hbt and its peers, turn by turn.

python -m benchmarks.train_step --data=pairs.jsonl.gz --tokenizer=DIRECTORY --shape=small
python -m benchmarks.train_step --store=STORE --shape=small --cached=8 --rows=128
python -m benchmarks.train_step --store=STORE --part=sampler

Every entrant gets the same batches and does the whole step: forward, backward, clipping, AdamW,
dropout of 0.1. hbt draws and packs its batches within the clock; the peers' are tokenised before.
"""

import functools
import pathlib
import sys
import tempfile
import time

from absl import app, flags

from benchmarks import race, work
from hbt import config, prepare

PEER = 'sentence-transformers'
PLAIN = {  # name -> turn of a task
    'hbt float32': functools.partial(work.hbt, dtype='float32'),
    'hbt bfloat16': functools.partial(work.hbt, dtype='bfloat16'),
    f'{PEER} float32': functools.partial(work.peer, dtype='float32'),
    f'{PEER} float32 compiled': functools.partial(work.peer, dtype='float32', compiled=True),
    f'{PEER} bfloat16': functools.partial(work.peer, dtype='bfloat16'),
    f'{PEER} bfloat16 compiled': functools.partial(work.peer, dtype='bfloat16', compiled=True),
}
CACHED = {name: make for name, make in PLAIN.items() if 'compiled' not in name} | {
    f'GradCache {dtype}': functools.partial(work.peer, dtype=dtype, kind='grad_cache')
    for dtype in ('float32', 'bfloat16')
}


def make(name: str) -> work.Turn:
    given = flags.FLAGS
    task = work.task(given.shape, pathlib.Path(given.store), given.rows)
    if not given.cached:
        return PLAIN[name](task)
    # As many tokens at a time as the peers' mini-batch of texts may hold.
    texts = given.cached * task.config.data.passage_length if name.startswith('hbt') else 0
    return CACHED[name](task, chunk=texts or given.cached)


def step(root: pathlib.Path) -> None:
    """Races the entrants and prints a table."""
    given = flags.FLAGS
    task = work.task(given.shape, root, given.rows)
    more = [f'--store={root}', f'--shape={given.shape}', f'--rows={given.rows}']
    names = [x for x in (CACHED if given.cached else PLAIN) if not given.only or x in given.only]
    results = race.run(
        'benchmarks.train_step', names, given.turns, [*more, f'--cached={given.cached}']
    )
    pairs = task.config.batch_size * task.steps
    peers = [x.median for name, x in results.items() if not name.startswith('hbt')]
    print(f'{given.shape}, {task.config.batch_size} pairs a step, {given.turns} turns\n')
    print('| | pairs/s (slowest, fastest turn) | against the fastest peer | real tokens |')
    print('|---|---|---|---|')
    for name, x in results.items():
        ratio = f'{min(peers) / x.median:.2f} x' if peers else ''
        print(
            f'| {name} | {pairs / x.median:.1f} ({pairs / max(x.seconds):.1f}, '
            f'{pairs / min(x.seconds):.1f}) | {ratio} | {x.facts["real tokens"]} |'
        )


def sampler(root: pathlib.Path) -> None:
    """Prints how fast rows are planned and batches assembled."""
    task = work.task('base', root, flags.FLAGS.rows)
    s, b = task.sampler, task.config.batch_size
    s.plans(0)
    blocks = 20
    start = time.perf_counter()
    for number in range(1, 1 + blocks):
        s.plan_block(number)
    rate = blocks * s.together * b / (time.perf_counter() - start)
    s.batch(0)
    start = time.perf_counter()
    for number in range(200):
        s.batch(number)
    each = (time.perf_counter() - start) / 200
    print(f'{rate:,.0f} rows/s planned; {1e3 * each:.2f} ms a batch of {b} pairs, with its plan')


PARTS = {'step': step, 'sampler': sampler}


def main(_) -> None:
    given = flags.FLAGS
    if given.entrant:
        race.serve(make, given.entrant)
        return
    if not given.store and not (given.data and given.tokenizer):
        sys.exit('error: expected --store, or --data and --tokenizer, got neither')
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(given.store or f'{folder}/store')
        if not given.store:
            prepare.prepare(config.Data(tokenizer=given.tokenizer), root, [given.data])
        PARTS[given.part](root)


if __name__ == '__main__':
    flags.DEFINE_string('data', '', 'file of parallel rows')
    flags.DEFINE_string('tokenizer', '', 'as for hbt.prepare')
    flags.DEFINE_string('store', '', 'a store that is there already, instead of data and tokenizer')
    flags.DEFINE_enum('part', 'step', list(PARTS), 'what is measured')
    flags.DEFINE_enum('shape', 'small', list(work.SHAPES), 'of the encoder')
    flags.DEFINE_integer('rows', 0, 'rows of a batch; 0: as the shape has it')
    flags.DEFINE_integer('turns', 7, 'timed turns of each entrant', lower_bound=1)
    flags.DEFINE_integer('cached', 0, 'texts of a mini-batch, with gradient caching; 0: without')
    flags.DEFINE_list('only', [], 'names of entrants; none: all')
    flags.DEFINE_string('entrant', '', 'of this process; for the program itself')
    app.run(main)
