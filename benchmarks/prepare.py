"""Texts per second of preparing a store, beside the bare tokenizers library on all cores.

python -m benchmarks.prepare --data=lohelp.jsonl.gz --tokenizer=xlm-roberta-tokenizer

hbt reads, checks, tokenises, writes and sums; the library has the texts in memory and only
tokenises.
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
TOGETHER = 10_000  # texts that the library gets at a time


def program():
    """Seconds of making a store of the data, in as many processes as there are cores."""
    given = flags.FLAGS
    data = config.Data(tokenizer=given.tokenizer)

    def turn() -> float:
        with tempfile.TemporaryDirectory(prefix='prepare-') as folder:
            start = time.perf_counter()
            build.build_store(data, pathlib.Path(folder, 'store'), given.data, os.cpu_count())
            return time.perf_counter() - start

    return turn, {}


def library():
    """Seconds of tokenising every text of the data."""
    given, data = flags.FLAGS, config.Data()
    tokenizer = tokenizer_files.load_tokenizer(pathlib.Path(given.tokenizer))
    texts = []
    for reader in registry.open_sources(given.data):
        for row in reader.iter_groups():
            texts += [data.query_prefix + x for x in row.query.values()]
            passages = itertools.chain(row.passage.values(), *row.negatives.values())
            texts += [data.passage_prefix + x for x in passages]

    def turn() -> float:
        start = time.perf_counter()
        for at in range(0, len(texts), TOGETHER):
            tokenizer.encode_batch_fast(texts[at : at + TOGETHER])
        return time.perf_counter() - start

    return turn, {'texts': len(texts)}


ENTRANTS = {PROGRAM: program, LIBRARY: library}


def main(_) -> None:
    given = flags.FLAGS
    if given.entrant:
        race.serve(lambda name: ENTRANTS[name](), given.entrant)
        return
    more = [f'--data={x}' for x in given.data] + [f'--tokenizer={given.tokenizer}']
    found = race.run(MODULE, list(ENTRANTS), given.turns, more)
    texts = found[LIBRARY].facts['texts']
    for name, result in found.items():
        print(f'{name}: {texts / statistics.median(result.seconds):,.0f} texts/s')
    print(f'{found[PROGRAM].times(found[LIBRARY]):.2f} of the speed of the library')


if __name__ == '__main__':
    flags.DEFINE_multi_string('data', None, 'what --input of hbt.prepare takes')
    flags.DEFINE_string('tokenizer', None, 'as for hbt.prepare')
    flags.DEFINE_integer('turns', 5, 'timed turns of each', lower_bound=1)
    flags.DEFINE_string('entrant', '', 'of this process; for the program itself')
    flags.mark_flags_as_required(['data', 'tokenizer'])
    app.run(main)
