"""What is planned is what the training run then does."""

import dataclasses
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from hbt import config
from hbt.sampling import sampler
from hbt.training import planning, run_dir, train_state
from hbt.utils import sharding
from tests import ROOT, tiny


def numbers(text):
    return [int(x.replace(',', '')) for x in re.findall(r'\d[\d,]*', text)]


@pytest.mark.parametrize('chunk', [0, 64])
def test_a_step_is_described_by_sizes_shapes_and_collectives(tiny_store, chunk):
    c, mesh = tiny.get_config(), sharding.make_mesh(jax.devices()[:2])
    c.encoder = dataclasses.replace(c.encoder, chunk=chunk)
    c.batch_size = 16
    c = run_dir.resolve_config(c, tiny_store, mesh)
    s = sampler.Sampler(c, tiny_store, 2)
    lines = dict(re.findall(r'^(\S.*?)  +(.*)$', planning.describe_step(c, s, mesh), re.M))
    state = train_state.init_state(c, mesh)
    assert numbers(lines['parameters']) == [sum(x.size for x in jax.tree.leaves(state.params))]
    assert lines['devices'] == '2 x cpu'
    made = [s.batch(i)[1].packed for i in range(c.steps)]
    shapes = sorted({len(x.tokens) // 2 for x in made})
    assert numbers(lines['shapes']) == [len(shapes), *shapes, 32]
    real = np.mean([np.count_nonzero(x.segment_ids) for x in made])
    rows = [-(-len(x.tokens) // 2 // 2) * 2 if chunk else len(x.tokens) // 2 for x in made]
    expected = [round(real), round(np.mean(rows) * 2 * 32)]
    np.testing.assert_allclose(numbers(lines['tokens a step']), expected, atol=1)
    state_bytes = sum(x.nbytes for x in jax.tree.leaves(state))
    assert state_bytes < numbers(lines['bytes a device'])[0]
    assert '1 all-reduce' in lines['collectives']
    text = planning.describe_step(c, s, mesh, compile=False)
    assert 'parameters' in text and 'collectives' not in text and 'bytes' not in text
    mono = numbers(lines['mono epoch'])
    assert mono[0] == sum(x.size for x in s.mixtures['mono'].pools)
    assert mono[1] == round(mono[0] / (16 * c.sampler.alpha))


def run(root, *flags):
    command = [sys.executable, '-m', 'hbt.plan', 'tests/tiny.py', f'--config.data.root={root}']
    environment = os.environ | {'JAX_PLATFORMS': 'cpu'}
    return subprocess.run(
        [*command, *flags], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.mark.slow
def test_the_program_prints_proportions_and_the_step_and_writes_nothing_else(tiny_store, tmp_path):
    done = run(tiny_store.path, '--drawn=5', f'--out={tmp_path}/plan')
    assert done.returncode == 0, done.stderr
    assert 'planned %' in done.stdout and 'FLOPs a step' in done.stdout
    assert 'bytes a device' in done.stdout and 'collectives' in done.stdout
    names = {'proportions.tsv', 'proportions.png'}
    assert {x.name for x in (tmp_path / 'plan').iterdir()} == names
    lines = (tmp_path / 'plan/proportions.tsv').read_text().splitlines()
    assert sum(int(line.split('\t')[-1]) for line in lines[1:]) == 5 * 8
    missing = run(tmp_path / 'none')
    assert missing.returncode == 2 and f'{tmp_path}/none' in missing.stderr
    assert [x.name for x in tmp_path.iterdir()] == ['plan']


def test_the_program_prints_the_batch_of_a_step(tiny_store):
    done = run(tiny_store.path, '--step=3')
    assert done.returncode == 0, done.stderr
    batches = sampler.Sampler(tiny.get_config(), tiny_store)
    assert done.stdout.splitlines() == list(sampler.describe_batch(batches, 3))


def test_weights_that_are_split_take_less_of_a_device(tiny_store):
    totals = []
    for shard in (False, True):
        c, mesh = tiny.get_config(), sharding.make_mesh(jax.devices()[:4])
        c.shard_params, c.batch_size = shard, 16
        c = run_dir.resolve_config(config.check(c), tiny_store, mesh)
        s = sampler.Sampler(c, tiny_store, 4)
        memory = planning.compile_step(c, mesh, s.batch(0)[1]).memory_analysis()
        totals.append(memory.argument_size_in_bytes)
    assert totals[1] < 0.5 * totals[0]
