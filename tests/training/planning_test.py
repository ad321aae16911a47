"""What is planned is what the training run then does."""

import contextlib
import dataclasses
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest

from hbt import config
from hbt.evaluation import search
from hbt.sampling import sampler
from hbt.training import loop, planning, run_dir, telemetry, train_state
from hbt.utils import log, sharding, slices, text_table
from tests import ROOT, tiny


def numbers(text):
    return [int(x.replace(',', '')) for x in re.findall(r'\d[\d,]*', text)]


@pytest.mark.parametrize('chunk', [pytest.param(0, marks=pytest.mark.slow), 64])
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
    assert '7 reduce-scatter, 1 all-reduce' in lines['collectives'], 'kernels, loss; the rest'
    text = planning.describe_step(c, s, mesh, compile=False)
    assert 'parameters' in text and 'collectives' not in text and 'bytes' not in text
    assert lines['mono epochs'].startswith('ar 0.') and ', de 0.' in lines['cross epochs']
    mono = numbers(lines['mono epoch'])
    assert mono[0] == sum(x.size for x in s.mixtures['mono'].pools)
    assert mono[1] == round(mono[0] / (16 * c.sampler.alpha))


def test_what_a_run_cuts_short_or_repeats_is_said(tiny_store):
    c = tiny.get_config()
    assert not run_dir.list_surprises(sampler.Sampler(c, tiny_store), 'cpu')
    c.sampler, c.optim.warmup = config.Sampler(alpha_points='0:1,6:0.5,40:0'), 13
    c.batch_size = 128
    lines = run_dir.list_surprises(sampler.Sampler(config.check(c), tiny_store), 'cpu')
    assert lines[0].startswith('optim.warmup: 13 steps are cut to steps=12: the learning rate')
    assert lines[1].startswith('sampler.alpha_points: the one at step 40 is beyond steps=12')
    assert 'mono ar' in '\n'.join(lines[2:]) and 'sampler.mono=mixed' in lines[-1]


@pytest.mark.parametrize('half, said', [(50e9, True), (200e9, False)])
def test_a_cpu_whose_bfloat16_is_slower_than_its_float32_is_named(
    tiny_store, monkeypatch, half, said
):
    speed = {'bfloat16': half, 'float32': 100e9}
    monkeypatch.setattr(telemetry, 'measure_product', lambda dtype, *_: speed[dtype])
    c = tiny.get_config()
    c.encoder.dtype = 'bfloat16'
    s = sampler.Sampler(c, tiny_store)
    lines = run_dir.list_surprises(s, 'cpu')
    assert len(lines) == said and all(
        'takes 2.0 times as long as one of float32' in x for x in lines
    )
    assert not run_dir.list_surprises(s, 'gpu')


def run(root, *flags, program='plan', **variables):
    name = f'hbt.{program}'
    command = [sys.executable, '-m', name, 'tests/tiny.py', f'--config.data.root={root}']
    environment = os.environ | {'JAX_PLATFORMS': 'cpu'} | variables
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
    assert {f'{tmp_path}/plan/{x}' for x in names} <= {*done.stdout.splitlines()}
    assert {x.name for x in (tmp_path / 'plan').iterdir()} == names
    lines = (tmp_path / 'plan/proportions.tsv').read_text().splitlines()
    assert sum(int(line.split('\t')[-1]) for line in lines[1:]) == 5 * 8
    missing = run(tmp_path / 'none')
    assert missing.returncode == 2 and f'{tmp_path}/none' in missing.stderr
    assert [x.name for x in tmp_path.iterdir()] == ['plan']


@pytest.mark.slow
def test_the_program_prints_the_batch_of_a_step(tiny_store):
    done = run(tiny_store.path, '--step=3')
    assert done.returncode == 0, done.stderr
    batches = sampler.Sampler(tiny.get_config(), tiny_store)
    assert done.stdout.splitlines() == list(sampler.describe_batch(batches, 3))


