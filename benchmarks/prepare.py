"""Texts per second of preparing a store, beside the bare tokenizers library on all cores.

python -m benchmarks.prepare --data=lohelp.jsonl.gz --tokenizer=xlm-roberta-tokenizer

hbt reads, checks, tokenises, writes and computes checksums; the library has the texts in memory
and only tokenises.
"""

import itertools
import os
import pathlib
import statistics
import tempfile
import time

from absl import app, flags

from benchmarks import race
from hbt import config
from hbt.data import build, tokenizer_files
from hbt.data.readers import registry

MODULE = 'benchmarks.prepare'
PROGRAM, LIBRARY = 'hbt.prepare', 'tokenizers'
BATCH = 10_000  # texts that the library gets at a time


def program():
    """Seconds of making a store of the data, in as many processes as there are cores."""
    args = flags.FLAGS
    data = config.Data(tokenizer=args.tokenizer)

    def turn() -> float:
        with tempfile.TemporaryDirectory(prefix='prepare-') as folder:
            start = time.perf_counter()
            build.build_store(data, pathlib.Path(folder, 'store'), args.data, os.cpu_count())
            return time.perf_counter() - start

    return turn, {}


def library():
    """Seconds of tokenising every text of the data."""
    args, data = flags.FLAGS, config.Data()
    tokenizer = tokenizer_files.load_tokenizer(pathlib.Path(args.tokenizer))
    texts = []
    for reader in registry.open_sources(args.data):
        for group in reader.iter_groups():
            texts += [data.query_prefix + x for x in group.query.values()]
            passages = itertools.chain(group.passage.values(), *group.negatives.values())
            texts += [data.passage_prefix + x for x in passages]

    def turn() -> float:
        start = time.perf_counter()
        for start_row in range(0, len(texts), BATCH):
            tokenizer.encode_batch_fast(texts[start_row : start_row + BATCH])
        return time.perf_counter() - start

    return turn, {'texts': len(texts)}


ENTRANTS = {PROGRAM: program, LIBRARY: library}


def main(_) -> None:
    args = flags.FLAGS
    if args.entrant:
        race.serve(lambda name: ENTRANTS[name](), args.entrant)
        return
    more = [f'--data={x}' for x in args.data] + [f'--tokenizer={args.tokenizer}']
    results = race.run(MODULE, list(ENTRANTS), args.turns, more)
    texts = results[LIBRARY].facts['texts']
    for name, result in results.items():
        print(f'{name}: {texts / statistics.median(result.seconds):,.0f} texts/s')
    print(f'{results[PROGRAM].times(results[LIBRARY]):.2f} of the speed of the library')


if __name__ == '__main__':
    flags.DEFINE_multi_string('data', None, 'what --input of hbt.prepare takes')
    flags.DEFINE_string('tokenizer', None, 'as for hbt.prepare')
    flags.DEFINE_integer('turns', 5, 'timed turns of each', lower_bound=1)
    flags.DEFINE_string('entrant', '', 'internal: the entrant of this process')
    flags.mark_flags_as_required(['data', 'tokenizer'])
    app.run(main)
