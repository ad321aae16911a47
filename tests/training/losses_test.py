"""Every form of the loss, in value and gradient, is the formula written row by row."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hbt import config
from hbt.sampling import batches
from hbt.training import losses

KINDS = tuple(losses.LOSSES)


def batch(rows=6, depth=1, seed=0, width=8, dtype=np.float32):
    """Rows of which two share a document and two a query; some hard negatives are absent."""
    rng = np.random.default_rng(seed)

    def unit(*shape):
        x = rng.normal(size=shape)
        return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), dtype)

    ids = np.arange(rows * depth).reshape(rows, depth) + 100
    queries = np.arange(rows)
    ids[1, 0], queries[5] = ids[4, 0], queries[0]
    if depth > 1:
        ids[2, 1], ids[3, 1], ids[5, 1] = batches.NO_PASSAGE, ids[0, 0], -1
    return unit(rows, width), unit(rows, depth, width), queries.astype(np.int32), np.int32(ids)


def plain(q, d, query_ids, document_ids, temperature, negatives='batch', symmetric=False):
    """Equation 1 row by row, and its mirror image."""
    rows, depth, _ = d.shape

    def one_way(i, texts, mine, others):
        positive = mine @ texts / temperature
        return jnp.log1p(sum(jnp.exp(mine @ x / temperature - positive) for x in others))

    total = 0.0
    for i in range(rows):
        others, askers = [], []
        for j in range(rows):
            same = document_ids[j, 0] == document_ids[i, 0] or query_ids[j] == query_ids[i]
            askers += [] if same else [q[j]]
            others += [d[j, 0]] if not same and negatives == 'batch' else []
            hard = document_ids[j, 1:]
            others += [
                d[j, n]
                for n in range(1, depth)
                if hard[n - 1] not in (document_ids[i, 0], batches.NO_PASSAGE)
            ]
        forth = one_way(i, d[i, 0], q[i], others)
        total += (forth + one_way(i, q[i], d[i, 0], askers)) / 2 if symmetric else forth
    return total / rows


def plain_of_prefixes(q, d, *ids_and_temperature, dims, **options):
    """The mean over prefixes of the embeddings and the whole (Kusupati et al. 2022, equation 1)."""

    def prefix(x, k):
        return x[..., :k] / jnp.linalg.norm(x[..., :k], axis=-1, keepdims=True)

    parts = [(q, d), *((prefix(q, k), prefix(d, k)) for k in dims)]
    return sum(plain(*x, *ids_and_temperature, **options) for x in parts) / len(parts)


def settings(**changes):
    return dataclasses.replace(config.Loss(chunk=4), **changes)


def mean_loss(q, d, log_scale, query_ids, document_ids, c, axis=None):
    arrays = map(jnp.asarray, (q, d, query_ids, document_ids, log_scale))
    return losses.infonce(*arrays, c, axis).loss.mean()


def on_devices(parts, scale, c, count):
    """Loss and gradients with the rows split over the devices, each by its local rows' loss."""
    spec = jax.sharding.PartitionSpec
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:count]), ('data',))

    def local(q, d, query_ids, document_ids, scale):
        scale = jax.lax.pcast(scale, 'data', to='varying')
        value, (dq, dd, ds) = jax.value_and_grad(mean_loss, (0, 1, 2))(
            q, d, scale, query_ids, document_ids, c, 'data'
        )
        value, ds = jax.lax.pmean((value, ds), 'data')
        return value, dq / count, dd / count, ds

    mapped = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(*[spec('data')] * 4, spec()),
        out_specs=(spec(), spec('data'), spec('data'), spec()),
    )
    return jax.jit(mapped)(*parts, scale)


