import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hbt import batches, config, encoder, losses, optim, sharding, train


def experiment(mapping='shard_map', dropout=0.0, dtype='float32', **changes):
    c = config.tiny(mapping=mapping, **changes)
    c.encoder = dataclasses.replace(
        c.encoder, vocab_size=50, dropout=dropout, attention_dropout=dropout, dtype=dtype
    )
    return c


def random_batch(rows=16, tasks=1, documents=2, seed=0):
    """Rows of which two share a document and two a query; negatives are absent here and there."""
    rng = np.random.default_rng(seed)

    def tokens(*shape):
        x = rng.integers(2, 50, shape)
        return np.where(np.arange(shape[-1]) < rng.integers(3, 9, (*shape[:-1], 1)), x, 1)

    document_ids = np.arange(tasks * rows * documents).reshape(tasks, rows, documents)
    document_ids[:, 1] = document_ids[:, 9]
    document_ids[:, 2:5, 1:] = losses.ABSENT
    query_ids = np.tile(np.arange(rows), (tasks, 1))
    query_ids[:, 3] = query_ids[:, 12]
    arrays = tokens(tasks, rows, 8), tokens(tasks, rows, documents, 8), query_ids, document_ids
    return batches.Batch(*(x.astype(np.int32) for x in arrays))


def devices(n):
    return sharding.make_mesh(jax.devices()[:n])


def gradients(c, params, batch, mesh):
    def function(params, batch):
        return train.gradient(params, batch, c, jnp.int32(0))

    return sharding.spmd(function, mesh, c.mapping, dim=1)(params, batch)


def plain_loss(params, batch, c):
    """The whole batch on one device, without any collective."""
    total, batch = 0.0, jax.tree.map(jnp.asarray, batch)
    for task in range(len(batch.queries)):
        queries = encoder.encode(params, batch.queries[task], c.encoder)
        rows, n, length = batch.documents[task].shape
        flat = batch.documents[task].reshape(rows * n, length)
        documents = encoder.encode(params, flat, c.encoder).reshape(rows, n, -1)
        ids = batch.query_ids[task], batch.document_ids[task]
        value, _ = losses.infonce(queries, documents, *ids, c.loss.temperature)
        total += value / len(batch.queries)
    return total


@pytest.mark.parametrize('mapping', ['shard_map', 'pmap'])
@pytest.mark.parametrize('count', [1, 2, 8])
@pytest.mark.parametrize('tasks', [1, 2])
def test_the_gradient_on_many_devices_is_that_of_the_plain_loss_on_one(mapping, count, tasks):
    with jax.enable_x64(True):
        c = experiment(mapping, dtype='float64')
        params = encoder.init(c.encoder, jax.random.key(0))
        params = jax.tree.map(lambda x: x.astype(jnp.float64), params)
        batch = random_batch(tasks=tasks)
        value, expected = jax.value_and_grad(plain_loss)(params, batch, c)
        grads, metrics = gradients(c, params, batch, devices(count))
        np.testing.assert_allclose(metrics['loss'], value, rtol=1e-9)
        scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(expected))
        for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-9 * scale)


def test_both_mappings_take_the_same_steps():
    states = []
    for mapping in ('shard_map', 'pmap'):
        c = experiment(mapping, dropout=0.1)
        mesh = devices(8)
        state, step = train.init(c, mesh), train.make_step(c, mesh)
        for i in range(3):
            state, metrics = step(state, random_batch(seed=i))
        states.append((state, metrics))
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(a, b)


def test_dropout_does_not_depend_on_the_number_of_devices():
    c = experiment(dropout=0.1)
    params = encoder.init(c.encoder, jax.random.key(0))
    one, eight = (gradients(c, params, random_batch(), devices(n))[0] for n in (1, 8))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    dry = gradients(experiment(), params, random_batch(), devices(1))[0]
    assert optax.tree.norm(jax.tree.map(jnp.subtract, one, dry)) > 1e-2


def test_the_step_reduces_gradients_once():
    c, mesh = experiment(), devices(8)
    params = encoder.init(c.encoder, jax.random.key(0))
    spec = jax.sharding.PartitionSpec
    mapped = jax.shard_map(
        lambda p, b: train.gradient(p, b, c, jnp.int32(0)),
        mesh=mesh,
        in_specs=(spec(), spec(None, 'data')),
        out_specs=spec(),
    )
    text = jax.jit(mapped).lower(params, random_batch()).compile().as_text()
    assert text.count(' all-reduce(') == 1, text.count(' all-reduce(')


def test_training_lowers_the_loss():
    c = experiment(optim=config.Optim(lr=3e-3, warmup=2, schedule='constant'))
    mesh = devices(8)
    state, step = train.init(c, mesh), train.make_step(c, mesh)
    seen = []
    for _ in range(20):
        state, metrics = step(state, random_batch(documents=1))
        seen.append(float(metrics['loss']))
    assert seen[-1] < 0.5 * seen[0]
    assert int(state.step) == 20


def test_the_schedule_warms_up_and_ends_at_zero():
    rate = optim.schedule(config.Optim(lr=1.0, warmup=4, schedule='linear'), 10)
    np.testing.assert_allclose([rate(i) for i in range(4)], [0.25, 0.5, 0.75, 1.0], atol=1e-6)
    np.testing.assert_allclose([rate(4), rate(7), rate(10)], [1.0, 0.5, 0.0], atol=1e-6)
    for kind in ('cosine', 'constant'):
        rate = optim.schedule(config.Optim(lr=1.0, warmup=0, schedule=kind), 10)
        np.testing.assert_allclose([rate(0), rate(10)], [1.0, float(kind == 'constant')], atol=1e-6)


def test_only_matrices_and_tables_decay():
    c = experiment()
    mask = optim.decays(encoder.init(c.encoder, jax.random.key(0)))
    flat = {
        '/'.join(k.key for k in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(mask)
    }
    assert flat.keys() == encoder.shapes(c.encoder).keys()
    for path, decays in flat.items():
        assert decays == (not path.endswith(('bias', 'scale')))


def test_a_batch_that_does_not_divide_over_the_devices_is_refused():
    with pytest.raises(ValueError, match='batch_size: .* 8 devices, such as 96, got 100'):
        sharding.check_divides('batch_size', 100, devices(8))
