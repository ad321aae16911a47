"""Benchmarks by name."""

import os
import pathlib
from collections import abc

from hbt.evaluation.benchmarks import assembly, beir, held_out, lareqa, miracl, mtop

MANY_DOCUMENTS = 200_000


def load_benchmark(name: str, root: str | os.PathLike) -> assembly.Benchmark:
    """Reads a benchmark; ValueError for an unknown name, and for missing or malformed files.

    Args:
      name: a key of BENCHMARKS, some with an argument: `miracl:sw+yo`, `jsonl:FILE`, `beir:FOLDER`.
      root: the folder of the files, or one that has a folder of the benchmark's name (`xquad-r/`);
        `hub` is the Hugging Face hub where that has the benchmark.
    """
    kind, _, argument = name.partition(':')
    if kind not in BENCHMARKS:
        raise ValueError(f'benchmark: expected one of {", ".join(BENCHMARKS)}, got {name!r}')
    return assembly.assemble(name, BENCHMARKS[kind](kind, argument, pathlib.Path(root)))


def texts_to_decontaminate(specs: abc.Iterable[str]) -> abc.Iterator[tuple[str, str]]:
    """Yields (id, text) of the benchmarks BENCHMARK:FOLDER, which training data should not hold.

    Of a benchmark with more than MANY_DOCUMENTS, a whole Wikipedia, only the relevant ones count.
    """
    for spec in specs:
        name, colon, root = spec.rpartition(':')
        if not colon:
            raise ValueError(f'--leakage: expected BENCHMARK:FOLDER, got {spec!r}')
        benchmark = load_benchmark(name, root)
        yield from zip(benchmark.queries.ids, benchmark.queries.texts, strict=True)
        documents, indices = benchmark.documents, range(len(benchmark.documents.ids))
        if len(indices) > MANY_DOCUMENTS:
            indices = sorted(set(benchmark.relevant[benchmark.relevant >= 0].tolist()))
        yield from ((documents.ids[i], documents.texts[i]) for i in indices)


BENCHMARKS = {  # name -> reader(name, argument, root) -> Collection
    'xquad_r': lareqa.read_lareqa,
    'mlqa_r': lareqa.read_lareqa,
    'miracl': miracl.read_wikipedia,
    'mr_tydi': miracl.read_wikipedia,
    'mtop_translation': mtop.read_mtop,
    'mtop_intent': mtop.read_mtop,
    'beir': beir.read_beir,
    'jsonl': held_out.read_groups,
    'cldr': held_out.read_cldr,
}
