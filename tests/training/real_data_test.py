"""Every way to compose a batch trains on real data, by a change of settings alone."""

import dataclasses

import numpy as np
import pytest

from configs import scratch_small
from hbt import config
from hbt.data import build
from hbt.sampling import sampler
from hbt.training import loop
from hbt.utils import log

FILES = ('lohelp', 'native_qa', 'lo_ui')
CHANGES = {
    'X-Y': ({'alpha': 0.0}, {('cross',)}),
    'hybrid': ({'alpha': 0.5}, {('mono',), ('cross',)}),
    'multitask': ({'kind': 'multitask'}, {('mono', 'cross')}),
}


@pytest.fixture(scope='module')
def stored(shared_data, tmp_path_factory):
    """The store of all training files, with XLM-R's tokenizer."""
    data = scratch_small.get_config().data
    data.tokenizer = str(shared_data / 'xlm-roberta-tokenizer')
    inputs = [str(shared_data / f'{name}.jsonl.gz') for name in FILES]
    out = tmp_path_factory.mktemp('real') / 'store'
    return build.build_store(data, out, inputs, processes=2)


@pytest.mark.slow
@pytest.mark.parametrize('name', CHANGES)
def test_every_composition_trains_on_real_data_by_its_settings_alone(stored, tmp_path, name):
    changes, kinds = CHANGES[name]
    c = scratch_small.get_config()
    small = {'hidden_dim': 16, 'num_layers': 1, 'num_heads': 2, 'mlp_dim': 32, 'max_positions': 130}
    c.encoder = dataclasses.replace(c.encoder, **small)
    c.sampler = dataclasses.replace(c.sampler, **changes)
    c.optim.warmup = 20
    c.steps, c.batch_size, c.log_every, c.ckpt_every = 200, 32, 10, 200
    c.data.root = str(stored.path)
    loop.train_config(config.check(c), tmp_path / 'run')
    losses = [x['loss'] for x in log.read_metrics(tmp_path / 'run/metrics.jsonl') if 'loss' in x]
    assert len(losses) == 20 and np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.2, losses
    drawn = sampler.Sampler(c, stored)
    assert {tuple(plan.kind for plan in drawn.plans(step)) for step in range(200)} == kinds
