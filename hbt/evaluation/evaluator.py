"""Evaluates a model on benchmarks: texts, embeddings, exact search, metrics, averages."""

import dataclasses
import pathlib
import shutil
from collections import abc

import jax
import numpy as np
import tokenizers
from jaxtyping import Float

from hbt import config
from hbt.data import tokenization
from hbt.evaluation import (
    aggregate,
    benchmarks,
    bias,
    debias,
    metrics,
    results,
    samples,
    search,
    trec,
)
from hbt.models import embedder, embedding_file, model_dir
from hbt.utils import log, sharding, text_table

DEPTH = bias.SHARE_CUTOFFS[-1]  # documents of a ranking that are listed
COLUMNS = {  # of the console's table -> setting and metric
    'mono mAP': ('mono', 'map'),
    'mono R@1': ('mono', 'recall@1'),
    'cross mAP': ('cross', 'map'),
    'cross R@1': ('cross', 'recall@1'),
    'multi mAP': ('multi', 'map'),
    'multi R@10': ('multi', 'recall@10'),
    'multi distance': ('multi', 'rank_distance'),
}


def load_benchmarks(c: config.Eval) -> list[benchmarks.Benchmark]:
    """The benchmarks of the config; ValueError where one cannot be read."""
    result = []
    for name in c.benchmarks:
        with log.activity(f'reading {name}'):
            result.append(benchmarks.load_benchmark(name, c.root))
    return result


def check_best(c: config.Eval, suite: abc.Sequence[benchmarks.Benchmark]) -> None:
    """ValueError if no evaluation of the first benchmark can have the metric `eval.best`."""
    if c.best == 'loss':
        return
    for benchmark in suite[:1]:
        languages, own = benchmark.relevant_languages, benchmark.query_languages[:, None]
        is_there = {'mono': languages == own, 'cross': (languages >= 0) & (languages != own)}
        settings = [name for name, mask in is_there.items() if mask.any()] + ['multi']
        if c.best.partition('.')[0] not in settings:
            raise ValueError(
                f'eval.best: expected a metric of {" or ".join(settings)}, for which '
                f'{benchmark.name} has relevant documents, got {c.best}'
            )


def evaluate_model(
    model: model_dir.Model,
    suite: abc.Sequence[benchmarks.Benchmark],
    folder: pathlib.Path,
    step: int,
    name: str,
    removal: debias.Removal | None = None,
    run_file: str | None = None,
    depth: int = DEPTH,
) -> None:
    """Saves and prints the results of a model, whose parameters are on all devices.

    Results are saved in `folder`, where the embeddings are until then: a call that was killed is
    resumed. They state the training `step` and the `name` of the model. `removal` is applied to the
    embeddings. `run_file` is the TREC run to write, of the `depth` best documents.
    """
    cache = folder / 'embeddings'
    evaluate = make_evaluation(
        model.config, model.tokenizer, sharding.make_mesh(), suite, depth, removal, cache
    )
    for benchmark, result in zip(suite, evaluate(model.params).values(), strict=True):
        result.numbers['model'] = name
        with log.activity(f'{benchmark.name}: writing the results'):
            if run_file:
                scores = write_run(benchmark, result.ranking, pathlib.Path(run_file))
                result.numbers['run'] = {'file': run_file} | scores
            results.save_result(result, folder, step)
        print(format_result(result.numbers, step))
        print(folder / f'{results.file_stem(benchmark.name)}.json')
        if run_file:
            print(run_file)
    shutil.rmtree(cache)


def make_evaluation(
    c: config.Config,
    tokenizer: tokenizers.Tokenizer,
    mesh: jax.sharding.Mesh,
    suite: abc.Sequence[benchmarks.Benchmark],
    depth: int = DEPTH,
    removal: debias.Removal | None = None,
    cache: pathlib.Path | None = None,
) -> abc.Callable:
    """Returns `evaluate(params) -> {benchmark's name: Result}`.

    A result lists the `depth` best documents. `removal` is applied to the embeddings, which are in
    the folder `cache`, from which a call that was killed resumes, or in memory without one.
    """
    embed_table = embedder.make_table_embedder(c, mesh)
    prefixes = [c.data.query_prefix, c.data.passage_prefix]
    lengths = [c.data.query_length, c.data.passage_length]
    encoding = {'prefixes': prefixes, 'lengths': lengths, 'encoder': dataclasses.asdict(c.encoder)}
    encoding['debias'] = removal and removal.manifest
    manifests = [results.make_manifest(x, encoding) for x in suite]

    def embed_side(params, benchmark, settings, side, prefix, limit) -> embedding_file.Block:
        columns, label = getattr(benchmark, side), f'{benchmark.name} {side}'
        count, size = len(columns.ids), embedding_file.CHUNK

        def embed_blocks(start: int) -> abc.Iterator[embedding_file.Block]:
            for i in range(start, count, size):
                texts, codes = columns.texts[i : i + size], columns.languages[i : i + size]
                table, _ = tokenization.encode_texts(tokenizer, texts, prefix, limit)
                names = columns.ids[i : i + size]
                vectors = embed_table(params, table, label, lambda k, x=names: f'{label}: {x[k]}')
                if removal:
                    vectors = debias.apply_removal(removal, vectors, codes, c.encoder.normalise)
                full = table.lengths >= limit  # these are truncated, or exactly as long
                counts = {'tokens': int(table.lengths.sum()), 'full': int(full.sum())}
                yield embedding_file.Block(vectors, counts)

        path = cache and cache / f'{results.file_stem(benchmark.name)}.{side}.npy'
        return embedding_file.fill_embeddings(embed_blocks, count, path, settings, label)

    def evaluate(params) -> dict[str, results.Result]:
        evaluated, settings = {}, {}
        if cache:
            settings['model'] = embedder.fingerprint(model_dir.Model(c, params, tokenizer))
        for benchmark, manifest in zip(suite, manifests, strict=True):
            settings |= {name: manifest[name] for name in ('content', 'debias')}
            sides = zip(('queries', 'documents'), prefixes, lengths, strict=True)
            blocks = [embed_side(params, benchmark, settings, *side) for side in sides]
            with log.activity(f'{benchmark.name}: search and metrics'):
                result = score_embeddings(benchmark, *(x.vectors for x in blocks), mesh, depth)
            counts = {name: [x.counts[name] for x in blocks] for name in blocks[0].counts}
            counts['parameters'] = sum(x.size for x in jax.tree.leaves(params))
            result.numbers['manifest'] = manifest | counts
            evaluated[benchmark.name] = result
        return evaluated

    return evaluate


