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


@pytest.mark.parametrize(
    'platform, dtype, sizes, rate, kernel',
    [
        ('cpu', 'float32', (128, 128, 2), 0.0, 'plain'),
        ('tpu v5 lite', 'bfloat16', (256, 768, 12), 0.1, 'tpu'),
        ('tpu v5 lite', 'float32', (64, 768, 12), 0.0, 'tpu'),
        ('tpu v5 lite', 'bfloat16', (4096, 768, 12), 0.0, 'plain'),
        ('tpu v4', 'bfloat16', (512, 1024, 16), 0.0, 'plain'),
        ('tpu v4', 'bfloat16', (256, 768, 12), 0.0, 'tpu'),
        ('gpu', 'bfloat16', (64, 768, 12), 0.0, 'cudnn'),
        ('gpu', 'bfloat16', (64, 768, 12), 0.1, 'plain'),
        ('gpu', 'float32', (64, 768, 12), 0.0, 'plain'),
        ('gpu', 'bfloat16', (64, 3200, 20), 0.0, 'plain'),
    ],
)
def test_the_kernel_follows_from_platform_type_and_shape(platform, dtype, sizes, rate, kernel):
    assert attention.choose_kernel(platform, jnp.dtype(dtype), *sizes, rate) == kernel


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


def test_weights_are_dropped_by_the_seed_of_the_query():
    *qkv, segment_ids = arrays(length=24, width=8)
    q, k, v = (x.reshape(*x.shape[:2], -1) for x in qkv)
    positions = jnp.broadcast_to(jnp.arange(24, dtype=jnp.int32), (2, 24))
    biases = (jnp.zeros(16),) * 3

    def attend(seeds, rate):
        return attention.attend((q, k, v), biases, (segment_ids, positions, seeds), 2, rate)

    seeds = jnp.arange(48, dtype=jnp.uint32).reshape(2, 24)
    np.testing.assert_array_equal(attend(None, 0.5), attend(seeds, 0.0))
    np.testing.assert_array_equal(attend(seeds, 0.5), attend(seeds, 0.5))
    assert not np.allclose(attend(seeds, 0.5), attend(seeds + 1, 0.5))
