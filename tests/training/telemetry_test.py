"""What the log tells of a run is what happened, and outlives a stop."""

import json
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hbt import config
from hbt.data import ragged
from hbt.sampling import batches, sampler
from hbt.training import loop, losses, run_dir, telemetry, train_state, train_step
from hbt.utils import distributed, log, sharding
from tests import tiny

LANGUAGES = ('de', 'en', 'ja')


def plan(kind, queries, passages):
    rows = np.arange(len(queries))
    return batches.Plan(0, kind, 0 * rows, rows, np.array(queries), np.array(passages))


def batch(rows, width):
    packed = ragged.PackedRows(*np.zeros((2, rows, width), np.int32))
    ids = np.zeros((1, 2), np.int32)
    return batches.Batch(packed, ids[:, :, None], ids, ids, ids[:, :, None])


def values(loss, tokens, skipped=0.0):
    rows = jnp.asarray(loss, jnp.float32)
    return {
        'loss': rows.mean(),
        'lr': jnp.float32(0.5),
        'skipped': jnp.float32(skipped),
        'tokens': jnp.float32(tokens),
        'squares': jnp.float32(9.0),
        'pairs': losses.PairMetrics(rows, (rows > 2).astype(jnp.float32), -rows),
    }


def steps(meter):
    meter.add_step([plan('mono', [1, 1], [1, 1])], batch(8, 16), values([[1, 3]], 100))
    yield
    meter.add_step([plan('cross', [1, 0], [2, 1])], batch(4, 16), values([[2, 6]], 60))
    yield


def test_a_line_has_the_means_of_its_steps_and_of_kinds_and_pairs():
    meter = telemetry.Meter(tiny.make(batch_size=2), LANGUAGES, 4)
    list(steps(meter))
    line = meter.pop_line()
    expected = {'loss': 3, 'lr': 0.5, 'loss/mono': 2, 'loss/cross': 4, 'accuracy/mono': 0.5}
    expected |= {'loss_by_pair/en-en': 2, 'loss_by_pair/en-ja': 2, 'loss_by_pair/de-en': 6}
    expected |= {'accuracy_by_pair/de-en': 1, 'margin/cross': -4, 'padding': 1 - 160 / 192}
    assert {k: line[k] for k in expected} == pytest.approx(expected)
    assert line['pairs_per_second'] * 160 == pytest.approx(line['tokens_per_second'] * 4)
    assert 'mfu' not in line, 'the peak of a CPU is not known'
    assert telemetry.format_postfix(line)['pad'] == '17%'
    next(steps(meter))
    assert meter.pop_line()['loss'] == 2, 'sums begin anew'


def test_a_skipped_step_is_counted_and_in_no_mean():
    meter = telemetry.Meter(tiny.make(batch_size=2), LANGUAGES, 4)
    made = values([[np.nan, 1]], 100, skipped=1.0)
    meter.add_step([plan('mono', [1, 1], [1, 1])], batch(8, 16), made)
    assert telemetry.format_postfix(meter.pop_line())['loss'] == 'nan'
    meter.add_step([plan('mono', [1, 1], [1, 1])], batch(8, 16), made)
    list(steps(meter))
    line = meter.pop_line()
    assert (line['loss'], line['loss/mono'], line['skipped']) == (3, 2, 1)


def test_a_meter_continues_from_its_saved_state():
    whole = telemetry.Meter(tiny.make(batch_size=2), LANGUAGES, 4)
    list(steps(whole))
    first = telemetry.Meter(tiny.make(batch_size=2), LANGUAGES, 4)
    walk = steps(first)
    next(walk)
    saved = json.loads(json.dumps(first.state()))
    second = telemetry.Meter(tiny.make(batch_size=2), LANGUAGES, 4, saved)
    second.add_step([plan('cross', [1, 0], [2, 1])], batch(4, 16), values([[2, 6]], 60))
    timed = ('pairs_per_second', 'tokens_per_second', 'input_wait', 'mfu')
    a, b = ({k: x for k, x in m.pop_line().items() if k not in timed} for m in (whole, second))
    assert a == b


def test_waiting_for_input_and_compilations_are_counted():
    began = time.monotonic()
    with telemetry.Meter(tiny.make(batch_size=2), LANGUAGES, 4) as meter:
        list(steps(meter))

        def slow():
            for i in range(3):
                time.sleep(0.02)
                yield i

        assert list(meter.timed(slow())) == [0, 1, 2]
        jax.jit(lambda x: x * 3 + 1)(jnp.float32(1))
        line = meter.pop_line()
    assert 1 > line['input_wait'] > 0.06 / (time.monotonic() - began)
    assert line['compiles'] >= 1
    before = meter.compiles
    jax.jit(lambda x: x * 4 + 1)(jnp.float32(1))
    assert meter.compiles == before


