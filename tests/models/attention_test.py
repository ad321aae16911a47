"""Every kernel is the formula; a packed row is its texts alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hbt.models import attention


def arrays(length=128, heads=2, width=64, dtype=np.float32):
    rng = np.random.default_rng(0)
    qkv = [jnp.asarray(rng.normal(size=(2, length, heads, width)), dtype) for _ in range(3)]
    texts = np.repeat([[1, 2, 0], [1, 2, 3]], length // 4, axis=1)
    texts = np.pad(texts, ((0, 0), (0, length - texts.shape[1])))
    return *qkv, jnp.asarray(texts, jnp.int32)


def formula(q, k, v, texts):
    """One text at a time, in float64."""
    out = np.zeros(q.shape)
    for row, head in np.ndindex(q.shape[0], q.shape[2]):
        for text in set(np.asarray(texts[row]).tolist()):
            mine = np.asarray(texts[row]) == text
            a, b, c = (np.asarray(x, np.float64)[row, mine, head] for x in (q, k, v))
            scores = np.exp(a @ b.T / np.sqrt(a.shape[1]))
            out[row, mine, head] = scores / scores.sum(1, keepdims=True) @ c
    return out


def test_attention_stays_within_a_text():
    with jax.enable_x64(True):
        parts = arrays(length=24, width=8, dtype=np.float64)
        np.testing.assert_allclose(attention.plain(*parts), formula(*parts), atol=1e-12)


def test_the_splash_kernel_of_a_tpu_is_the_formula_in_value_and_gradient():
    *qkv, texts = arrays()
    real = np.asarray(texts > 0)[:, :, None, None]
    weight = np.float32(np.random.default_rng(1).normal(size=qkv[0].shape) * real)

    def value_and_slopes(kernel, **options):
        def total(*qkv):
            return (kernel(*qkv, texts, **options) * weight).sum()

        return jax.value_and_grad(total, (0, 1, 2))(*qkv)

    expected = value_and_slopes(attention.plain)
    found = value_and_slopes(attention.splash, interpret=True)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
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


def plainest(q, k, v, texts, kept, rate):
    """The formula in one line each, differentiated by JAX."""
    scores = jnp.einsum('blhe,bmhe->bhlm', q, k) / np.sqrt(q.shape[-1])
    together = texts[:, None, :, None] == texts[:, None, None, :]
    weights = jax.nn.softmax(jnp.where(together, scores, -jnp.inf), axis=-1)
    return jnp.einsum('bhlm,bmhe->blhe', jnp.where(kept, weights / (1 - rate), 0), v)


@pytest.mark.parametrize('rate', [0.0, 0.3])
def test_the_gradient_of_the_formula_is_that_of_plain_operations(rate):
    with jax.enable_x64(True):
        *qkv, texts = arrays(length=24, width=8, dtype=np.float64)
        rng = np.random.default_rng(1)
        kept = jnp.asarray(rng.random((2, 2, 24, 24)) >= rate)
        weight = jnp.asarray(rng.normal(size=qkv[0].shape))

        def slopes(function):
            def total(*qkv):
                return (function(*qkv, texts, kept, rate) * weight).sum()

            return jax.value_and_grad(total, (0, 1, 2))(*qkv)

        found, expected = slopes(attention.plain), slopes(plainest)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-12)


def test_dropout_of_the_weights_is_applied_by_the_formula(monkeypatch):
    parts = arrays(length=24, width=8)
    monkeypatch.setattr(jax, 'default_backend', lambda: 'tpu')
    kept = jnp.zeros((2, 2, 24, 24), bool)
    np.testing.assert_array_equal(attention.attend(*parts, kept, 0.5), 0)
