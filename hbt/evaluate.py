"""Benchmarks -> numbers, during training and as a command line on a finished run.

Assembles tokeniser, encoder, search and metrics. `main` calls `make` and `save`.
"""

import dataclasses
import json
import os
import pathlib
import typing
from collections import abc

import numpy as np
import tokenizers
from absl import flags

from hbt import benchmarks, checkpoint, config, embed, log, metrics, search, sharding

RUN_DEPTH = 1000


class Result(typing.NamedTuple):
    """What one benchmark gave: the numbers, and what a ranking can be made of."""

    benchmark: benchmarks.Benchmark
    numbers: dict
    queries: np.ndarray  # q d
    documents: np.ndarray  # n d
    pooled: np.ndarray  # q r; ranks in the union of all corpora


def make(c: config.Config, tokenizer: tokenizers.Tokenizer, mesh) -> abc.Callable:
    """`run(params) -> {benchmark: Result}` for the benchmarks of the config, tokenised once.

    Raises ValueError where a benchmark cannot be read.
    """
    embedder = embed.make(c, mesh)
    loaded = []
    for name in c.eval.benchmarks:
        benchmark = benchmarks.load(name, c.eval.root)
        sides = (
            (benchmark.queries, c.data.query_prefix, c.data.query_length),
            (benchmark.documents, c.data.passage_prefix, c.data.passage_length),
        )
        loaded.append(
            (benchmark, *(embed.tokenise(tokenizer, x.texts, prefix, n) for x, prefix, n in sides))
        )

    def run(params) -> dict[str, Result]:
        return {
            benchmark.name: score(
                benchmark,
                embedder(params, queries, f'{benchmark.name} queries'),
                embedder(params, documents, f'{benchmark.name} documents'),
            )
            for benchmark, queries, documents in loaded
        }

    return run


def score(benchmark: benchmarks.Benchmark, queries, documents) -> Result:
    """Every number of a benchmark from its embeddings."""
    languages = sorted(set(benchmark.documents.languages))
    codes = {language: i for i, language in enumerate(languages)}
    corpus = np.array([codes[x] for x in benchmark.documents.languages], np.int32)
    own, pooled = search.ranks(queries, documents, benchmark.relevant, corpus)
    pooled = np.asarray(pooled)
    numbers = metrics.summarise(
        np.asarray(own),
        pooled,
        benchmark.queries.languages,
        np.array(languages)[corpus[benchmark.relevant]],
        languages,
    )
    counts = {'queries': len(queries), 'documents': len(documents)}
    numbers = {'benchmark': benchmark.name, 'counts': counts} | numbers
    return Result(benchmark, numbers, queries, documents, pooled)


def flat(results: dict[str, Result]) -> dict[str, float]:
    """{'xquad_r/multi.map': ...} of every macro-averaged number."""
    return {
        f'{name}/{setting}.{metric}': value
        for name, result in results.items()
        for setting, values in result.numbers['metrics'].items()
        for metric, value in values.items()
    }


def save(result: Result, folder: pathlib.Path, step: int) -> None:
    """Writes FOLDER/<benchmark>.json, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'{result.benchmark.name}.json'
    partial = path.with_suffix('.partial')
    partial.write_text(json.dumps({'step': step} | result.numbers, indent=1))
    os.replace(partial, path)


def table(numbers: dict, step: int) -> str:
    """The three settings per query language and in the mean, as text."""
    counts = numbers['counts']
    columns = (
        ('mono', 'map'),
        ('mono', 'recall@1'),
        ('cross', 'map'),
        ('cross', 'recall@1'),
        ('multi', 'map'),
        ('multi', 'recall@10'),
        ('multi', 'rank_distance'),
    )
    short = {'recall@1': 'R@1', 'recall@10': 'R@10', 'rank_distance': 'distance', 'map': 'mAP'}
    lines = [
        f'{numbers["benchmark"]} at step {step}: '
        f'{counts["queries"]} queries, {counts["documents"]} documents',
        f'{"query":8}' + ''.join(f'{setting + " " + short[m]:>15}' for setting, m in columns),
    ]
    rows = numbers['languages'] | {'mean': numbers['metrics']}
    for language, settings in rows.items():
        cells = [settings.get(setting, {}).get(metric) for setting, metric in columns]
        shown = ['' if x is None else f'{x:.1f}' if x > 1 else f'{x:.4f}' for x in cells]
        lines.append(f'{language:8}' + ''.join(f'{x:>15}' for x in shown))
    return '\n'.join(lines)


def write_run(result: Result, path: pathlib.Path, depth: int) -> dict[str, float]:
    """Writes the pooled ranking to `depth` as a TREC run, and its qrels beside it.

    Returns the numbers that trec_eval gives for these files: documents below `depth` count as
    not found, which is why `map` can be a little lower than at full depth.
    """
    depth = min(depth, len(result.documents))
    _, top = search.top_k(result.queries, result.documents, depth)
    benchmarks.write_run(path, result.benchmark, np.asarray(top), 'hbt')
    benchmarks.write_qrels(path.with_suffix('.qrels'), result.benchmark)
    return {
        'depth': depth,
        'map': metrics.mean(metrics.average_precision(result.pooled, depth)),
        'mrr': metrics.mean(metrics.reciprocal_rank(result.pooled, depth)),
        'recall@1': metrics.mean(metrics.recall(result.pooled, 1)),
        'recall@10': metrics.mean(metrics.recall(result.pooled, min(10, depth))),
    }


def main(_) -> None:
    given = flags.FLAGS
    workdir = pathlib.Path(given.workdir)
    c = config.load(workdir / 'config.json')
    names = tuple(given.benchmark or c.eval.benchmarks)
    c.eval = dataclasses.replace(c.eval, benchmarks=names, root=given.data or c.eval.root)
    if given.run_file and len(names) != 1:
        raise ValueError(f'--run_file: expected one --benchmark, got {", ".join(names)}')
    mesh = sharding.make_mesh()
    run = make(c, tokenizers.Tokenizer.from_file(str(workdir / 'tokenizer.json')), mesh)
    step, params = checkpoint.read(workdir, given.step, sharding.replicated(mesh))
    results = run(params)
    folder = pathlib.Path(given.out) if given.out else workdir / 'results' / str(step)
    for result in results.values():
        if given.run_file:
            numbers = write_run(result, pathlib.Path(given.run_file), given.run_depth)
            result.numbers['run'] = {'file': given.run_file} | numbers
        save(result, folder, step)
        print(table(result.numbers, step))


if __name__ == '__main__':
    flags.DEFINE_string('workdir', None, 'directory of the run')
    flags.DEFINE_multi_string('benchmark', None, "repeatable; none: those of the run's config")
    flags.DEFINE_string('data', None, "folder of the benchmark's files; none: eval.root of the run")
    flags.DEFINE_string('out', None, 'where <benchmark>.json goes; none: WORKDIR/results/<step>')
    flags.DEFINE_string('step', 'latest', 'latest, best, or the number of a kept step')
    flags.DEFINE_string('run_file', None, 'writes the pooled ranking as a TREC run, .qrels beside')
    flags.DEFINE_integer('run_depth', RUN_DEPTH, 'documents a query in the run file')
    flags.mark_flags_as_required(['workdir'])
    log.program(main)
