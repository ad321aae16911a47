"""What is told before a run is what the run then does; nothing is written."""

import dataclasses
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from hbt import config
from hbt.data import build
from hbt.sampling import sampler
from hbt.training import dry_run, run_dir, train_state
from hbt.utils import sharding
from tests import ROOT, tiny


@pytest.fixture(scope='module')
def stored(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'store'
    c = tiny.get_config()
    return build.build_store(c.data, root, c.data.sources)


def numbers(text):
    return [int(x.replace(',', '')) for x in re.findall(r'\d[\d,]*', text)]


@pytest.mark.parametrize('chunk', [0, 64])
def test_the_report_tells_sizes_shapes_and_collectives(stored, chunk):
    c, mesh = tiny.get_config(), sharding.make_mesh(jax.devices()[:2])
    c.encoder = dataclasses.replace(c.encoder, chunk=chunk)
    c.batch_size = 16
    c = run_dir.resolve(c, stored, mesh)
    s = sampler.Sampler(c, stored, 2)
    lines = dict(re.findall(r'^(\S.*?)  +(.*)$', dry_run.report(c, s, mesh), re.M))
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
    held = sum(x.nbytes for x in jax.tree.leaves(state))
    assert held < numbers(lines['bytes a device'])[0]
    assert '1 all-reduce' in lines['collectives']
    mono = numbers(lines['mono epoch'])
    assert mono[0] == sum(x.size for x in s.mixtures['mono'].pools)
    assert mono[1] == round(mono[0] / (16 * c.sampler.alpha))


def test_the_program_prints_it_and_writes_nothing(stored, tmp_path):
    def told(root):
        command = [sys.executable, '-m', 'hbt.main', '--config=tests/tiny.py', '--dry_run']
        command += [f'--config.data.root={root}', f'--workdir={tmp_path}/run']
        environment = os.environ | {'JAX_PLATFORMS': 'cpu'}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    done = told(stored.path)
    assert done.returncode == 0, done.stderr
    assert 'planned %' in done.stdout and 'FLOPs a step' in done.stdout
    missing = told(tmp_path / 'none')
    assert missing.returncode == 2 and f'{tmp_path}/none' in missing.stderr
    assert not list(tmp_path.iterdir())


def test_weights_that_are_split_take_less_of_a_device(stored):
    totals = []
    for shard in (False, True):
        c, mesh = tiny.get_config(), sharding.make_mesh(jax.devices()[:4])
        c.shard_params, c.batch_size = shard, 16
        c = run_dir.resolve(config.check(c), stored, mesh)
        s = sampler.Sampler(c, stored, 4)
        memory = dry_run.compile_step(c, mesh, s.batch(0)[1]).memory_analysis()
        totals.append(memory.argument_size_in_bytes)
    assert totals[1] < 0.5 * totals[0]
