"""Benchmarks -> numbers, during training and as a command line on a finished run.

Assembles tokeniser, encoder, search and metrics. `main` calls `make` and `save`.
"""

import dataclasses
import pathlib
import typing
from collections import abc

import jax
import numpy as np
import tokenizers
from absl import flags

from hbt import (
    benchmarks,
    bias,
    checkpoint,
    config,
    embed,
    log,
    metrics,
    pipeline,
    results,
    search,
    sharding,
    store,
    summary,
    trec,
)


class Result(typing.NamedTuple):
    """What one benchmark gave: the numbers, and what they were made of."""

    benchmark: benchmarks.Benchmark
    numbers: dict
    values: summary.Values  # of every query
    ranks: np.ndarray  # q r; in the union of all corpora
    top: np.ndarray  # q k; the best documents


def make(
    c: config.Config, tokenizer: tokenizers.Tokenizer, mesh, depth: int = bias.LISTED[-1]
) -> abc.Callable:
    """`run(params) -> {benchmark: Result}` for the benchmarks of the config, tokenised once.

    `depth`: how many of the best documents a result lists. Raises ValueError where a benchmark
    cannot be read.
    """
    embedder = embed.make(c, mesh)
    loaded = []
    for name in c.eval.benchmarks:
        benchmark = benchmarks.load(name, c.eval.root)
        sides = (
            (benchmark.queries, c.data.query_prefix, c.data.query_length),
            (benchmark.documents, c.data.passage_prefix, c.data.passage_length),
        )
        tables = [embed.tokenise(tokenizer, x.texts, prefix, n) for x, prefix, n in sides]
        loaded.append((benchmark, tables, results.manifest(benchmark, about(c, tables))))

    def run(params) -> dict[str, Result]:
        found = {}
        for benchmark, (queries, documents), manifest in loaded:
            vectors = (
                embedder(params, queries, f'{benchmark.name} queries'),
                embedder(params, documents, f'{benchmark.name} documents'),
            )
            result = score(benchmark, *vectors, mesh, depth)
            result.numbers['manifest'] = manifest
            found[benchmark.name] = result
        return found

    return run


def about(c: config.Config, tables: abc.Sequence[store.Table]) -> dict:
    """How texts become embeddings, for the manifest; of the tokens of queries and documents."""
    encoder, data = c.encoder, c.data
    limits = data.query_length, data.passage_length
    lengths = [table.lengths for table in tables]
    return {
        'prefixes': [data.query_prefix, data.passage_prefix],
        'lengths': list(limits),
        # Texts that fill the limit: they were cut, or are exactly as long.
        'full': [int((x >= n).sum()) for x, n in zip(lengths, limits, strict=True)],
        'tokens': [int(x.sum()) for x in lengths],
        'encoder': dataclasses.asdict(encoder),
    }


def score(
    benchmark: benchmarks.Benchmark, queries, documents, mesh=None, depth: int = bias.LISTED[-1]
) -> Result:
    """Every number of a benchmark from its embeddings, and the `depth` best documents."""
    asked = benchmarks.asked(benchmark)
    found = search.search(
        queries,
        documents,
        benchmark.relevant,
        asked.corpus,
        min(depth, len(documents)),
        benchmark.excluded,
        mesh,
    )
    values = summary.values(asked, found.own, found.pooled)
    values.pooled.update(summary.listed(asked, queries, documents, found.top, benchmark.parallel))
    counts = {'queries': len(queries), 'documents': len(documents)}
    numbers = {'benchmark': benchmark.name, 'counts': counts} | summary.summarise(asked, values)
    return Result(benchmark, numbers, values, found.pooled, found.top)


def flat(results: dict[str, Result]) -> dict[str, float]:
    """{'xquad_r/multi.map': ...} of every macro-averaged number."""
    return {
        f'{name}/{setting}.{metric}': value
        for name, result in results.items()
        for setting, values in result.numbers['metrics'].items()
        for metric, value in values.items()
    }


