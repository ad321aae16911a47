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

from hbt import config
from hbt.data import ragged, store, tokenization
from hbt.evaluation import aggregate, benchmarks, bias, debias, metrics, results, search, trec
from hbt.models import embedder, embedding_file, model_dir
from hbt.utils import sharding


class Result(typing.NamedTuple):
    """What one benchmark gave: the numbers, and what they were made of."""

    benchmark: benchmarks.Benchmark
    numbers: dict
    query_metrics: aggregate.QueryMetrics  # of every query
    ranks: np.ndarray  # q r; in the union of all corpora
    top_k: np.ndarray  # q k; the best documents


def load_benchmarks(c: config.Eval) -> list[benchmarks.Benchmark]:
    """The benchmarks of the config; ValueError where one cannot be read."""
    return [benchmarks.load_benchmark(name, c.root) for name in c.benchmarks]


class Keep(typing.NamedTuple):
    """Where embeddings are kept, so that an evaluation that is killed goes on."""

    folder: pathlib.Path
    about: dict  # what must be the same for that


def make_evaluation(
    c: config.Config,
    tokenizer: tokenizers.Tokenizer,
    mesh,
    loaded: abc.Sequence[benchmarks.Benchmark],
    depth: int = bias.SHARE_CUTOFFS[-1],
    removal: debias.Removal | None = None,
    keep: Keep | None = None,
) -> abc.Callable:
    """`run(params) -> {benchmark: Result}`.

    `depth`: how many of the best documents a result lists. `removal`: what is taken from the
    embeddings. `keep`: where these are, until they are not needed any more; else in memory.
    """
    embed_table = embedder.make_table_embedder(c, mesh)
    manifests = [results.make_manifest(x, about(c, removal)) for x in loaded]

    def encode(
        params, benchmark, manifest, side: str, prefix: str, limit: int
    ) -> embedding_file.Block:
        texts, what = getattr(benchmark, side), f'{benchmark.name} {side}'

        def blocks(done: int) -> abc.Iterator[embedding_file.Block]:
            for start in range(done, len(texts.ids), embedding_file.CHUNK):
                rows = slice(start, start + embedding_file.CHUNK)
                table, _ = tokenization.encode_texts(tokenizer, texts.texts[rows], prefix, limit)
                vectors = embed_table(params, table, what)
                if removal:
                    unit = c.encoder.normalise
                    vectors = debias.apply_removal(removal, vectors, texts.languages[rows], unit)
                yield embedding_file.Block(vectors, tally(table, limit))

        out, told = None, {}
        if keep:
            out = keep.folder / f'{results.file_stem(benchmark.name)}.{side}.npy'
            told = keep.about | {'content': manifest['content']}
        return embedding_file.fill_embeddings(blocks, len(texts.ids), out, told, what)

    def run(params) -> dict[str, Result]:
        found = {}
        for benchmark, manifest in zip(loaded, manifests, strict=True):
            sides = (
                ('queries', c.data.query_prefix, c.data.query_length),
                ('documents', c.data.passage_prefix, c.data.passage_length),
            )
            encoded = [encode(params, benchmark, manifest, *side) for side in sides]
            result = score_embeddings(benchmark, *(x.vectors for x in encoded), mesh, depth)
            told = {name: [x.counts[name] for x in encoded] for name in encoded[0].counts}
            told['parameters'] = sum(x.size for x in jax.tree.leaves(params))
            result.numbers['manifest'] = manifest | told
            found[benchmark.name] = result
        return found

    return run


def tally(table: ragged.TokenTable, limit: int) -> dict[str, int]:
    """Tokens, and texts that fill the limit: they were cut, or are exactly as long."""
    return {'tokens': int(table.lengths.sum()), 'full': int((table.lengths >= limit).sum())}


def about(c: config.Config, removal: debias.Removal | None) -> dict:
    """How texts become embeddings, for the manifest."""
    return {
        'prefixes': [c.data.query_prefix, c.data.passage_prefix],
        'lengths': [c.data.query_length, c.data.passage_length],
        'encoder': dataclasses.asdict(c.encoder),
        'debias': removal and removal.about,
    }