@pytest.mark.slow
def test_weights_that_are_split_take_less_of_a_device(tiny_store):
    totals = []
    for shard in (False, True):
        c, mesh = tiny.get_config(), sharding.make_mesh(jax.devices()[:4])
        c.shard_params, c.batch_size = shard, 16
        c = run_dir.resolve_config(config.check(c), tiny_store, mesh)
        s = sampler.Sampler(c, tiny_store, 4)
        memory = planning.compile_step(c, mesh, s.batch(0)[1]).memory_analysis()
        totals.append(memory.argument_size_in_bytes)
    assert totals[1] < 0.65 * totals[0], 'moments are split in both'


MESH = slices.find_slice('v5e-8')


def planned(tiny_store, monkeypatch, estimate, **changes):
    """Lines of a plan for eight chips whose compiler is `estimate(label or flags)`."""
    c, mesh = tiny.make(data=tiny.get_config().data, **changes), sharding.make_mesh()
    c = run_dir.resolve_config(c, tiny_store, mesh)
    seen = []

    def answer(lower, tpu, mesh):
        seen.append(lower)
        return estimate(len(seen))

    monkeypatch.setattr(planning, '_estimate', answer)
    monkeypatch.setattr(telemetry, 'peak_flops', lambda kind: 1e12)
    return list(planning.plan_slice(c, sampler.Sampler(c, tiny_store, 8), mesh, MESH)), c


def test_the_plan_of_a_slice_sums_up_the_step(tiny_store, monkeypatch):
    shown = []
    monkeypatch.setattr(log, 'activity', lambda x, **_: shown.append(x) or contextlib.nullcontext())
    estimate = slices.Estimate(2**30, {'dot, f32[8]': 0.5}, {'kernel, f32[8]': 1.25}, 0.25, '1 x')
    lines, c = planned(tiny_store, monkeypatch, lambda number: estimate)
    text = '\n'.join(lines)
    row = r'1.00 +500.00 +1250.00 +250.00 +2000.00\n  collectives  1 x'
    assert re.search(rf'^step, \d rows of 32 \(100%\) +{row}$', text, re.M)
    assert re.search(r'^encoder, 256 texts of 32 ', text, re.M)
    assert max(map(len, text.splitlines())) <= text_table.WIDTH
    assert re.search(r'^search, 13,090 in 13,014 documents ', text, re.M)
    assert 'mean step       2000.0 ms (first 6 steps)' in text and 'pairs a second  8\n' in text
    flops = float(re.search(r'FLOPs a step +(\S+)', text)[1])
    assert f'MFU             {flops / 2 / 8e12:.1%}' in text
    assert re.findall(r'^ *(\d+\.\d+)  (\w+)', lines[-1], re.M) == [
        ('1250.00', 'kernel'),
        ('500.00', 'dot'),
        ('250.00', 'collectives'),
    ]
    first = r'compiling: step, \d rows of 32 \(100%\) \(1 of 4\)'
    assert any(re.fullmatch(first, x) for x in shown)


def test_a_step_that_does_not_fit_is_tried_with_less_memory(tiny_store, monkeypatch):
    fits = slices.Estimate(2**30, {'dot': 0.5}, {}, 0.0, '')

    def estimate(number):  # step, two encoders, search, then bfloat16, chunk, cheap
        return f'{planning.TOO_LARGE}: 20 of 16 GiB' if number in (1, 5, 6) else fits

    lines, c = planned(tiny_store, monkeypatch, estimate)
    assert (
        lines[-1].split()
        == (
            'It fits with --config.encoder.dtype=bfloat16 --config.encoder.chunk=32 '
            '--config.encoder.remat=cheap'
        ).split()
    )
    assert re.search(
        r'^step, \d rows of 32 \(100%\) +does not fit: 20 of 16 GiB$', '\n'.join(lines), re.M
    )
    lines, c = planned(tiny_store, monkeypatch, lambda n: f'{planning.TOO_LARGE}: {n}')
    assert lines[-1].startswith('\nNone of these makes it fit')
    lines, c = planned(tiny_store, monkeypatch, lambda n: 'INTERNAL: no')
    assert lines[-1] == planning.NOTES