@pytest.mark.parametrize(
    'kind, expected',
    [
        ('TPU v5 lite', 197e12),
        ('TPU v5', 459e12),
        ('TPU v6 lite', 918e12),
        ('TPU v4 lite', None),
        ('NVIDIA H100 80GB HBM3', 989e12),
        ('NVIDIA H100 PCIe', 756e12),
        ('NVIDIA A100-SXM4-40GB', 312e12),
        ('NVIDIA L40S', None),
        ('cpu', None),
    ],
)
def test_the_peak_is_that_of_the_chip(kind, expected):
    assert telemetry.peak_flops(kind) == expected


def test_model_flops_are_those_of_the_compiled_products():
    c = tiny.make(batch_size=16)
    sizes = {'hidden_dim': 256, 'mlp_dim': 1024, 'dropout': 0.0, 'attention_dropout': 0.0}
    for name, value in (sizes | {'vocab_size': 50}).items():
        setattr(c.encoder, name, value)
    packed = ragged.PackedRows(*np.ones((2, 32, 64), np.int32))  # each text fills a row
    ids = np.arange(16, dtype=np.int32)[None]
    places = (np.arange(32, dtype=np.int32) * 8).reshape(1, 16, 2)
    batch_of_ones = batches.Batch(packed, places, ids, ids, ids[:, :, None])
    mesh = sharding.make_mesh(jax.devices()[:1])
    compiled = []
    for layers in (1, 3):
        c.encoder.num_layers = layers
        step = train_step.make_step(c, mesh)
        state = jax.eval_shape(lambda: train_state.random_state(c))
        cost = (
            step.function.lower(state, step.put(batch_of_ones)).compile().cost_analysis()['flops']
        )
        compiled.append(cost - sum(20 * x.size for x in jax.tree.leaves(state.params)))
    needed = telemetry.model_flops(c, 32 * 64.0, 32 * 64.0**2, 1)
    c.encoder.num_layers = 1
    layers = needed - telemetry.model_flops(c, 32 * 64.0, 32 * 64.0**2, 1)
    assert 0.97 < (compiled[1] - compiled[0]) / layers < 1.1
    assert compiled[1] > 0.97 * needed
    one = telemetry.model_flops(c, 0.0, 0.0, 1)
    c.loss.dims = (64, 256)  # the whole counts once
    assert telemetry.model_flops(c, 0.0, 0.0, 1) == one * (64 + 256) / 256


def run(tiny_store, workdir):
    c = tiny.get_config()
    c.data.root, c.steps, c.log_every, c.ckpt_every = str(tiny_store.path), 5, 4, 100
    c.encoder.num_layers = 1
    loop.train_config(config.check(c), workdir)


@pytest.mark.slow
def test_a_run_stopped_between_two_lines_logs_what_an_unbroken_one_does(
    tiny_store, tmp_path, monkeypatch
):
    run(tiny_store, tmp_path / 'whole')

    def due(self, step):
        self.signal = signal.SIGTERM
        return step == 2

    with monkeypatch.context() as patch:
        patch.setattr(distributed.StopRequests, 'due', due)
        with pytest.raises(SystemExit):
            run(tiny_store, tmp_path / 'broken')
    run(tiny_store, tmp_path / 'broken')
    whole, broken = (log.read_metrics(tmp_path / x / 'metrics.jsonl') for x in ('whole', 'broken'))
    assert [x['step'] for x in whole] == [x['step'] for x in broken] == [4, 5]
    timed = {'pairs_per_second', 'tokens_per_second', 'input_wait', 'compiles'}
    for a, b in zip(whole, broken, strict=True):
        assert a.keys() == b.keys() > timed | {'loss', 'margin', 'padding'}
        assert {k: a[k] for k in a.keys() - timed} == {k: b[k] for k in a.keys() - timed}
    assert len([k for k in whole[0] if k.startswith('margin_by_pair/')]) > 8


def test_shapes_are_compiled_once_each_and_are_few(tiny_store):
    c = tiny.get_config()
    mesh = sharding.make_mesh(jax.devices()[:1])
    c.batch_size = 32
    c = run_dir.resolve_config(c, tiny_store, mesh)
    s = sampler.Sampler(c, tiny_store)
    state, step, seen = train_state.init_state(c, mesh), train_step.make_step(c, mesh), []
    with telemetry.Meter(c, s.languages, 1) as meter:
        for i in range(25):
            made = s.batch(i)[1]
            state, _ = step(state, made)
            jax.block_until_ready(state)
            seen.append((made.packed.tokens.shape, meter.compiles))
    shapes = [x for x, _ in seen]
    assert len(set(shapes)) <= 8
    for i in range(1, 25):
        assert (seen[i][1] > seen[i - 1][1]) == (shapes[i] not in shapes[:i])