def score_embeddings(
    benchmark: benchmarks.Benchmark,
    queries,
    documents,
    mesh=None,
    depth: int = bias.SHARE_CUTOFFS[-1],
) -> Result:
    """Every number of a benchmark from its embeddings, and the `depth` best documents."""
    found = search.search(
        queries,
        documents,
        benchmark.relevant,
        benchmark.document_languages,
        min(depth, len(documents)),
        benchmark.excluded,
        mesh,
    )
    values = aggregate.compute_query_metrics(
        benchmark, found.per_language_ranks, found.pooled_ranks
    )
    values.pooled.update(
        aggregate.compute_top_k_metrics(benchmark, queries, documents, found.top_k)
    )
    counts = {'queries': len(queries), 'documents': len(documents)}
    numbers = {'benchmark': benchmark.name, 'counts': counts} | aggregate.aggregate_metrics(
        benchmark, values
    )
    return Result(benchmark, numbers, values, found.pooled_ranks, found.top_k)


def flatten_scores(results: dict[str, Result]) -> dict[str, float]:
    """{'xquad_r/multi.map': ...} of every macro-averaged number."""
    return {
        f'{name}/{setting}.{metric}': value
        for name, result in results.items()
        for setting, values in result.numbers['metrics'].items()
        for metric, value in values.items()
    }


def save_result(result: Result, folder: pathlib.Path, step: int) -> None:
    """Writes FOLDER/<benchmark>.json, and the values of every query beside it."""
    results.save_result(
        folder, result.benchmark, {'step': step} | result.numbers, result.query_metrics
    )


def format_result(numbers: dict, step: int) -> str:
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
    benchmark, depth = result.benchmark, result.top_k.shape[1]
    ids = benchmark.queries.ids, benchmark.documents.ids
    trec.write_run(path, *ids, result.top_k, 'hbt')
    trec.write_qrels(path.with_suffix('.qrels'), *ids, benchmark.relevant, benchmark.grades)
    ranks = np.where(result.ranks > depth, metrics.UNRANKED, result.ranks)
    return {
        'depth': depth,
        'map': metrics.mean_defined(metrics.average_precision(ranks)),
        'mrr': metrics.mean_defined(metrics.reciprocal_rank(ranks)),
        'recall@1': metrics.mean_defined(metrics.recall(ranks, 1)),
        'recall@10': metrics.mean_defined(metrics.recall(ranks, 10)),
    }


def fit_removal(
    kind: str,
    of: model_dir.Model,
    fingerprint: str,
    loaded: abc.Sequence[benchmarks.Benchmark],
    root: str | pathlib.Path,
    folder: pathlib.Path,
) -> debias.Removal:
    """What is removed from embeddings: fitted on texts of a store and saved, or read from a file.

    Args:
      kind: one of `debias.KINDS`, or a file debias.npz of an earlier call.
      of: the model, and its fingerprint.
      loaded: the benchmarks, whose languages are fitted.
      root: the store.
      folder: where debias.npz is saved, and taken from if it fits.
    """
    c, params, tokenizer = of
    path = pathlib.Path(kind)
    if path.suffix == '.npz':
        found = debias.load_removal(path)
        if found.about['model'] != fingerprint:
            raise ValueError(f'{path}: expected a fit for this model, got one for another')
        return found
    s = store.open_store(root)
    told = {'store': s.manifest['checksum'], 'model': fingerprint}
    sides = [side for x in loaded for side in (x.queries, x.documents)]
    languages = sorted({x for side in sides for x in side.languages})
    path = folder / 'debias.npz'
    if path.exists():  # of a call that was killed, or of one for other benchmarks
        found = debias.load_removal(path)
        same = all(found.about.get(key) == value for key, value in told.items())
        if same and found.about['kind'] == kind and {*languages} <= {*found.languages}:
            return found
    debias.check_store(s, c.data, tokenizer)
    embed_table = embedder.make_table_embedder(c, sharding.make_mesh())
    found = debias.fit_removal(
        kind, s, c.data, languages, lambda x: embed_table(params, x, 'training texts')
    )
    found = found._replace(about=found.about | told)
    debias.save_removal(found, path)
    return found
