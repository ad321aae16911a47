"""Real texts fill few shapes; memory grows as it should; the benchmarks measure what they say."""

import gzip
import itertools
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import memory, work
from hbt import config
from hbt.data import build, ragged
from hbt.sampling import batches, packing, sampler
from hbt.training import planning
from hbt.utils import sharding
from tests import ROOT


@pytest.mark.slow
def test_real_texts_fill_five_sixths_of_few_shapes_that_are_soon_known(shared_data, tmp_path):
    c = config.Config(batch_size=128)
    c.data.tokenizer = str(shared_data / 'xlm-roberta-tokenizer/tokenizer.json')
    part = tmp_path / 'part.jsonl'
    with gzip.open(shared_data / 'lohelp.jsonl.gz') as file:
        part.write_bytes(b''.join(itertools.islice(file, 0, None, 4)))
    s = build.build_store(c.data, tmp_path / 'store', [str(part)])
    drawn, width = sampler.Sampler(c, s), packing.row_width(c.data)
    looked = [planning.measure_batch(drawn, step) for step in range(400)]
    rows, tokens = (np.array(x) for x in zip(*(x[:2] for x in looked), strict=True))
    assert tokens.sum() / (rows.sum() * width) > 0.85
    assert len(set(rows)) <= 6
    assert len(set(rows[100:]) - set(rows[:100])) <= 1, (
        'compiled after the warm-up, but for the rarest'
    )


def test_the_memory_of_chunked_and_ring_grows_as_the_batch_that_of_gathered_as_its_square():
    mesh = sharding.make_mesh()
    growth = {
        kind: memory.loss_bytes(mesh, kind, 8192, 128) / memory.loss_bytes(mesh, kind, 2048, 128)
        for kind in ('gathered', 'chunked', 'ring')
    }
    assert growth['gathered'] > 6
    assert growth['chunked'] < 4.5 and growth['ring'] < 4.5, growth


@pytest.mark.slow
def test_the_table_of_memory_tells_what_splitting_saves():
    mesh, sizes = (
        sharding.make_mesh(),
        dict(hidden_dim=64, num_layers=3, num_heads=2, mlp_dim=256, vocab_size=512),
    )
    (whole, count), (split, _) = (
        memory.step_bytes(mesh, shard, 2, 32, **sizes) for shard in (False, True)
    )
    weights_and_moments = 3 * 4 * count
    assert split.argument_size_in_bytes < 0.3 * weights_and_moments
    assert split.argument_size_in_bytes < 0.5 * whole.argument_size_in_bytes
    assert whole.argument_size_in_bytes < 0.7 * weights_and_moments, 'moments of layers are split'


def told(*arguments):
    command = [sys.executable, '-m', 'benchmarks.train_step', *arguments]
    environment = os.environ | {'XLA_FLAGS': ''}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_without_a_gpu_the_benchmark_of_one_is_refused(tiny_store):
    done = told(f'--store={tiny_store.path}', '--device=gpu')
    assert done.returncode == 1 and 'expected a GPU that JAX can use, got cpu' in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize('cached', [0, 4])
def test_the_benchmark_races_hbt_and_a_peer_over_the_same_pairs(tiny_store, cached):
    pytest.importorskip('sentence_transformers')
    names = ['hbt float32', 'sentence-transformers float32', *['GradCache float32'] * bool(cached)]
    done = told(
        *(f'--store={tiny_store.path}', '--shape=tiny', '--turns=2', f'--cached={cached}'),
        f'--only={",".join(names)}',
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name in names:
        assert re.search(rf'^\| {name} \| [\d.]+ \(.*x \|', done.stdout, re.M), done.stdout


def test_the_peers_get_the_tokens_that_hbt_computes(tiny_store):
    task = work.task('tiny', tiny_store.path)
    tokens, (_, batch) = work.texts(task, 3), task.sampler.batch(3)
    plan = batches.collect_texts(
        task.config, tiny_store, task.sampler.languages, task.sampler.plans(3)
    )
    for cell in plan.columns:
        for row, text in zip(cell.pairs, cell.texts, strict=True):
            ids = ragged.truncate(ragged.token_ids(cell.table, text), cell.limit, None)
            assert len(tokens[cell.column][row]) == plan.lengths[0, row, cell.column]
            expected = work.cut(np.asarray(ids), task.config.encoder.vocab_size)
            np.testing.assert_array_equal(tokens[cell.column][row][: len(ids) - 1], expected[:-1])
    every = sum(len(x) for column in tokens for x in column)
    assert every == np.count_nonzero(batch.packed.segment_ids)
