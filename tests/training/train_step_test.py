import collections
import dataclasses
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hbt import config
from hbt.data import ragged
from hbt.models import encoder
from hbt.sampling import batches
from hbt.training import losses, optimizer, planning, train_state, train_step
from hbt.utils import compiled as compiled_text
from hbt.utils import sharding
from tests import tiny


def experiment(mapping='shard_map', dropout=0.0, dtype='float32', chunk=0, layers=1, **changes):
    c = tiny.make(mapping=mapping, **changes)
    c.encoder = dataclasses.replace(
        c.encoder,
        num_layers=layers,
        vocab_size=50,
        dropout=dropout,
        attention_dropout=dropout,
        dtype=dtype,
        chunk=chunk,
    )
    return c


def random_texts(rows=16, tasks=1, documents=2, seed=0):
    """Rows of which two share a document and two a query; negatives are absent here and there."""
    rng = np.random.default_rng(seed)
    shape = (tasks, rows, 1 + documents)
    lengths = rng.integers(3, 9, shape)
    ids = np.arange(lengths.size).reshape(shape)
    ids[:, :, 0] = np.arange(rows)
    ids[:, 3, 0], ids[:, 1, 1] = ids[:, 12, 0], ids[:, 9, 1]
    lengths[:, 2:5, 2:], ids[:, 2:5, 2:] = 0, batches.NO_PASSAGE
    cells = []
    for task, slot in itertools.product(range(tasks), range(1 + documents)):
        sizes = lengths[task, :, slot]
        starts = np.cumsum(sizes) - sizes
        table = ragged.TokenTable(rng.integers(2, 50, sizes.sum()), starts, sizes, np.ones(rows))
        every = np.arange(rows)
        cells.append(batches.ColumnTexts(task, slot, every, table, every, ids[task, :, slot], 8))
    return batches.StepTexts(cells, lengths, ids)


def random_batch(count, **options):
    """The same texts, packed for so many devices."""
    tokenizer = {'pad_id': 1, 'end_id': None}
    return batches.pack_batch(random_texts(**options), 24, count, range(count), tokenizer)


def devices(n):
    return sharding.make_mesh(jax.devices()[:n])


def gradients(c, params, count, **options):
    def function(old, batch):
        return train_step.compute_gradient(old, batch, c, jnp.int32(0), 'cpu')

    mesh = devices(count)
    log_scale = jnp.asarray(-np.log(c.loss.temperature), params['embeddings']['token'].dtype)
    old = train_state.trainable(params, log_scale)
    whole = train_state.partition_specs(old, c, mesh) if c.shard_params else None
    results = (whole, jax.P()) if c.shard_params else None
    mapped = sharding.map_over_devices(
        function, mesh, c.mapping, batches.SHARD_AXES, whole, results
    )
    return mapped(old, random_batch(count, **options))


def plain_vectors(params, texts, c):
    tasks, b, n = texts.lengths.shape
    tokens = np.full((tasks, b, n, 8), c.encoder.pad_id, np.int32)
    for x in texts.columns:
        tokens[x.task, x.pairs, x.column] = ragged.pad_texts(x.table, x.texts, 8, 1, None)
    lengths = jnp.asarray(texts.lengths.reshape(-1), jnp.int32)
    tokens = jnp.asarray(tokens.reshape(-1, 8))
    vectors = encoder.encode_padded(params, tokens, lengths, c.encoder)
    return vectors.reshape(tasks, b, n, -1), jnp.asarray(texts.ids, jnp.int32)


def plain_loss(old, texts, c):
    """The whole batch on one device: a text a row, no collective, no packing."""
    vectors, ids = plain_vectors(old['encoder'], texts, c)
    scale = old['scale'] if c.loss.learned else jax.lax.stop_gradient(old['scale'])
    plain = dataclasses.replace(c.loss, kind='gathered')
    task_losses = [
        losses.infonce(x[:, 0], x[:, 1:], i[:, 0], i[:, 1:], scale, plain).loss.mean()
        for x, i in zip(vectors, ids, strict=True)
    ]
    return sum(task_losses) / len(task_losses)


