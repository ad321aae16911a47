"""Evaluations that are killed and resumed, on the embedded data."""

import dataclasses
import itertools
import math

import jax
import numpy as np
import pytest
import tokenizers

from hbt import config
from hbt.data import tokenization
from hbt.data.readers import synthetic
from hbt.evaluation import benchmarks, evaluator
from hbt.models import embedding_file, encoder
from hbt.utils import sharding
from tests import tiny


@pytest.fixture(scope='session')
def evaluate(tiny_store):
    """`evaluate(cache, change)`: an untrained model, its parameters changed, on 440 questions."""
    c = tiny.get_config()
    tokenizer = tokenizers.Tokenizer.from_file(str(tiny_store.path / 'tokenizer.json'))
    c.encoder = dataclasses.replace(c.encoder, vocab_size=800)
    c.eval = config.Eval(benchmarks=('cldr',), batch_size=64)
    mesh = sharding.make_mesh()
    params = encoder.init_params(c.encoder, jax.random.key(0))
    params = jax.device_put(params, sharding.replicated(mesh))
    suite = [small()]

    def evaluate(cache=None, change=lambda x: x):
        run = evaluator.make_evaluation(c, tokenizer, mesh, suite, cache=cache)
        return run(jax.tree.map(change, params))['small']

    return evaluate


def small():
    queries, documents, qrels, parallel = [], [], {}, {}
    for group in synthetic.groups('test', 40):
        for x in synthetic.LANGUAGES:
            query = f'q:{x}:{group["id"]}'
            queries.append(benchmarks.Entry(query, x, group['query'][x]))
            documents.append(benchmarks.Entry(f'd{query[1:]}', x, group['passage'][x]))
            qrels[query] = {f'd:{y}:{group["id"]}': 1 for y in synthetic.LANGUAGES}
            parallel[query] = group['id']
    return benchmarks.assemble('small', benchmarks.Collection(queries, documents, qrels, parallel))


@pytest.mark.slow
def test_an_evaluation_that_is_killed_is_resumed(evaluate, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_file, 'CHUNK', 128)
    expected = evaluate()
    cache = tmp_path / 'embeddings'
    calls, encode_texts = itertools.count(), tokenization.encode_texts

    def interrupted(*args):
        if next(calls) == 6:  # 4 blocks of queries, and 2 of documents, are done
            raise KeyboardInterrupt
        return encode_texts(*args)

    monkeypatch.setattr(tokenization, 'encode_texts', interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(cache)
    partial = np.load(tmp_path / 'embeddings/small.documents.partial.npy', mmap_mode='r')
    assert len(partial) == 440 and partial[:256].any(axis=1).all() and not partial[256:].any()
    with pytest.raises(
        ValueError, match=r"model: expected '\w{64}', with which .* began, got '\w{64}'"
    ):
        evaluate(cache, lambda x: x + 1)
    before = next(calls)
    result = evaluate(cache)
    assert next(calls) - before == 3  # the other 2 blocks of documents alone
    assert result.numbers == expected.numbers
    shapes = encoder.param_shapes(dataclasses.replace(tiny.get_config().encoder, vocab_size=800))
    count = sum(math.prod(shape) for shape in shapes.values())
    assert result.numbers['manifest']['parameters'] == count
    for name, values in expected.query_metrics.pooled.items():
        np.testing.assert_array_equal(result.query_metrics.pooled[name], values)
    before = next(calls)
    assert evaluate(cache).numbers == expected.numbers  # killed after the encoding
    assert next(calls) - before == 1


def test_embeddings_of_other_documents_are_refused(evaluate, tmp_path, monkeypatch):
    cache = tmp_path / 'embeddings'
    evaluate(cache)
    record = embedding_file.record_path(cache / 'small.documents.npy')
    record.write_text(record.read_text().replace('"content": "', '"content": "0'))
    with pytest.raises(ValueError, match='small.documents.progress.json: content: expected'):
        evaluate(cache)