def save(result: Result, folder: pathlib.Path, step: int) -> None:
    """Writes FOLDER/<benchmark>.json, and the values of every query beside it."""
    results.save(folder, result.benchmark, {'step': step} | result.numbers, result.values)


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


def write_run(result: Result, path: pathlib.Path) -> dict[str, float]:
    """Writes the pooled ranking as a TREC run as deep as it is, and its qrels beside it.

    Returns the numbers that trec_eval gives for these files: documents below that depth count as
    not found, which is why `map` can be a little lower than at full depth.
    """
    benchmark, depth = result.benchmark, result.top.shape[1]
    ids = benchmark.queries.ids, benchmark.documents.ids
    trec.write_run(path, *ids, result.top, 'hbt')
    trec.write_qrels(path.with_suffix('.qrels'), *ids, benchmark.relevant, benchmark.grades)
    ranks = np.where(result.ranks > depth, metrics.UNFOUND, result.ranks)
    return {
        'depth': depth,
        'map': metrics.mean(metrics.average_precision(ranks)),
        'mrr': metrics.mean(metrics.reciprocal_rank(ranks)),
        'recall@1': metrics.mean(metrics.recall(ranks, 1)),
        'recall@10': metrics.mean(metrics.recall(ranks, 10)),
    }


def subject(given) -> tuple[config.Config, tokenizers.Tokenizer, typing.Any, int, pathlib.Path]:
    """What is evaluated: (config, tokenizer, parameters, step, folder of results)."""
    replicated = sharding.replicated(sharding.make_mesh())
    if given.model:
        if given.workdir or not given.out:
            raise ValueError('--model: expected --out with it and no --workdir')
        model = pipeline.read(given.model)
        params = jax.device_put(model.params, replicated)
        return model.config, model.tokenizer, params, 0, pathlib.Path(given.out)
    if not given.workdir:
        raise ValueError('expected --workdir=DIR of a run, or --model=NAME, got neither')
    workdir = pathlib.Path(given.workdir)
    c = config.load(workdir / 'config.json')
    tokenizer = tokenizers.Tokenizer.from_file(str(workdir / 'tokenizer.json'))
    step, params = checkpoint.read(workdir, given.step, replicated)
    folder = pathlib.Path(given.out) if given.out else workdir / 'results' / str(step)
    return c, tokenizer, params, step, folder


def main(_) -> None:
    given = flags.FLAGS
    c, tokenizer, params, step, folder = subject(given)
    names = tuple(given.benchmark or c.eval.benchmarks)
    if not names:
        raise ValueError('--benchmark: expected at least one, got none')
    c.eval = dataclasses.replace(c.eval, benchmarks=names, root=given.data or c.eval.root)
    if given.run_file and len(names) != 1:
        raise ValueError(f'--run_file: expected one --benchmark, got {", ".join(names)}')
    found = make(c, tokenizer, sharding.make_mesh(), given.run_depth)(params)
    for result in found.values():
        result.numbers['model'] = given.model or given.workdir
        if given.run_file:
            numbers = write_run(result, pathlib.Path(given.run_file))
            result.numbers['run'] = {'file': given.run_file} | numbers
        save(result, folder, step)
        print(table(result.numbers, step))


if __name__ == '__main__':
    flags.DEFINE_string('workdir', None, 'directory of the run')
    flags.DEFINE_string('model', None, 'or: a model directory, or the name of one on the hub')
    flags.DEFINE_multi_string('benchmark', None, "repeatable; none: those of the run's config")
    flags.DEFINE_string('data', None, "folder of the benchmark's files; none: eval.root of the run")
    flags.DEFINE_string('out', None, 'where <benchmark>.json goes; none: WORKDIR/results/<step>')
    flags.DEFINE_string('step', 'latest', 'latest, best, or the number of a kept step')
    flags.DEFINE_string('run_file', None, 'writes the pooled ranking as a TREC run, .qrels beside')
    flags.DEFINE_integer('run_depth', bias.LISTED[-1], 'documents a query in the run file')
    log.program(main)