@pytest.mark.parametrize(
    'mapping, count, tasks, chunk, loss, shard',
    [
        ('shard_map', 1, 2, 48, {'kind': 'gathered', 'dims': (8,)}, False),
        ('shard_map', 2, 1, 0, {'kind': 'ring', 'learned': True}, False),
        ('shard_map', 4, 1, 48, {'kind': 'chunked', 'symmetric': True}, True),
        ('shard_map', 8, 2, 0, {'kind': 'gathered', 'learned': True, 'dims': (8, 20)}, True),
        ('shard_map', 8, 1, 24, {'kind': 'ring', 'symmetric': True}, False),
        ('pmap', 2, 1, 24, {'kind': 'ring', 'negatives': 'hard', 'dims': (5,)}, False),
        ('pmap', 4, 2, 0, {'kind': 'gathered', 'symmetric': True}, False),
        ('pmap', 8, 1, 24, {'kind': 'chunked', 'learned': True, 'dims': (8, 20)}, False),
    ],
)
def test_the_gradient_on_many_devices_is_that_of_the_plain_loss_on_one(
    mapping, count, tasks, chunk, loss, shard
):
    with jax.enable_x64(True):
        loss = config.Loss(chunk=5, **loss)
        c = experiment(mapping, dtype='float64', chunk=chunk, layers=2, loss=loss)
        c.shard_params = shard
        params = encoder.init_params(c.encoder, jax.random.key(0))
        params = jax.tree.map(lambda x: x.astype(jnp.float64), params)
        old = train_state.trainable(params, jnp.float64(-np.log(c.loss.temperature)))
        value, expected = jax.jit(
            jax.value_and_grad(lambda old: plain_loss(old, random_texts(tasks=tasks), c))
        )(old)
        grads, metrics = gradients(c, params, count, tasks=tasks)
        np.testing.assert_allclose(metrics['loss'], value, rtol=1e-9)
        by_dim = [x for name, x in metrics.items() if name.startswith('loss_by_dim/')]
        assert len(by_dim) == (len(loss.dims) + 1 if loss.dims else 0)
        np.testing.assert_allclose(sum(by_dim), value * len(by_dim), rtol=1e-9)
        assert (expected['scale'] == 0) == (not c.loss.learned)
        scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(expected['encoder']))
        for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-9 * scale)


def test_without_prefixes_the_step_is_that_of_the_whole_alone():
    texts = []
    for dims in ((), (32,), (16, 32)):
        c, mesh = experiment(loss=config.Loss(dims=dims)), devices(1)
        step, state = train_step.make_step(c, mesh), train_state.state_shapes(c, mesh)
        texts.append(step.function.lower(state, step.put(random_batch(1))).as_text())
    assert texts[0] == texts[1] != texts[2]


def test_gradient_caching_draws_the_dropout_of_the_whole():
    params = encoder.init_params(experiment().encoder, jax.random.key(0))
    whole, cached = (
        gradients(experiment(dropout=0.3, chunk=chunk), params, 2)[0] for chunk in (0, 24)
    )
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(cached), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6 * max(1.0, float(jnp.abs(a).max())))


def test_both_mappings_take_the_same_steps():
    states = []
    for mapping in ('shard_map', 'pmap'):
        c = experiment(mapping, dropout=0.1, loss=config.Loss(learned=True))
        mesh = devices(4)
        state, step = train_state.init_state(c, mesh), train_step.make_step(c, mesh)
        for i in range(3):
            state, metrics = step(state, random_batch(mesh.size, seed=i))
        states.append((state, metrics))
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_split_parameters_take_the_same_steps_in_a_part_of_the_memory():
    states, bytes_held = [], []
    for shard in (False, True):
        c = experiment(dropout=0.1, shard_params=shard)
        c.optim = dataclasses.replace(c.optim, clip=0.1)
        mesh = devices(4)
        state, step = train_state.init_state(c, mesh), train_step.make_step(c, mesh)
        arrays = jax.tree.leaves(state)
        bytes_held.append(sum(x.addressable_shards[0].data.nbytes for x in arrays))
        for i in range(3):
            state, metrics = step(state, random_batch(4, seed=i))
        states.append((state, metrics))
    whole = sum(x.nbytes for x in arrays)
    assert bytes_held[0] < 0.75 * whole, 'moments of kernels are split, parameters are not'
    assert bytes_held[1] < 0.5 * whole
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6 * max(1.0, float(jnp.abs(a).max())))
    assert states[0][1]['grad_norm'] > 0.1, 'nothing was clipped'