def score_embeddings(
    benchmark: benchmarks.Benchmark,
    queries: Float[np.ndarray, 'q d'],
    documents: Float[np.ndarray, 'n d'],
    mesh: jax.sharding.Mesh | None = None,
    depth: int = DEPTH,
) -> results.Result:
    """Every metric of a benchmark, and each query's `depth` best documents, from embeddings."""
    languages, missing = benchmark.document_languages, benchmark.relevant == benchmarks.MISSING
    relevant = np.where(missing, -1, benchmark.relevant)
    q, n = len(queries), len(documents)
    ranking = search.search(
        queries, documents, relevant, languages, min(depth, n), benchmark.excluded, mesh
    )
    names = 'per_language_ranks', 'pooled_ranks'
    ranks = [np.where(missing, np.int32(metrics.UNRANKED), getattr(ranking, x)) for x in names]
    ranking = ranking._replace(**dict(zip(names, ranks, strict=True)))
    values = aggregate.compute_query_metrics(benchmark, *ranks)
    best = aggregate.compute_top_k_metrics(benchmark, queries, documents, ranking.top_k)
    values.pooled.update(best)
    numbers = {'benchmark': benchmark.name, 'counts': {'queries': q, 'documents': n}}
    numbers |= aggregate.aggregate_metrics(benchmark, values)
    groups = np.arange(q) + q  # above those of translations
    if benchmark.parallel is not None:
        groups = np.where(benchmark.parallel >= 0, benchmark.parallel, groups)
    columns = benchmark.queries.ids, benchmark.languages, benchmark.query_languages, groups
    sample = samples.draw_sample(benchmark, groups, queries, documents)
    return results.Result(numbers, *columns, values, ranking, sample)


def flatten_scores(evaluated: dict[str, results.Result]) -> dict[str, float]:
    """{'xquad_r/multi.map': ...} of every macro-averaged number."""
    return {
        f'{name}/{setting}.{metric}': value
        for name, result in evaluated.items()
        for setting, values in result.numbers['metrics'].items()
        for metric, value in values.items()
    }


def format_result(numbers: dict, step: int) -> str:
    """The three settings per query language and in the mean, as text."""
    rows = []
    for language, settings in (numbers['languages'] | {'mean': numbers['metrics']}).items():
        values = (settings.get(x, {}).get(metric) for x, metric in COLUMNS.values())
        cells = (None if x is None else f'{x:.{1 if x > 1 else 4}f}' for x in values)
        rows.append([language, *cells])
    counts = '{queries} queries, {documents} documents'.format_map(numbers['counts'])
    notes = {name: numbers.get('manifest', {}).get(name, 0) for name in results.EXCEPTIONS}
    counts += ''.join(f', {count} {name}' for name, count in notes.items() if count)
    table = text_table.format_table(['query', *COLUMNS], rows)
    return f'{numbers["benchmark"]} at step {step}: {counts}\n{table}'


def write_run(
    benchmark: benchmarks.Benchmark, ranking: search.SearchResult, path: pathlib.Path
) -> dict[str, float | int]:
    """Writes the best documents of the pooled ranking as a TREC run, and its qrels beside it.

    Returns trec_eval's scores of these: `map` can be lower than that of the complete ranking.
    """
    depth = ranking.top_k.shape[1]
    queries, documents = benchmark.queries.ids, benchmark.documents.ids
    trec.write_run(path, queries, documents, ranking.top_k, 'hbt')
    relevant, judged = benchmark.relevant.copy(), [*documents, *benchmark.missing]
    relevant[relevant == benchmarks.MISSING] = np.arange(len(documents), len(judged))
    trec.write_qrels(path.with_suffix('.qrels'), queries, judged, relevant, benchmark.grades)
    ranks = np.where(ranking.pooled_ranks > depth, metrics.UNRANKED, ranking.pooled_ranks)
    names = 'map', 'mrr', 'recall@1', 'recall@10'
    scores = {name: metrics.mean_defined(metrics.METRICS[name](ranks)) for name in names}
    return {'depth': depth} | scores
