"""Rows are independent, every parameter learns, and all types of computation agree."""

import dataclasses
import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hbt import config
from hbt.data import ragged
from hbt.models import encoder, layers
from tests import tiny

FAMILIES = ('xlmr', 'bert')


def settings(family='xlmr', **changes):
    base = dataclasses.replace(tiny.make().encoder, family=family, vocab_size=60, pad_id=1)
    return dataclasses.replace(base, **changes)


def random_params(c, seed=0):
    """Normal parameters, biases and scales included, so that each of them matters."""
    rng = np.random.default_rng(seed)
    flat = {}
    for path, shape in encoder.param_shapes(c).items():
        noise = 0.2 * rng.standard_normal(shape)
        flat[path] = jnp.asarray(noise + path.endswith('/scale'), jnp.float32)
    return flax.traverse_util.unflatten_dict(flat, sep='/')


def random_tokens(c, lengths, width, seed=0):
    rng = np.random.default_rng(seed)
    tokens = np.full((len(lengths), width), c.pad_id, np.int32)
    for row, length in zip(tokens, lengths, strict=True):
        row[:length] = rng.integers(2, c.vocab_size, length)
    return jnp.asarray(tokens)


def encode_all(params, tokens, c, *args, **options):
    """For tokens among which none is that of padding."""
    lengths = (tokens != c.pad_id).sum(1, dtype=jnp.int32)
    return encoder.encode_padded(params, tokens, lengths, c, *args, **options)


def seeds(number, count=4):
    return jax.random.bits(jax.random.key(number), (count,))


def encode(params, tokens, c, drop_seeds=None):
    return compiled(dataclasses.astuple(c))(params, tokens, drop_seeds)


@functools.cache
def compiled(values):
    c = config.Encoder(*values)
    return jax.jit(lambda p, tokens, seeds: encode_all(p, tokens, c, seeds))


@pytest.mark.parametrize('family, pooling', [('xlmr', 'mean'), ('bert', 'cls')])
def test_an_embedding_does_not_depend_on_neighbours_or_on_the_amount_of_padding(family, pooling):
    c = settings(family, pooling=pooling)
    params = random_params(c)
    tokens = random_tokens(c, [7, 3, 9, 1], 9)
    together = encode(params, tokens, c)
    wider = encode(params, jnp.pad(tokens, ((0, 0), (0, 11)), constant_values=c.pad_id), c)
    np.testing.assert_allclose(wider, together, atol=2e-6)
    alone = encode(params, tokens[1:2, :3], c)
    np.testing.assert_allclose(alone[0], together[1], atol=2e-6)
    np.testing.assert_allclose(encode(params, tokens[::-1], c)[::-1], together, atol=2e-6)


@pytest.mark.parametrize('family, pooling', [('xlmr', 'mean'), ('bert', 'cls')])
def test_padding_is_known_by_its_place_and_never_by_its_id(family, pooling):
    """A text may have the padding token in it, as its first, one inside or its last."""
    c = settings(family, pooling=pooling)
    params, lengths = random_params(c), [7, 3, 9, 1]
    tokens = np.asarray(random_tokens(c, lengths, 9)).copy()
    tokens[0, 2], tokens[1, 2], tokens[2, 0] = [c.pad_id] * 3
    padded = jax.jit(lambda p, t, n: encoder.encode_padded(p, t, n, c))
    result = padded(params, tokens, np.asarray(lengths, np.int32))
    segment_ids = np.repeat([[1, 2, 3, 4]], lengths, axis=1).astype(np.int32)
    packed = np.concatenate([row[:n] for row, n in zip(tokens, lengths, strict=True)])[None]
    rows = ragged.PackedRows(jnp.asarray(packed), jnp.asarray(segment_ids))
    expected = encoder.encode_packed(params, rows, 4, c)[0]
    np.testing.assert_allclose(result, expected, atol=1e-6)
    tokens[1, 3:] = 5
    again = padded(params, tokens, np.asarray(lengths, np.int32))
    np.testing.assert_array_equal(again, result)


@pytest.mark.parametrize('family', FAMILIES)
def test_embeddings_are_float32_of_unit_length(family):
    c = settings(family)
    result = encode(random_params(c), random_tokens(c, [7, 3, 9, 1], 9), c)
    assert result.shape == (4, c.hidden_dim)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(jnp.linalg.norm(result, axis=-1), 1, atol=1e-6)


def test_a_row_of_padding_only_stays_finite_and_leaves_the_others_alone():
    c = settings()
    params = random_params(c)
    tokens = random_tokens(c, [4, 9, 6, 2], 9)
    result = encode(params, tokens.at[1].set(c.pad_id), c)
    assert jnp.isfinite(result).all()
    others = jnp.asarray([0, 2, 3])
    np.testing.assert_allclose(result[others], encode(params, tokens, c)[others], atol=2e-6)


