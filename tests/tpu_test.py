"""Every setting compiles for TPUs, by the TPU's own compiler; each in a process of its own.

`python -m tests.tpu_test step v5e-8 encoder.remat=layer` compiles one and prints what it takes.
"""

import collections
import json
import os
import re
import subprocess
import sys

import pytest

from tests import ROOT

pytestmark = pytest.mark.slow
WIDTH = 208  # of a packed row, and no other size
BFLOAT16 = 'encoder.dtype=bfloat16'
STEPS = {
    'bfloat16': ('v5e-8', BFLOAT16),
    'float32': ('v5e-8',),
    'on v6e': ('v6e-8', BFLOAT16),
    'on v5p': ('v5p-16', BFLOAT16),
    'on v4': ('v4-16', BFLOAT16),
    'without dropout': ('v5e-8', BFLOAT16, 'encoder.dropout=0', 'encoder.attention_dropout=0'),
    'chunked loss': ('v5e-8', BFLOAT16, 'loss.kind=chunked', 'loss.chunk=24'),
    'ring loss': ('v5e-8', BFLOAT16, 'loss.kind=ring', 'loss.chunk=24'),
    'gradient caching': ('v5e-8', BFLOAT16, 'encoder.chunk=416'),
    'cheap recomputation': ('v5e-8', BFLOAT16, 'encoder.remat=cheap'),
    'recomputed layers': ('v6e-8', BFLOAT16, 'encoder.remat=layer'),
    'caching, recomputed layers': ('v5e-8', 'encoder.chunk=416', 'encoder.remat=layer'),
    'split parameters': ('v5e-8', BFLOAT16, 'shard_params=true'),
    'split, cached': ('v5p-16', BFLOAT16, 'shard_params=true', 'encoder.chunk=416'),
    'multitask, learned': ('v5e-8', BFLOAT16, 'sampler.kind=multitask', 'loss.learned=true'),
    'hard negatives': ('v5e-8', BFLOAT16, 'sampler.negatives=2', 'loss.negatives=hard'),
    'pmap': ('v5e-8', BFLOAT16, 'mapping=pmap'),
    'symmetric': ('v5e-8', BFLOAT16, 'loss.symmetric=true'),
    'bert, cls, projection': (
        *('v5e-8', BFLOAT16, 'encoder.family=bert', 'encoder.pooling=cls'),
        *('encoder.projection_dim=128', 'encoder.activation=gelu_new'),
    ),
    'norm before, heads of 80': (
        *('v5e-8', BFLOAT16, 'encoder.norm=pre', 'encoder.hidden_dim=160', 'encoder.num_heads=2'),
    ),
}


def make_config(name, *overrides):
    """(config, mesh) of a small encoder on a slice."""
    from hbt import config
    from hbt.utils import sharding, slices

    sizes = dict(hidden_dim=128, num_layers=2, num_heads=2, mlp_dim=384, vocab_size=1000)
    c = config.Config(encoder=config.Encoder(**sizes))
    for key, value in (text.split('=') for text in overrides):
        section, _, field = key.rpartition('.')
        part = getattr(c, section) if section else c
        old = getattr(part, field)
        setattr(part, field, value == 'true' if isinstance(old, bool) else type(old)(value))
    mesh = sharding.make_mesh(slices.make_devices(slices.find_slice(name)))
    return config.check(c), mesh


def compile_step(c, mesh):
    from hbt.sampling import batches
    from hbt.training import planning

    rows = c.batch_size // mesh.size // (1 if c.sampler.kind == 'multitask' else 2)
    yield planning.compile_step(c, mesh, batches.empty_batch(c, mesh.size, rows, WIDTH))


def compile_encoder(c, mesh):
    """At every width that texts are padded to."""
    import jax
    import numpy as np

    from hbt.data import ragged
    from hbt.models import embedder
    from hbt.training import train_state
    from hbt.utils import sharding

    params = train_state.state_shapes(c, mesh).params
    encode = embedder.make_encoder(c, mesh)
    for width in sorted({ragged.bucket_width(n) for n in range(1, 513)}):
        count, split = 4 * mesh.size, sharding.sharded(mesh)
        shapes = (count, width), (count,)
        rows = [jax.ShapeDtypeStruct(x, np.int32, sharding=split) for x in shapes]
        yield encode.lower(params, *rows).compile()


def compile_search(c, mesh):
    """Of 500 and of a million documents: all at once, and in blocks."""
    from hbt.training import planning

    for program in planning.lower_search(c, mesh), planning.lower_search(c, mesh, 10**6):
        yield program.compile()


PROGRAMS = {'step': compile_step, 'encoder': compile_encoder, 'search': compile_search}


def compile_in_child(what, *arguments):
    """[(peak bytes, text) of each program]; the error of a compiler that dies is its last line."""
    command = [sys.executable, '-m', 'tests.tpu_test', what, *arguments]
    environment = os.environ | {'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f'{done.returncode}: {done.stderr[-2000:]}'
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(autouse=True)
def libtpu():
    pytest.importorskip('libtpu')


@pytest.mark.parametrize('case', STEPS)
def test_a_step_compiles_and_nothing_of_width_by_width_leaves_a_kernel(case):
    ((_, text),) = compile_in_child('step', *STEPS[case])
    assert f'{WIDTH},{WIDTH}]' not in text
    assert 'tpu_custom_call' in text
    count = collections.Counter(re.findall(r' (all-reduce|reduce-scatter)(?:-start)?\(', text))
    assert count['all-reduce'], count


def test_gradient_caching_takes_less_memory():
    large = BFLOAT16, 'encoder.mlp_dim=2048', 'batch_size=1024'
    peaks = [
        compile_in_child('step', 'v5e-8', *large, f'encoder.chunk={chunk}')[0][0]
        for chunk in (0, 4 * WIDTH)
    ]
    assert peaks[1] < 0.75 * peaks[0], peaks


def test_the_encoder_of_an_evaluation_compiles_at_every_width():
    assert len(compile_in_child('encoder', 'v5e-8', BFLOAT16)) == 9
    assert len(compile_in_child('encoder', 'v5e-8', 'shard_params=true')) == 9


def test_the_search_compiles():
    assert len(compile_in_child('search', 'v5e-8')) == 2


if __name__ == '__main__':
    what, *arguments = sys.argv[1:]
    for program in PROGRAMS[what](*make_config(*arguments)):
        text = re.sub(r'"body":"[^"]*"', '', program.as_text())
        print(json.dumps([program.memory_analysis().peak_memory_in_bytes, text]))
