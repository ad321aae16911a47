"""Evaluated runs without training: texts in many languages, embeddings from noise."""

import json
import math

import numpy as np

from hbt import config
from hbt.evaluation import benchmarks, evaluator, results
from hbt.models import encoder
from hbt.utils import log
from tests import tiny

ELEVEN = 'ar de el en es hi ru th tr vi zh'.split()


def make_benchmark(name='xquad_r', names=tuple(ELEVEN), questions=6, word='text'):
    """Parallel questions, one relevant document in every language, as many others."""
    queries, documents, qrels, parallel = [], [], {}, {}
    for language in names:
        for i in range(questions):
            query = f'q:{language}:{i}'
            queries.append(benchmarks.Entry(query, language, f'{word} {language} {i}'))
            documents.append(
                benchmarks.Entry(f'd:{language}:{i}', language, f'answer {language} {i}')
            )
            documents.append(
                benchmarks.Entry(f'e:{language}:{i}', language, f'other {language} {i}')
            )
            qrels[query] = {f'd:{x}:{i}': 1 for x in names}
            parallel[query] = str(i)
    return benchmarks.assemble(name, benchmarks.Collection(queries, documents, qrels, parallel))


def save_result(folder, case, noise=0.5, seed=0, step=6, **model):
    """Saves an evaluation of vectors that share a direction for each question, and noise."""
    meaning = np.random.default_rng(7).standard_normal((100, 16))
    generator = np.random.default_rng(seed)
    sides = []
    for side, kinds in ((case.queries, 'q'), (case.documents, 'd')):
        indices = [int(x.split(':')[2]) + 50 * (x[0] not in kinds) for x in side.ids]
        vectors = meaning[indices] + noise * generator.standard_normal((len(indices), 16))
        sides.append((vectors / np.linalg.norm(vectors, axis=1)[:, None]).astype(np.float32))
    result = evaluator.score_embeddings(case, *sides)
    texts = {'lengths': [16, 32], 'full': [0, 1]}
    result.numbers['manifest'] = results.make_manifest(case, texts | model)
    results.save_result(result, folder, step)
    return result


def make_run(folder, cases=None, noise=0.5, seed=0, alpha=0.5, groups=60, **changes):
    """A run's directory: settings, size of the data, log, and results of its last step."""
    folder.mkdir(parents=True)
    c = tiny.make(seed=seed, sampler=config.Sampler(alpha=alpha), **changes)
    c.encoder.vocab_size = 800
    config.save(c, folder / 'config.json')
    datasets = [{'name': 'made', 'sha256': f'{groups}', 'groups': groups}]
    (folder / 'data.json').write_text(json.dumps({'datasets': datasets}))
    metrics = log.MetricsWriter(folder, -1)
    for step in range(1, c.steps + 1):
        metrics.write(step, {'loss': 1 / step, 'lr': 1e-3, 'pairs_per_second': 100.0})
    parameters = sum(math.prod(shape) for shape in encoder.param_shapes(c.encoder).values())
    results_folder = folder / 'results' / str(c.steps)
    for case in cases or [make_benchmark()]:
        result = save_result(results_folder, case, noise, seed, c.steps, parameters=parameters)
        for step in (0, c.steps):
            metrics.write(step, evaluator.flatten_scores({case.name: result}))
    metrics.close()
    return folder