@pytest.mark.parametrize(
    'kind, count, depth, changes',
    [
        ('gathered', 1, 1, {}),
        ('gathered', 4, 4, {'negatives': 'hard'}),
        ('gathered', 8, 2, {'symmetric': True}),
        ('chunked', 1, 4, {'symmetric': True}),
        ('chunked', 2, 2, {'negatives': 'hard'}),
        ('chunked', 8, 1, {}),
        ('ring', 1, 2, {}),
        ('ring', 4, 4, {'symmetric': True}),
        ('ring', 8, 2, {'negatives': 'hard'}),
    ],
)
def test_each_form_has_the_value_and_the_gradient_of_the_plain_formula(kind, count, depth, changes):
    with jax.enable_x64(True):
        parts = batch(rows=8, depth=depth, dtype=np.float64)
        scale = jnp.float64(np.log(10.0))
        expected, slopes = jax.value_and_grad(
            lambda q, d, s: plain(q, d, *parts[2:], jnp.exp(-s), **changes), (0, 1, 2)
        )(*map(jnp.asarray, parts[:2]), scale)
        value, *gradients = on_devices(parts, scale, settings(kind=kind, **changes), count)
        np.testing.assert_allclose(value, expected, rtol=1e-12)
        for a, b in zip(gradients, slopes, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize(
    'kind, count, depth, dims, changes',
    [
        ('gathered', 1, 2, (2, 5), {}),
        ('gathered', 8, 2, (3,), {'negatives': 'hard'}),
        ('chunked', 1, 4, (3,), {'symmetric': True}),
        ('chunked', 8, 1, (2, 5), {}),
        ('ring', 1, 2, (1,), {'negatives': 'hard'}),
        ('ring', 8, 2, (2, 5), {'symmetric': True}),
    ],
)
def test_with_dims_it_is_the_mean_over_prefixes_and_the_whole(kind, count, depth, dims, changes):
    with jax.enable_x64(True):
        parts = batch(rows=8, depth=depth, dtype=np.float64)
        scale = jnp.float64(np.log(10.0))
        expected, slopes = jax.value_and_grad(
            lambda q, d, s: plain_of_prefixes(q, d, *parts[2:], jnp.exp(-s), dims=dims, **changes),
            (0, 1, 2),
        )(*map(jnp.asarray, parts[:2]), scale)
        c = settings(kind=kind, dims=dims, **changes)
        value, *gradients = on_devices(parts, scale, c, count)
        np.testing.assert_allclose(value, expected, rtol=1e-12)
        for a, b in zip(gradients, slopes, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)


def test_the_whole_counts_once_also_among_the_dims():
    arrays = *map(jnp.asarray, batch()), jnp.log(10.0)
    expected = losses.infonce(*arrays, settings(dims=(4,)))
    result = losses.infonce(*arrays, settings(dims=(4, 8)))
    for a, b in zip(result, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    whole = losses.infonce(*arrays, settings())
    assert (result.loss != whole.loss).all()
    np.testing.assert_array_equal(result.margin, whole.margin)


@pytest.mark.parametrize('kind', KINDS)
def test_a_copy_of_a_pair_is_a_negative_of_all_pairs_but_its_own_in_both_directions(kind):
    query_ids, document_ids = jnp.array([1, 2, 3, 1]), jnp.array([10, 20, 20, 10])
    texts = losses.Embeddings(jnp.zeros((4, 2)), document_ids, query_ids, jnp.ones(4, bool))
    mask = losses.negative_mask(texts, texts, False)
    expected = [[0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0]]
    np.testing.assert_array_equal(mask, np.array(expected, bool))
    q, d = (x[:4] for x in batch()[:2])
    ids = query_ids, document_ids[:, None]
    value = mean_loss(q, d, jnp.log(10.0), *ids, settings(kind=kind, symmetric=True))
    np.testing.assert_allclose(value, plain(q, d, *ids, 0.1, symmetric=True), rtol=1e-5)


@pytest.mark.parametrize('kind', KINDS)
def test_a_batch_of_one_passage_has_zero_loss_and_a_finite_gradient(kind):
    q, d, query_ids, document_ids = batch()
    same = jnp.full_like(document_ids, 7)
    one = settings(kind=kind)
    value, slope = jax.value_and_grad(mean_loss)(q, d, jnp.log(10.0), query_ids, same, one)
    assert value == 0 and (slope == 0).all()
    rows = losses.infonce(*map(jnp.asarray, (q, d, query_ids, same, np.log(10.0))), one)
    assert (rows.accuracy == 1).all()


def test_accuracy_and_margin_are_those_of_the_queries():
    query_ids = jnp.arange(3)
    ids = query_ids[:, None]
    q = jnp.asarray([[1.0, 0], [0, 1], [0, 1]])
    d = jnp.asarray([[1.0, 0], [0.6, 0.8], [0, 1]])[:, None]
    for kind in KINDS:
        c = settings(kind=kind, chunk=2, symmetric=True)
        rows = losses.infonce(q, d, query_ids, ids, jnp.log(10.0), c)
        np.testing.assert_array_equal(rows.accuracy, [1, 0, 1])
        np.testing.assert_allclose(rows.margin, [1 - 0.3, 0.8 - 0.5, 1 - 0.4], atol=1e-6)


def test_the_loss_is_float32_at_least():
    q, d, *ids = batch()
    half = jnp.asarray(q, jnp.bfloat16), jnp.asarray(d, jnp.bfloat16)
    assert mean_loss(*half, jnp.log(10.0), *ids, settings()).dtype == jnp.float32


def test_large_logits_do_not_overflow():
    q, d, *ids = batch()
    value, slope = jax.value_and_grad(mean_loss)(q, d, jnp.log(1e4), *ids, settings(kind='chunked'))
    assert jnp.isfinite(value) and jnp.isfinite(slope).all()


@pytest.mark.parametrize('kind', ['chunked', 'ring'])
def test_memory_grows_linearly_with_the_batch(kind):
    def temporary(rows):
        spec, mesh = jax.sharding.PartitionSpec, jax.sharding.Mesh(jax.devices(), ('data',))
        c = settings(kind=kind, chunk=64)

        def local(q, d, ids):
            scale = jax.lax.pcast(jnp.float32(3), 'data', to='varying')
            return jax.grad(mean_loss, (0, 1))(q, d, scale, ids, ids[:, None], c, 'data')

        mapped = jax.shard_map(local, mesh=mesh, in_specs=spec('data'), out_specs=spec('data'))
        shapes = [
            jax.ShapeDtypeStruct(shape, kind)
            for shape, kind in (
                ((rows, 16), jnp.float32),
                ((rows, 1, 16), jnp.float32),
                ((rows,), jnp.int32),
            )
        ]
        return jax.jit(mapped).lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    small, large = temporary(4096), temporary(16384)
    assert large < 4.5 * small
    assert large < 16384 * 16384 // 8  # a quarter of the logits of one device's rows
