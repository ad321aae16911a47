"""Time and memory of the search: XQuAD-R's size with every metric, and a corpus on disk.

python -m benchmarks.search --part=evaluation     from embeddings to every number, against argsort
python -m benchmarks.search --part=disk           a million documents in a file, against the product
python -m benchmarks.search --part=resident       one query among a million documents on the devices

The contestants run in turn, ROUNDS times; medians and their ratios are printed.
"""

import argparse
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

ROUNDS = 3
LANGUAGES, QUESTIONS, DOCUMENTS, DIM = 11, 1190, 13014, 768  # as XQuAD-R
SAMPLE = 119  # queries that argsort ranks; its time is extrapolated to all


def embeddings(generator: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = generator.standard_normal(shape, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def xquad_like():
    """A benchmark of XQuAD-R's size, with query embeddings near those of the answers."""
    from hbt.evaluation import benchmarks

    generator = np.random.default_rng(0)
    names = 'ar de el en es hi ru th tr vi zh'.split()
    spread = generator.integers(0, DOCUMENTS // LANGUAGES, QUESTIONS)  # sentences are shared
    parts = np.array_split(np.arange(DOCUMENTS), LANGUAGES)
    answers = np.array([part[spread] for part in parts]).T  # g c
    relevant = np.tile(answers, (LANGUAGES, 1)).astype(np.int32)
    documents = embeddings(generator, DOCUMENTS, DIM)
    query_languages = [x for x in names for _ in range(QUESTIONS)]
    queries = embeddings(generator, len(query_languages), DIM) + documents[relevant[:, 0]]
    ids = [f'q:{x}:{i % QUESTIONS}' for i, x in enumerate(query_languages)]
    corpus = [x for x, part in zip(names, parts, strict=True) for _ in part]
    texts = [f'd:{i:05}' for i in range(DOCUMENTS)][::-1]
    parallel = np.arange(len(query_languages), dtype=np.int32) % QUESTIONS
    return (
        benchmarks.Benchmark(
            'xquad_r',
            benchmarks.TextColumns(ids, query_languages, ids),
            benchmarks.TextColumns(texts, corpus, texts),
            names,
            np.searchsorted(names, query_languages).astype(np.int32),
            np.searchsorted(names, corpus).astype(np.int32),
            relevant,
            parallel=parallel,
        ),
        queries.astype(np.float32),
        documents,
    )


def argsort_seconds(benchmark, queries, documents, count: int) -> float:
    """Seconds of numpy and trec_eval for `count` queries: the pool, and each corpus alone."""
    import pytrec_eval

    start = time.perf_counter()
    languages = np.array(benchmark.documents.languages)
    ids = np.array(benchmark.documents.ids)
    measures = {'map', 'recip_rank', 'recall.1,5,10,100', 'ndcg_cut.10', 'Rprec', 'success.1,10'}
    pools = [np.arange(len(ids)), *(np.flatnonzero(languages == x) for x in np.unique(languages))]
    chosen = np.linspace(0, len(queries) - 1, count).astype(int)
    for pool in pools:
        run, qrels = {}, {}
        scores = queries[chosen] @ documents[pool].T
        order = np.argsort(-scores, axis=1)
        for row, ranking, row_scores in zip(chosen, order, scores, strict=True):
            name = benchmark.queries.ids[row]
            run[name] = dict(zip(ids[pool[ranking]], row_scores[ranking].tolist(), strict=True))
            qrels[name] = {ids[d]: 1 for d in np.intersect1d(benchmark.relevant[row], pool)}
        pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
    return time.perf_counter() - start


def evaluation() -> None:
    from hbt.evaluation import evaluator

    benchmark, queries, documents = xquad_like()
    start = time.perf_counter()
    evaluator.score_embeddings(benchmark, queries, documents)  # compiles
    first = time.perf_counter() - start
    product = jax.jit(
        lambda q, d: jax.lax.map(lambda x: jnp.matmul(x, d.T, precision='highest').max(axis=1), q)
    )
    blocks = queries.reshape(QUESTIONS, LANGUAGES, DIM)[: QUESTIONS // 10 * 10]
    blocks = blocks.reshape(-1, LANGUAGES * 17, DIM)
    ours, theirs, bare = [], [], []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        evaluator.score_embeddings(benchmark, queries, documents)
        ours.append(time.perf_counter() - start)
        theirs.append(
            argsort_seconds(benchmark, queries, documents, SAMPLE) * len(queries) / SAMPLE
        )
        start = time.perf_counter()
        jax.block_until_ready(product(blocks, documents))
        bare.append(time.perf_counter() - start)
    a, b, c = map(statistics.median, (ours, theirs, bare))
    print(f'every number of {len(queries)} queries, {DOCUMENTS} documents, {DIM} dimensions')
    print(f'hbt                    {a:8.2f} s  ({", ".join(f"{x:.2f}" for x in ours)})')
    print(f'its first call         {first:8.2f} s, of which {max(0.0, first - a):.2f} s compiling')
    print(f'the bare product       {c:8.2f} s  hbt takes {a / c:.2f} x')
    print(f'argsort and trec_eval  {b:8.2f} s  from {SAMPLE} queries; hbt is {b / a:.0f} x faster')


def write_corpus(path: pathlib.Path, count: int, dim: int) -> None:
    """Random unit vectors, written in pieces."""
    out = np.lib.format.open_memmap(path, 'w+', np.float32, (count, dim))
    generator = np.random.default_rng(0)
    for start in range(0, count, 50_000):
        out[start : start + 50_000] = embeddings(generator, min(50_000, count - start), dim)
    out.flush()


def on_disk(path: pathlib.Path, num_queries: int) -> None:
    """One search of a file, in a process of its own: prints seconds, product's, peak in MiB."""
    from hbt.evaluation import search

    documents = np.load(path, mmap_mode='r')
    count, dim = documents.shape
    generator = np.random.default_rng(1)
    queries = embeddings(generator, num_queries, dim)
    answers = generator.geometric(0.45, num_queries).clip(1, 8)  # about two, as MIRACL
    relevant = np.full((num_queries, answers.max()), -1, np.int32)
    for row, n in zip(relevant, answers, strict=True):
        row[:n] = np.sort(generator.permutation(count)[:n])
    corpus = np.zeros(count, np.int32)
    search.search(
        queries, documents[:100_000].copy(), np.minimum(relevant, 99_999), corpus[:100_000], 100
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.perf_counter()
    search.search(queries, documents, relevant, corpus, 100)
    ours = time.perf_counter() - start
    peak = max(peak, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    block = np.array(documents[: min(count, search.DEVICE_DOCUMENTS)])
    product = jax.jit(lambda q, d: jnp.matmul(q, d.T, precision='highest'))
    jax.block_until_ready(product(queries, block))
    start = time.perf_counter()
    for _ in range(max(1, count // len(block))):
        jax.block_until_ready(product(queries, block))
    bare = (time.perf_counter() - start) * count / (max(1, count // len(block)) * len(block))
    print(f'{ours} {bare} {peak}')


def disk(folder: str | None, dim: int = 384, num_queries: int = 1000) -> None:
    print(f'{num_queries} queries, {dim} dimensions, ranks of the relevant and the best 100')
    print(' documents   hbt s  product s   ratio  us/document  peak MiB')
    with tempfile.TemporaryDirectory(dir=folder) as corpus_dir:
        for count in (100_000, 300_000, 1_000_000):
            path = pathlib.Path(corpus_dir, f'{count}.npy')
            write_corpus(path, count, dim)
            command = [sys.executable, '-m', 'benchmarks.search', f'--file={path}']
            rows = []
            for _ in range(ROUNDS):
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                rows.append([float(x) for x in output.split()])
            ours, bare, peak = (statistics.median(x) for x in zip(*rows, strict=True))
            ratio = statistics.median(row[0] / row[1] for row in rows)
            each = ours / count * 1e6
            print(f'{count:>10} {ours:7.2f} {bare:10.2f} {ratio:7.2f} {each:12.2f} {peak:9.0f}')
            path.unlink()


def resident_documents(folder: str | None, count: int = 1_000_000, dim: int = 384) -> None:
    """Seconds of the answers of `hbt.search`, without those to embed the query."""
    from hbt.serving import resident

    with tempfile.TemporaryDirectory(dir=folder) as corpus_dir:
        path = pathlib.Path(corpus_dir, 'embeddings.npy')
        write_corpus(path, count, dim)
        start = time.perf_counter()
        codes = np.arange(count, dtype=np.int32) % LANGUAGES
        documents = resident.put_documents(np.load(path, mmap_mode='r'), codes)
        jax.block_until_ready(documents.embeddings)
        print(
            f'{count} documents of {dim} dimensions: {time.perf_counter() - start:.2f} s to start'
        )
        product = jax.jit(
            lambda q, d: jax.lax.map(lambda x: jnp.matmul(q, x.T, precision='highest').max(), d)
        )
        print('queries  languages  first s  median s  product s')
        for num_queries, allowed in ((1, LANGUAGES), (1, 2), (64, LANGUAGES)):
            queries = embeddings(np.random.default_rng(1), num_queries, dim)
            mask = [i < allowed for i in range(LANGUAGES)]
            seconds, bare = [], []
            for _ in range(2 * ROUNDS + 1):
                start = time.perf_counter()
                resident.find_best(queries, documents, 10, mask)
                seconds.append(time.perf_counter() - start)
                start = time.perf_counter()
                jax.block_until_ready(product(queries, documents.embeddings))
                bare.append(time.perf_counter() - start)
            a, b = statistics.median(seconds[1:]), statistics.median(bare[1:])
            print(f'{num_queries:>7} {allowed:>10} {seconds[0]:>8.2f} {a:>9.3f} {b:>10.3f}')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--part', choices=('evaluation', 'disk', 'resident'), default='evaluation')
    parser.add_argument('--folder', help='where the corpora are written; they take 2 GB')
    parser.add_argument('--file', type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.file:
        on_disk(args.file, 1000)
    elif args.part == 'disk':
        disk(args.folder)
    elif args.part == 'resident':
        resident_documents(args.folder)
    else:
        evaluation()
