"""Every kernel is the formula; a packed row is its texts alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hbt.models import attention


def arrays(length=128, heads=2, width=64, dtype=np.float32):
    rng = np.random.default_rng(0)
    qkv = [jnp.asarray(rng.normal(size=(2, length, heads, width)), dtype) for _ in range(3)]
    segment_ids = np.repeat([[1, 2, 0], [1, 2, 3]], length // 4, axis=1)
    segment_ids = np.pad(segment_ids, ((0, 0), (0, length - segment_ids.shape[1])))
    return *qkv, jnp.asarray(segment_ids, jnp.int32)


def formula(q, k, v, segment_ids):
    """One text at a time, in float64."""
    out = np.zeros(q.shape)
    for row, head in np.ndindex(q.shape[0], q.shape[2]):
        for text in set(np.asarray(segment_ids[row]).tolist()):
            mask = np.asarray(segment_ids[row]) == text
            a, b, c = (np.asarray(x, np.float64)[row, mask, head] for x in (q, k, v))
            scores = np.exp(a @ b.T / np.sqrt(a.shape[1]))
            out[row, mask, head] = scores / scores.sum(1, keepdims=True) @ c
    return out


def test_attention_stays_within_a_text():
    with jax.enable_x64(True):
        parts = arrays(length=24, width=8, dtype=np.float64)
        np.testing.assert_allclose(attention.plain(*parts), formula(*parts), atol=1e-12)


def test_the_splash_kernel_of_a_tpu_is_the_formula_in_value_and_gradient():
    *qkv, segment_ids = arrays()
    real = np.asarray(segment_ids > 0)[:, :, None, None]
    weight = np.float32(np.random.default_rng(1).normal(size=qkv[0].shape) * real)

    def value_and_slopes(kernel, **options):
        def total(*qkv):
            return (kernel(*qkv, segment_ids, **options) * weight).sum()

        return jax.value_and_grad(total, (0, 1, 2))(*qkv)

    expected = value_and_slopes(attention.plain)
    result = value_and_slopes(attention.splash, interpret=True)
    for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize(
    'backend, dtype, shape, kernel',
    [
        ('cpu', 'float32', (2, 128, 2, 64), 'plain'),
        ('tpu', 'bfloat16', (2, 256, 12, 64), 'splash'),
        ('tpu', 'bfloat16', (2, 64, 12, 64), 'plain'),
        ('gpu', 'bfloat16', (2, 64, 12, 64), 'cudnn'),
        ('gpu', 'float32', (2, 64, 12, 64), 'plain'),
        ('gpu', 'bfloat16', (2, 64, 20, 160), 'plain'),
    ],
)
def test_the_kernel_follows_from_backend_type_and_shape(backend, dtype, shape, kernel):
    assert attention.choose_kernel(backend, jnp.dtype(dtype), shape) == kernel


def plainest(q, k, v, segment_ids, keep, rate):
    """The formula in one line each, differentiated by JAX."""
    scores = jnp.einsum('blhe,bmhe->bhlm', q, k) / np.sqrt(q.shape[-1])
    same = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
    weights = jax.nn.softmax(jnp.where(same, scores, -jnp.inf), axis=-1)
    return jnp.einsum('bhlm,bmhe->blhe', jnp.where(keep, weights / (1 - rate), 0), v)


@pytest.mark.parametrize('rate', [0.0, 0.3])
def test_the_gradient_of_the_formula_is_that_of_plain_operations(rate):
    with jax.enable_x64(True):
        *qkv, segment_ids = arrays(length=24, width=8, dtype=np.float64)
        rng = np.random.default_rng(1)
        keep = jnp.asarray(rng.random((2, 2, 24, 24)) >= rate)
        weight = jnp.asarray(rng.normal(size=qkv[0].shape))

        def slopes(function):
            def total(*qkv):
                return (function(*qkv, segment_ids, keep, rate) * weight).sum()

            return jax.value_and_grad(total, (0, 1, 2))(*qkv)

        result, expected = slopes(attention.plain), slopes(plainest)
        for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)


def test_dropout_of_the_weights_is_applied_by_the_formula(monkeypatch):
    parts = arrays(length=24, width=8)
    monkeypatch.setattr(jax, 'default_backend', lambda: 'tpu')
    keep = jnp.zeros((2, 2, 24, 24), bool)
    np.testing.assert_array_equal(attention.attend(*parts, keep, 0.5), 0)