def test_dropout_does_not_depend_on_the_number_of_devices():
    c = experiment(dropout=0.1)
    params = encoder.init_params(c.encoder, jax.random.key(0))
    one, four = (gradients(c, params, n)[0] for n in (1, 4))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(four), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    dry = gradients(experiment(), params, 1)[0]
    assert optax.tree.norm(jax.tree.map(jnp.subtract, one, dry)) > 1e-2


def compiled(c, count=8, **options):
    """The gradient of a step, compiled and not run."""
    spec = jax.sharding.PartitionSpec
    mapped = jax.shard_map(
        lambda old, batch: train_step.compute_gradient(old, batch, c, jnp.int32(0), 'cpu'),
        mesh=devices(count),
        in_specs=(
            spec(),
            jax.tree.map(lambda dim: spec(*[None] * dim, 'data'), batches.SHARD_AXES),
        ),
        out_specs=spec(),
    )
    params = encoder.init_params(c.encoder, jax.random.key(0))
    old = train_state.trainable(params, jnp.float32(3))
    return jax.jit(mapped).lower(old, random_batch(count, **options)).compile()


@pytest.mark.parametrize(
    'kind, chunk, gathers, permutes',
    [('gathered', 0, 1, 0), ('chunked', 24, 1, 0), ('ring', 24, 0, 2)],
)
def test_the_step_reduces_gradients_once(kind, chunk, gathers, permutes):
    text = compiled(experiment(chunk=chunk, loss=config.Loss(kind=kind, chunk=5))).as_text()
    count = collections.Counter(re.findall(r' (all-\w+|reduce-scatter|collective-permute)\(', text))
    assert count['all-reduce'] == 1, count
    assert (count['all-gather'] > 0) == (count['reduce-scatter'] > 0) == bool(gathers), count
    assert (count['collective-permute'] > 0) == bool(permutes), count


