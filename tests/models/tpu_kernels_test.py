"""The kernels of TPUs, run by Pallas' interpreter, are the formulas, dropout included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hbt.models import attention, layers, tpu_kernels

TOLERANCE = {'float32': 1e-5, 'bfloat16': 1e-2}


def segments(width, texts):
    """Rows of one text, of many, of one that leaves padding, and of none."""
    many = np.sort(np.arange(width) * texts // width) + 1
    some = np.where(np.arange(width) < width // 3 + 1, 1, 0)
    return np.stack([np.ones(width), many, some, np.zeros(width)]).astype(np.int32)


def make_tokens(segment_ids):
    """Segment ids, positions and seeds, which follow from row, text and position."""
    r, w = segment_ids.shape
    new = np.pad(segment_ids[:, 1:] != segment_ids[:, :-1], ((0, 0), (1, 0)))
    index = np.arange(w, dtype=np.int32)
    positions = index - np.maximum.accumulate(np.where(new, index, 0), axis=1)
    of_text = layers.fold_seeds(jnp.arange(r, dtype=jnp.uint32)[:, None], segment_ids)
    return jnp.asarray(segment_ids), jnp.asarray(positions), layers.fold_seeds(of_text, positions)


def relative(a, b):
    """The greatest difference, relative to the greatest value."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.abs(a - b).max() / np.abs(b).max()


def random(seed, *shapes, dtype='float32'):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.normal(size=shape), jnp.dtype(dtype)) for shape in shapes)


def check_equal(kernel, formula, args, g):
    """The kernel against the formula in float32: value, and gradients of arrays and parameters.

    Those of the parameters are compared together: that of the keys' bias is zero but for rounding.
    """
    tolerance = TOLERANCE[g.dtype.name]
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), (args, g))
    out, pull = jax.vjp(kernel, *args)
    expected, pull_expected = jax.vjp(formula, *wide[0])
    assert out.dtype == g.dtype and relative(out, expected) < tolerance
    leaves, like = jax.tree.leaves(pull(g)), jax.tree.leaves(pull_expected(wide[1]))
    assert [x.dtype for x in leaves] == [x.dtype for x in jax.tree.leaves(args)]
    for a, b in zip(leaves, like, strict=True):
        assert a.ndim == 1 or relative(a, b) < tolerance
    sums = [np.concatenate([x for x in each if x.ndim == 1]) for each in (leaves, like)]
    assert relative(*sums) < tolerance


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('rate', [0.0, 0.3])
@pytest.mark.parametrize(
    'width, heads, e, texts',
    [(8, 4, 32, 1), (40, 3, 64, 5), (128, 2, 128, 16), (136, 4, 16, 3), (200, 4, 32, 25)]
    + [(512, 2, 64, 60)],
)
def test_attention_is_the_formula_in_value_and_gradients(width, heads, e, texts, rate, dtype):
    tokens = make_tokens(segments(width, texts))
    d = heads * e
    *qkv, g = random(0, *[(4, width, d)] * 4, dtype=dtype)
    biases = random(1, *[(d,)] * 3)
    args = tuple(qkv), biases

    def formula(qkv, biases):
        return attention.attend(qkv, biases, tokens, heads, rate, 'cpu')

    def kernel(qkv, biases):
        return tpu_kernels.attend(qkv, biases, tokens, heads, rate, True)

    check_equal(kernel, formula, args, g)


def test_a_text_has_the_same_dropout_wherever_it_is_packed():
    width, heads, d, size = 64, 2, 32, 10
    *qkv, _ = random(0, *[(1, size, d)] * 4)
    seeds = layers.fold_seeds(jnp.full((1, size), 7, jnp.uint32), jnp.arange(size)[None])
    results = []
    for start, segment in ((0, 1), (13, 2), (54, 5)):
        place = slice(start, start + size)
        rows = [jnp.zeros((1, width, d)).at[:, place].set(x) for x in qkv]
        ids = jnp.zeros((1, width), jnp.int32).at[:, place].set(segment)
        positions = jnp.zeros((1, width), jnp.int32).at[:, place].set(jnp.arange(size))
        row_seeds = jnp.full((1, width), 99, jnp.uint32).at[:, place].set(seeds)
        biases = (jnp.zeros(d),) * 3
        out = tpu_kernels.attend(tuple(rows), biases, (ids, positions, row_seeds), heads, 0.5, True)
        results.append(out[:, place])
    # The sums run in another order, so the last digit may differ; a weight dropped would not.
    np.testing.assert_allclose(results[1], results[0], atol=1e-6)
    np.testing.assert_allclose(results[2], results[0], atol=1e-6)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('seeded', [False, True])
@pytest.mark.parametrize('width, d', [(8, 32), (96, 128), (200, 768)])
def test_the_gradient_of_a_residual_with_norm_is_that_of_plain_operations(width, d, seeded, dtype):
    x, y, g = random(0, *[(3, width, d)] * 3, dtype=dtype)
    scale, norm_bias, bias = random(1, *[(d,)] * 3)
    seeds = jnp.arange(3 * width, dtype=jnp.uint32).reshape(3, width) if seeded else None
    args = x, y, {'scale': scale, 'bias': norm_bias}, bias

    def formula(x, y, norm, bias):
        return layers.layer_norm(norm, layers.residual(x, y, bias, seeds, 0.2), 1e-5)

    def kernel(x, y, norm, bias):
        return tpu_kernels.residual_norm(x, y, norm, bias, seeds, 0.2, 1e-5, True)

    check_equal(kernel, formula, args, g)