def test_mean_pooling_counts_real_tokens_and_cls_takes_the_first_of_them():
    x = jnp.asarray([[[1.0, 2], [3, 4], [50, 60]], [[70, 80], [5, 6], [7, 8]]])
    mask = jnp.asarray([[True, True, False], [False, True, True]])
    np.testing.assert_array_equal(encoder.mean_pool(x, mask[:, None])[:, 0], [[2, 3], [6, 7]])
    np.testing.assert_array_equal(encoder.first_pool(x, mask[:, None])[:, 0], [[1, 2], [5, 6]])


def test_dropout_of_a_row_depends_on_its_seed_only():
    c = settings(dropout=0.3, attention_dropout=0.3)
    params = random_params(c)
    tokens = random_tokens(c, [7, 3, 9, 5], 9)
    drop_seeds = seeds(3)
    result = encode(params, tokens, c, drop_seeds)
    turned = encode(params, tokens[::-1], c, drop_seeds[::-1])
    np.testing.assert_allclose(turned[::-1], result, atol=2e-6)
    others = encode(params, tokens, c, seeds(4))
    assert (jnp.abs(others - result).max(axis=1) > 1e-2).all()
    strangers = random_tokens(c, [9, 9, 2, 6], 9, seed=1).at[1].set(tokens[1])
    among = encode(params, strangers, c, seeds(5).at[1].set(drop_seeds[1]))
    np.testing.assert_allclose(among[1], result[1], atol=2e-6)


@pytest.mark.parametrize('part', ['dropout', 'attention_dropout'])
def test_copies_of_a_text_differ_by_either_kind_of_dropout(part):
    c = settings(**{'num_layers': 1, 'dropout': 0.0, 'attention_dropout': 0.0, part: 0.3})
    tokens = jnp.repeat(random_tokens(c, [6], 6), 2, axis=0)
    drop_seeds = seeds(0)[:2]
    first, second = encode(random_params(c), tokens, c, drop_seeds)
    assert jnp.abs(first - second).max() > 1e-3


def test_keys_change_nothing_where_both_rates_are_zero():
    c = settings(num_layers=1, dropout=0.0, attention_dropout=0.0)
    params = random_params(c)
    tokens = random_tokens(c, [7, 3, 9, 5], 9)
    drop_seeds = seeds(0)
    with_seeds = encode(params, tokens, c, drop_seeds)
    np.testing.assert_allclose(with_seeds, encode(params, tokens, c), atol=1e-6)


def test_dropout_zeroes_its_share_and_keeps_the_mean():
    of_token = jax.random.bits(jax.random.key(0), (4, 100))
    for rate in (0.1, 0.25):
        x = layers.dropout(jnp.ones((4, 100, 200)), rate, of_token)
        np.testing.assert_allclose((x == 0).mean(axis=(0, 1)), rate, atol=0.1)
        np.testing.assert_allclose((x == 0).mean(axis=(1, 2)), rate, atol=0.02)
        np.testing.assert_allclose((x == 0).mean(), rate, atol=0.006)
        np.testing.assert_allclose(x[x != 0], 1 / (1 - rate), rtol=1e-6)
    assert layers.dropout(jnp.ones((4, 100, 2), jnp.bfloat16), 0.25, of_token).dtype == jnp.bfloat16


@pytest.mark.parametrize('family', FAMILIES)
def test_the_gradient_reaches_every_parameter_in_use(family):
    c = settings(family, type_vocab_size=2)
    params = random_params(c)
    tokens = random_tokens(c, [7, 3, 9, 5], 9)
    target = jnp.asarray(np.random.default_rng(1).standard_normal((4, c.hidden_dim)), jnp.float32)
    gradient = jax.jit(jax.grad(lambda p: (encode_all(p, tokens, c) * target).sum()))(params)
    flat = flax.traverse_util.flatten_dict(gradient, sep='/')
    used = np.unique(np.asarray(tokens)[np.asarray(tokens) != c.pad_id])
    first = c.pad_id + 1 if family == 'xlmr' else 0
    rows = {
        'embeddings/token': used,
        'embeddings/position': np.arange(first, first + 9),
        'embeddings/type': np.asarray([0]),
    }
    for path, leaf in flat.items():
        assert jnp.isfinite(leaf).all(), path
        moved = np.flatnonzero(np.abs(np.asarray(leaf)).reshape(len(leaf), -1).max(axis=1) > 1e-6)
        if path == 'layers/key/bias':  # softmax does not see what all keys have in common
            np.testing.assert_allclose(leaf, 0, atol=1e-5)
        else:
            np.testing.assert_array_equal(moved, rows.get(path, np.arange(len(leaf))), path)


@pytest.mark.parametrize('family', FAMILIES)
def test_bfloat16_is_close_to_float32(family):
    c = settings(family)
    params = encoder.init_params(c, jax.random.key(0))
    tokens = random_tokens(c, [7, 3, 9, 5], 9)
    result = encode(params, tokens, dataclasses.replace(c, dtype='bfloat16'))
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, encode(params, tokens, c), atol=0.02)


