"""Pairs per second of a training step: hbt and its peers, turn by turn.

python -m benchmarks.train_step --data=pairs.jsonl.gz --tokenizer=DIRECTORY --shape=small
python -m benchmarks.train_step --store=STORE --shape=small --cached=8 --batch=128
python -m benchmarks.train_step --store=STORE --part=sampler
python -m benchmarks.train_step --store=STORE --shape=base --batch=1024 --device=gpu

Every entrant gets the same batches and does the whole step: forward, backward, clipping, AdamW,
dropout of 0.1. hbt draws and packs its batches within the clock; the peers' are tokenised before.
The model FLOPs utilisation is that of the GPU's peak; on a CPU, of the speed that a bare product
of bfloat16 matrices has, measured before the race.
"""

import functools
import os
import pathlib
import statistics
import sys
import tempfile
import time

from absl import app, flags

from benchmarks import race, work
from hbt import config
from hbt.data import build
from hbt.training import telemetry

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


def entrants() -> dict:
    """The entrants that the flags select."""
    args = flags.FLAGS
    makers = CACHED if args.cached else PLAIN
    makers = {name: make for name, make in makers.items() if args.dtype in name}
    for name in args.only:
        if name not in makers:
            sys.exit(f'error: --only: expected some of {", ".join(makers)}, got {name!r}')
    return {name: makers[name] for name in args.only or makers}


def task(root: pathlib.Path) -> work.Task:
    args = flags.FLAGS
    return work.task(args.shape, root, args.batch, args.device)


def make(name: str) -> work.Turn:
    args = flags.FLAGS
    if not args.cached:
        return entrants()[name](task(pathlib.Path(args.store)))
    # As many tokens at a time as the peers' mini-batch of texts may hold.
    contest = task(pathlib.Path(args.store))
    texts = args.cached * contest.config.data.passage_length if name.startswith('hbt') else 0
    return entrants()[name](contest, chunk=texts or args.cached)


def find_peak(device: str) -> float:
    """FLOP/s; ends the program where there is no such GPU."""
    import jax

    if device == 'cpu':
        return telemetry.measure_product('bfloat16')

    kinds = {x.device_kind for x in jax.devices() if x.platform == 'gpu'}
    if not kinds:
        platform = jax.devices()[0].platform
        sys.exit(f'error: --device=gpu: expected a GPU that JAX can use, got {platform} only')
    peak = telemetry.peak_flops(min(kinds))
    if peak is None:
        sys.exit(f'error: --device=gpu: expected a GPU of makers speed, got {min(kinds)}')
    return peak


def step(root: pathlib.Path) -> None:
    """Races the entrants and prints a table."""
    args = flags.FLAGS
    peak = find_peak(args.device)
    contest, names = task(root), list(entrants())
    more = [f'--{x}={getattr(args, x)}' for x in ('shape', 'batch', 'device', 'dtype', 'cached')]
    module = 'benchmarks.train_step'
    results = race.run(module, names, args.turns, [f'--store={root}', *more])
    pairs, each = contest.config.batch_size * contest.steps, work.flops(contest)
    peers = [x for name, x in results.items() if not name.startswith('hbt')]
    best = min(peers, key=lambda x: sum(x.seconds), default=None)
    print(f'{args.shape}, {contest.config.batch_size} pairs a step, {args.turns} turns')
    print(f'peak of this machine: {peak / 1e9:,.0f} GFLOP/s\n')
    print('| | pairs/s (slowest, fastest turn) | against the fastest peer | real tokens | MFU |')
    print('|---|---|---|---|---|')
    for name, x in results.items():
        rates = [pairs / seconds for seconds in x.seconds]
        ratio = f'{x.times(best):.2f} x' if best else ''
        done = sum(each[i % len(each)] for i in range(args.turns * contest.steps))
        mfu = f'{done / sum(x.seconds) / peak:.0%}'
        print(
            f'| {name} | {statistics.median(rates):.1f} ({min(rates):.1f}, {max(rates):.1f}) '
            f'| {ratio} | {x.facts["real tokens"]} | {mfu} |'
        )


def sampler(root: pathlib.Path) -> None:
    """Prints how fast pairs are planned and batches assembled, and their share of a step."""
    contest = work.task('base', root, flags.FLAGS.batch)
    s, b = contest.sampler, contest.config.batch_size
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
    print(f'{rate:,.0f} pairs/s planned; {1e3 * each:.2f} ms a batch of {b} pairs, with its plan')
    turn, _ = work.hbt(contest, flags.FLAGS.dtype or 'bfloat16')
    taken = statistics.median(turn() for _ in range(flags.FLAGS.turns)) / contest.steps
    print(f'{each / taken:.2%} of a step of XLM-R base, which takes {taken:.2f} s')


PARTS = {'step': step, 'sampler': sampler}


def main(_) -> None:
    args = flags.FLAGS
    if args.device == 'cpu':
        os.environ['JAX_PLATFORMS'] = 'cpu'
    os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'  # the entrants share the memory
    if args.device == 'gpu':
        find_peak(args.device)
    if args.entrant:
        race.serve(make, args.entrant)
        return
    if not args.store and not (args.data and args.tokenizer):
        sys.exit('error: expected --store, or --data and --tokenizer, got neither')
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(args.store or f'{folder}/store')
        if not args.store:
            build.build_store(config.Data(tokenizer=args.tokenizer), root, [args.data])
        PARTS[args.part](root)


if __name__ == '__main__':
    flags.DEFINE_string('data', '', 'file of groups')
    flags.DEFINE_string('tokenizer', '', 'as for hbt.prepare')
    flags.DEFINE_string('store', '', 'an existing store, instead of data and tokenizer')
    flags.DEFINE_enum('part', 'step', list(PARTS), 'what is measured')
    flags.DEFINE_enum('shape', 'small', list(work.SHAPES), 'of the encoder')
    flags.DEFINE_integer('batch', 0, 'pairs of a batch; 0: as the shape has it')
    flags.DEFINE_enum('device', 'cpu', ['cpu', 'gpu'], 'where')
    flags.DEFINE_enum('dtype', '', ['', 'float32', 'bfloat16'], 'the entrants of this type only')
    flags.DEFINE_integer('turns', 7, 'timed turns of each entrant', lower_bound=1)
    flags.DEFINE_integer('cached', 0, 'texts of a mini-batch, with gradient caching; 0: without')
    flags.DEFINE_list('only', [], 'names of entrants; none: all')
    flags.DEFINE_string('entrant', '', 'internal: the entrant of this process')
    app.run(main)