@pytest.mark.parametrize('chunk', [0, pytest.param(24, marks=pytest.mark.slow)])
def test_split_parameters_are_gathered_and_their_gradients_scattered_once_a_layer(chunk):
    c, mesh = experiment(layers=2, chunk=chunk, shard_params=True), devices(8)
    text = planning.compile_step(c, mesh, random_batch(8)).as_text()
    count = collections.Counter(compiled_text.COLLECTIVE.findall(text))
    kernels = 2 * sum(path.endswith('kernel') for path in encoder.split_axes(c.encoder, 8))
    passes = 2 if chunk else 1  # with caching, forward is computed again
    assert count['reduce-scatter'] == kernels + 1, count  # with that of the loss
    assert passes * kernels < count['all-gather'] <= (1 + passes) * kernels + 5, count
    assert count['all-to-all'] == passes + 1, count  # the columns of the token table, and back
    assert count['all-reduce'] == 1, count  # of what is not split, with the norm of what is
    reduced = re.findall(r'= (.*) all-reduce(?:-start)?\(', text)[0]
    for path, axis in encoder.split_axes(c.encoder, 8).items():
        shape = list(encoder.param_shapes(c.encoder)[path])
        for held in (shape, [n // 8 if i == axis else n for i, n in enumerate(shape)]):
            assert f'[{",".join(map(str, held))}]' not in reduced, path


@pytest.mark.slow
def test_gradient_caching_costs_one_more_forward_pass_and_saves_memory(monkeypatch):
    def one(chunk):
        c = experiment(chunk=chunk)
        c.encoder = dataclasses.replace(c.encoder, hidden_dim=256, mlp_dim=1024)
        return compiled(c, rows=64, count=1)

    plain, cached = one(0), one(96)
    assert cached.memory_analysis().temp_size_in_bytes < (
        0.5 * plain.memory_analysis().temp_size_in_bytes
    )

    # The compiler counts the body of a loop once: unrolled, it counts all of it.
    def unrolled(function, parts):
        results = [
            function(jax.tree.map(lambda x, i=i: x[i], parts))
            for i in range(len(jax.tree.leaves(parts)[0]))
        ]
        return jnp.stack(results)

    monkeypatch.setattr(jax.lax, 'map', unrolled)
    flops = one(96).cost_analysis()['flops'] / plain.cost_analysis()['flops']
    assert 1.2 < flops < 1.4, flops


def test_a_learned_temperature_moves_and_a_fixed_one_stays():
    for learned in (True, False):
        c = experiment(loss=config.Loss(temperature=0.05, learned=learned))
        mesh = devices(2)
        state, step = train_state.init_state(c, mesh), train_step.make_step(c, mesh)
        for i in range(3):
            state, metrics = step(state, random_batch(mesh.size, seed=i))
        moved = abs(state.log_scale - jnp.float32(-np.log(0.05)))
        assert (moved > 1e-4) if learned else (moved == 0)


@pytest.fixture(scope='session')
def learned():
    """An experiment with a learned temperature, its devices and its step."""
    c, mesh = experiment(loss=config.Loss(temperature=0.05, learned=True)), devices(2)
    return c, mesh, train_step.make_step(c, mesh)


def test_a_learned_temperature_stops_at_its_limit_and_leaves_it_again(learned):
    c, mesh, step = learned
    state = train_state.init_state(c, mesh)
    limit = jnp.float32(np.log(100))
    state = state._replace(log_scale=jax.device_put(limit + 1, state.log_scale.sharding))
    state, _ = step(state, random_batch(mesh.size))  # whose pairs the model does not know yet
    assert state.log_scale == limit
    for i in range(3):
        state, metrics = step(state, random_batch(mesh.size, seed=i))
    assert state.log_scale < limit - 1e-4
    np.testing.assert_allclose(metrics['temperature'], 0.01, rtol=0.01)


def test_the_logged_rate_is_that_of_the_optimizer_also_after_a_skipped_step(learned):
    c, mesh, step = learned
    state = train_state.init_state(c, mesh)
    rates, expected = [], optimizer.make_schedule(c.optim, c.steps)
    for log_scale in (jnp.nan, 3.0, jnp.nan, 3.0, 3.0):
        scale = jax.device_put(jnp.float32(log_scale), state.log_scale.sharding)
        state, metrics = step(state._replace(log_scale=scale), random_batch(mesh.size))
        assert bool(metrics['skipped']) == np.isnan(log_scale)
        rates.append(float(metrics['lr']))
    np.testing.assert_allclose(rates, [expected(i) for i in (0, 0, 1, 1, 2)], rtol=1e-6)


def test_training_lowers_the_loss():
    c = experiment(optim=config.Optim(lr=3e-3, warmup=2, schedule='constant'))
    mesh = devices(8)
    state, step = train_state.init_state(c, mesh), train_step.make_step(c, mesh)
    seen = []
    for _ in range(20):
        state, metrics = step(state, random_batch(8, documents=1))
        seen.append(float(metrics['loss']))
    assert seen[-1] < 0.5 * seen[0]
    assert int(state.step) == 20


def test_the_schedule_warms_up_and_ends_at_zero():
    rate = optimizer.make_schedule(config.Optim(lr=1.0, warmup=4, schedule='linear'), 10)
    np.testing.assert_allclose([rate(i) for i in range(4)], [0.25, 0.5, 0.75, 1.0], atol=1e-6)
    np.testing.assert_allclose([rate(4), rate(7), rate(10)], [1.0, 0.5, 0.0], atol=1e-6)
    for kind in ('cosine', 'constant'):
        rate = optimizer.make_schedule(config.Optim(lr=1.0, warmup=0, schedule=kind), 10)
        np.testing.assert_allclose([rate(0), rate(10)], [1.0, float(kind == 'constant')], atol=1e-6)


def test_only_matrices_and_tables_decay():
    c = experiment()
    mask = optimizer.decay_mask(encoder.init_params(c.encoder, jax.random.key(0)))
    flat = {
        '/'.join(k.key for k in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(mask)
    }
    assert flat.keys() == encoder.param_shapes(c.encoder).keys()
    for path, decays in flat.items():
        assert decays == (not path.endswith(('bias', 'scale')))


def test_a_batch_that_does_not_divide_over_the_devices_is_refused():
    with pytest.raises(ValueError, match='batch_size: .* 8 devices, such as 96, got 100'):
        sharding.check_divides('batch_size', 100, devices(8))


def test_the_tasks_of_a_step_are_weighted_by_alpha():
    c = experiment()
    c.sampler = config.Sampler(kind='multitask', alpha_points='0:1,10:0.2')
    params, mesh = encoder.init_params(c.encoder, jax.random.key(0)), devices(2)
    old = train_state.trainable(params, jnp.asarray(-np.log(c.loss.temperature), jnp.float32))

    def at(step):
        def function(old, batch):
            return train_step.compute_gradient(old, batch, c, jnp.int32(step), 'cpu')[1]

        metrics = sharding.map_over_devices(function, mesh, c.mapping, batches.SHARD_AXES)(
            old, random_batch(2, tasks=2)
        )
        return float(metrics['loss']), metrics['pairs'].loss.mean(1)

    for step, weight in ((0, 1.0), (5, 0.6), (50, 0.2)):
        loss, (mono, cross) = at(step)
        assert loss == pytest.approx(float(weight * mono + (1 - weight) * cross), rel=1e-5)
    assert abs(mono - cross) > 1e-3


def test_a_step_has_the_metrics_of_every_pair_in_the_order_of_the_plan():
    c, texts = experiment(), random_texts(tasks=2)
    params = encoder.init_params(c.encoder, jax.random.key(0))
    one, four = (gradients(c, params, n, tasks=2)[1] for n in (1, 4))
    for a, b in zip(one['pairs'], four['pairs'], strict=True):
        assert a.shape == (2, 16)
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert one['pairs'].loss[0, 3] == pytest.approx(float(row_loss(params, texts, c, 3)), rel=1e-5)
    for metrics in (one, four):
        assert metrics['loss'] == pytest.approx(float(metrics['pairs'].loss.mean()), rel=1e-5)
        assert float(metrics['tokens']) == texts.lengths.sum()
        assert float(metrics['squares']) == np.square(texts.lengths).sum()


def row_loss(params, texts, c, row):
    """Of a row of task 0, by the plain formula."""
    vectors, ids = plain_vectors(params, texts, c)
    scale = jnp.asarray(-np.log(c.loss.temperature), jnp.float32)
    ids = ids[0]
    return losses.infonce(
        vectors[0][:, 0], vectors[0][:, 1:], ids[:, 0], ids[:, 1:], scale, c.loss
    ).loss[row]


def test_a_step_that_is_not_finite_changes_nothing_but_its_number():
    c, mesh = experiment(), devices(8)
    state, step = train_state.init_state(c, mesh), train_step.make_step(c, mesh)
    broken = jax.tree.map(jnp.copy, state.params)
    broken['embeddings']['norm']['bias'] += jnp.nan
    before = jax.device_get((broken, state.opt))
    after, metrics = step(state._replace(params=broken), random_batch(8))
    assert metrics['skipped'] == 1 and int(after.step) == 1
    for a, b in zip(
        jax.tree.leaves((after.params, after.opt)), jax.tree.leaves(before), strict=True
    ):
        np.testing.assert_array_equal(a, b)