@pytest.mark.parametrize('family', FAMILIES)
def test_float64_agrees_with_float32(family):
    c = settings(family)
    params = random_params(c)
    tokens = random_tokens(c, [7, 3, 9, 5], 9)
    single = encode(params, tokens, c)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
        double = encode(wide, tokens, dataclasses.replace(c, dtype='float64'))
        assert double.dtype == jnp.float64
        np.testing.assert_allclose(single, double, atol=1e-5)
        assert np.abs(np.asarray(single) - np.asarray(double)).max() > 1e-9


def test_layers_in_a_loop_compute_what_unrolled_ones_do():
    c = settings(dropout=0.3, attention_dropout=0.3)
    params = random_params(c)
    tokens = random_tokens(c, [7, 3, 9, 5], 9)
    drop_seeds = seeds(0)
    unrolled = encode(params, tokens, c, drop_seeds)
    looped = jax.jit(lambda p, t, k: encode_all(p, t, c, k, platform='gpu'))
    scanned = looped(params, tokens, drop_seeds)
    np.testing.assert_allclose(scanned, unrolled, atol=2e-6)


@pytest.mark.parametrize('family', FAMILIES)
def test_random_parameters_are_as_bert_is_initialised(family):
    c = settings(family, vocab_size=500, type_vocab_size=2)
    params = encoder.init_params(c, jax.random.key(0))
    flat = flax.traverse_util.flatten_dict(params, sep='/')
    assert {path: leaf.shape for path, leaf in flat.items()} == encoder.param_shapes(c)
    assert {leaf.dtype for leaf in flat.values()} == {jnp.dtype('float32')}
    for path, leaf in flat.items():
        if path.endswith('/bias'):
            assert (leaf == 0).all()
        elif path.endswith('/scale'):
            assert (leaf == 1).all()
        elif leaf.size > 1000:
            np.testing.assert_allclose(leaf.std(), c.init_std, rtol=0.1)
    assert (params['embeddings']['token'][c.pad_id] == 0).all() == (family == 'xlmr')
    again = encoder.init_params(c, jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, again, params)
    kernels = [np.asarray(params['layers'][name]['kernel']) for name in ('query', 'key')]
    assert not np.array_equal(*kernels)
    assert not np.array_equal(kernels[0][0], kernels[0][1])


@pytest.mark.parametrize('family, pooling', [('xlmr', 'mean'), ('bert', 'cls'), ('xlmr', 'max')])
def test_a_packed_text_is_embedded_and_dropped_out_as_if_alone(family, pooling):
    c = settings(family, pooling=pooling, dropout=0.2, attention_dropout=0.2)
    params = random_params(c)
    lengths = [7, 3, 9, 1]
    alone = random_tokens(c, lengths, 9)
    drop_seeds = seeds(7)
    tokens = np.full((2, 16), c.pad_id, np.int32)
    segment_ids, slot_seeds = np.zeros_like(tokens), np.zeros((2, 3), np.uint32)
    for text, (row, slot, start) in enumerate([(0, 1, 4), (0, 0, 0), (1, 0, 0), (1, 2, 12)]):
        part = slice(start, start + lengths[text])
        tokens[row, part] = alone[text][: lengths[text]]
        segment_ids[row, part] = slot + 1
        slot_seeds[row, slot] = drop_seeds[text]
    rows = ragged.PackedRows(jnp.asarray(tokens), jnp.asarray(segment_ids))
    packed = encoder.encode_packed(params, rows, 3, c, jnp.asarray(slot_seeds))
    expected = encode(params, alone, c, drop_seeds)
    result = jnp.stack([packed[0, 1], packed[0, 0], packed[1, 0], packed[1, 2]])
    np.testing.assert_allclose(result, expected, atol=2e-6)


@pytest.mark.parametrize('remat', ['cheap', 'layer'])
def test_what_is_computed_again_changes_no_gradient(remat):
    c = settings(dropout=0.2, attention_dropout=0.2)
    params, tokens, drop_seeds = random_params(c), random_tokens(c, [7, 3, 9, 5], 9), seeds(0)
    target = jnp.asarray(np.random.default_rng(1).standard_normal((4, c.hidden_dim)), jnp.float32)

    def gradient(c):
        return jax.jit(jax.grad(lambda p: (encode_all(p, tokens, c, drop_seeds) * target).sum()))

    expected = gradient(c)(params)
    result = gradient(dataclasses.replace(c, remat=remat))(params)
    for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_an_array_that_is_not_finite_is_named():
    params = random_params(settings())
    encoder.check_finite(params, 'x')
    kernel = params['layers']['query']['kernel']
    params['layers']['query']['kernel'] = kernel.at[1, 2, 3].set(jnp.inf)
    with pytest.raises(ValueError, match='x: layers/query/kernel: expected finite numbers, got'):
        encoder.check_finite(params, 'x')