def test_settings_that_need_less_memory_are_tried_in_order_and_together():
    c = config.Config()
    assert [flags.split('--config.')[-1] for flags, _ in planning.smaller_configs(c, 1024)] == [
        'encoder.dtype=bfloat16',
        'encoder.chunk=1024',
        'encoder.remat=cheap',
        'encoder.remat=layer',
        'shard_params=true',
    ]
    *_, (flags, changed) = planning.smaller_configs(c, 1024)
    assert flags.count('remat') == 1 and config.check(changed).shard_params and c.encoder.chunk == 0
    c.encoder = dataclasses.replace(c.encoder, dtype='bfloat16', chunk=512, remat='layer')
    assert [flags for flags, _ in planning.smaller_configs(c, 64)] == ['--config.shard_params=true']


@pytest.mark.parametrize('devices, documents', [(1, 13_014), (8, 13_014), (8, 10**6)])
def test_the_search_that_is_planned_is_that_of_an_evaluation(devices, documents):
    mesh = sharding.make_mesh(jax.devices()[:devices])
    layout = search.make_layout(documents, mesh)
    lowered = planning.lower_search(config.Config(), mesh, documents)
    queries = lowered.in_avals[0][1].embeddings.shape
    batch = search._put_queries(
        np.zeros((planning.QUERIES, 768)),
        np.zeros((planning.QUERIES, planning.RELEVANT), int),
        np.zeros(planning.DOCUMENTS, int),
        np.zeros((planning.QUERIES, 0), int),
        layout,
    )
    assert queries == batch.embeddings.shape


@pytest.mark.slow
def test_the_program_plans_for_a_slice_that_is_not_here(tiny_store, tmp_path):
    pytest.importorskip('libtpu')
    done = run(tiny_store.path, '--topology=v5e-8', f'--fill_cache={tmp_path}/kept')
    assert done.returncode == 0, done.stderr
    assert '8 x TPU v5 lite' in done.stdout and 'Warning' not in done.stderr
    row = r'( +\d+\.\d\d){5}\n  collectives  \d+ all-'
    for label in ('step, 2 rows of 32', 'encoder, 256 texts of 16', 'search, 13,090 in 13,014'):
        assert re.search(rf'^{label}.*?{row}', done.stdout, re.M), done.stdout
    for name in ('MFU', 'pairs a second', '12 steps', 'largest parts'):
        assert name in done.stdout
    assert 'compiling: step, 2 rows of 32 (100%) (1 of 4)' in done.stderr
    assert len(list((tmp_path / 'kept').glob('jit_step-*'))) == 2  # of training and of the search


@pytest.mark.slow
def test_a_slice_that_cannot_be_rented_is_refused(tmp_path):
    done = run(tmp_path, '--topology=v2-8')
    assert done.returncode == 2 and "got 'v2-8'" in done.stderr


@pytest.mark.slow
def test_a_run_finds_what_its_plan_has_compiled(tiny_store, tmp_path):
    assert run(tiny_store.path, f'--fill_cache={tmp_path}/kept').returncode == 0
    programs = {x.name for x in (tmp_path / 'kept').glob('jit_step-*-cache')}
    workdir, variables = (
        f'--workdir={tmp_path}/run',
        {'JAX_COMPILATION_CACHE_DIR': f'{tmp_path}/kept'},
    )
    done = run(tiny_store.path, workdir, program='main', **variables)
    assert done.returncode == 0, done.stderr
    assert len(programs) == 1
    assert programs == {x.name for x in (tmp_path / 'kept').glob('jit_step-*-cache')}


def test_compiled_programs_are_kept_where_the_user_can_write(tmp_path, monkeypatch):
    settings = {}
    monkeypatch.setattr(jax.config, 'update', lambda name, value: settings.update({name: value}))
    loop.keep_compiled()
    assert not settings  # JAX_COMPILATION_CACHE_DIR says where
    monkeypatch.delenv('JAX_COMPILATION_CACHE_DIR')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    loop.keep_compiled()
    assert settings == {'jax_compilation_cache_dir': f'{tmp_path}/hbt/compiled'}
    settings.clear()
    (tmp_path / 'file').touch()
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    loop.keep_compiled()
    assert not settings
