"""Weights load bit for bit and embed as Hugging Face does; whatever is wrong is named."""

import dataclasses
import json
import runpy
import types

import flax.serialization
import flax.traverse_util
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from hbt import config
from hbt.models import encoder, huggingface
from tests import FIXTURES

BASE = config.Encoder()
MODELS = 'one of xlm-roberta, xlm-roberta-xl, roberta, bert'


def small(family='xlmr', **changes):
    sizes = dict(
        vocab_size=30, hidden_dim=8, num_layers=2, num_heads=2, mlp_dim=12, max_positions=16
    )
    return config.Encoder(family=family, **{**sizes, **changes})


def random_params(c, seed=0):
    rng = np.random.default_rng(seed)
    shapes = encoder.param_shapes(c).items()
    flat = {p: rng.standard_normal(s).astype(np.float32) for p, s in shapes}
    return flax.traverse_util.unflatten_dict(flat, sep='/')


def flax_tree(params, c):
    """The parameters as transformers' Flax classes hold them: layers under string keys."""

    def norm(p):
        return {'scale': p['scale'], 'bias': p['bias']}

    def layer(p):
        return {
            'attention': {
                'self': {name: p[name] for name in ('query', 'key', 'value')},
                'output': {'dense': p['attention_out'], 'LayerNorm': norm(p['attention_norm'])},
            },
            'intermediate': {'dense': p['ffn_in']},
            'output': {'dense': p['ffn_out'], 'LayerNorm': norm(p['ffn_norm'])},
        }

    tables, stacked = params['embeddings'], params['layers']
    layers = {
        str(i): layer(jax.tree.map(lambda x, i=i: np.asarray(x[i]), stacked))
        for i in range(c.num_layers)
    }
    return {
        'embeddings': {
            'word_embeddings': {'embedding': tables['token']},
            'position_embeddings': {'embedding': tables['position']},
            'token_type_embeddings': {'embedding': tables['type']},
            'LayerNorm': norm(tables['norm']),
        },
        'encoder': {'layer': layers},
    }


def write_safetensors(folder, arrays, **metadata):
    folder.mkdir(exist_ok=True)
    safetensors.numpy.save_file(arrays, folder / 'model.safetensors', metadata or None)
    return folder


def write_msgpack(folder, tree):
    (folder / 'flax_model.msgpack').write_bytes(flax.serialization.to_bytes(tree))
    return folder


def write_config(folder, **changes):
    values = {'model_type': 'xlm-roberta', 'hidden_size': 8, 'num_attention_heads': 2, **changes}
    (folder / 'config.json').write_text(json.dumps(values))
    return folder


def assert_same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {np.dtype('float32')}


def assert_parity(folder, tokens, expected, tolerance=1e-5):
    """Loads a checkpoint and compares its embeddings under both kinds of pooling.

    Texts that are padded on the left are moved there, which XLM-R does not see. BERT does: it
    counts the positions of padding, so that such embeddings depend on the batch; they are left out.
    """
    c = dataclasses.replace(huggingface.read_architecture(folder, BASE), dropout=0.1)
    params = huggingface.load_params(folder, c)
    if c.family == 'bert':
        rows = tokens[:, 0] != c.pad_id
        tokens, expected = tokens[rows], {x: expected[x][rows] for x in ('mean', 'cls')}
    lengths = (tokens != c.pad_id).sum(1, dtype=np.int32)
    order = np.argsort(tokens == c.pad_id, axis=1, kind='stable')
    tokens = np.take_along_axis(tokens, order, axis=1)
    for pooling in ('mean', 'cls'):
        c = dataclasses.replace(c, pooling=pooling)
        got = jax.jit(lambda p, t, n, c=c: encoder.encode_padded(p, t, n, c))(
            params, tokens, lengths
        )
        np.testing.assert_allclose(got, expected[pooling], atol=tolerance, rtol=0)


@pytest.mark.parametrize('family', ['xlmr', 'bert', 'xl'])
def test_recorded_checkpoints_give_the_recorded_embeddings(family):
    expected = np.load(FIXTURES / family / 'expected.npz')
    assert_parity(FIXTURES / family, expected['tokens'], expected)


@pytest.mark.parametrize('family', ['xlmr', 'bert'])
def test_weights_written_by_flax_classes_equal_those_written_by_torch_classes(family):
    folder = FIXTURES / family
    c = huggingface.read_architecture(folder, BASE)
    assert huggingface.read_architecture(folder / 'flax', BASE) == c
    assert_same(huggingface.load_params(folder / 'flax', c), huggingface.load_params(folder, c))


SHAPES = [
    ('XLMRobertaModel', dict(num_attention_heads=4, type_vocab_size=1, layer_norm_eps=1e-5)),
    ('XLMRobertaForMaskedLM', dict(num_attention_heads=2, pad_token_id=0, num_hidden_layers=3)),
    ('RobertaModel', dict(num_attention_heads=1, hidden_act='gelu_new')),
    ('XLMRobertaXLModel', dict(num_attention_heads=2, layer_norm_eps=1e-3)),
    ('XLMRobertaXLForMaskedLM', dict(num_attention_heads=4, pad_token_id=0)),
    ('XLMRobertaModel', dict(num_attention_heads=2, num_hidden_layers=0)),
    ('XLMRobertaXLModel', dict(num_attention_heads=2, num_hidden_layers=0)),
    ('BertModel', dict(num_attention_heads=8, layer_norm_eps=1e-3)),
    ('BertForMaskedLM', dict(num_attention_heads=2, pad_token_id=3, type_vocab_size=1)),
]


@pytest.mark.parametrize('number', range(len(SHAPES)))
def test_embeddings_equal_those_of_torch(tmp_path, number):
    pytest.importorskip('torch')
    transformers = pytest.importorskip('transformers')
    make = types.SimpleNamespace(**runpy.run_path(FIXTURES / 'make.py'))
    name, changes = SHAPES[number]
    sizes = dict(vocab_size=200, hidden_size=32, num_hidden_layers=2, intermediate_size=48)
    cls = getattr(transformers, name)
    model = cls(cls.config_class(**{**sizes, 'max_position_embeddings': 40, **changes}))
    make.randomise(model, seed=number).save_pretrained(tmp_path)
    tokens = make.texts(200, model.config.pad_token_id, 24, seed=number)
    assert_parity(tmp_path, tokens, make.embeddings(model, tokens))


@pytest.mark.parametrize(
    'c',
    [
        small(),
        small('bert', type_vocab_size=2, num_layers=3, num_heads=4),
        small(norm='pre'),
        small(projection_dim=5),
    ],
)
def test_export_is_the_inverse_of_loading(tmp_path, c):
    params = random_params(c)
    exported = huggingface.rename_params(params, c)
    assert exported['encoder.layer.1.intermediate.dense.weight'].shape == (c.mlp_dim, c.hidden_dim)
    loaded = huggingface.load_params(write_safetensors(tmp_path, exported, format='pt'), c)
    assert_same(loaded, params)
    again = huggingface.rename_params(jax.tree.map(jax.numpy.asarray, loaded), c)
    assert list(again) == list(exported)
    for name, array in exported.items():
        assert array.flags.c_contiguous and array.dtype == np.float32
        np.testing.assert_array_equal(again[name], array)


def test_export_gives_back_a_checkpoint_of_torch_bit_for_bit():
    original = safetensors.numpy.load_file(FIXTURES / 'bert' / 'model.safetensors')
    c = huggingface.read_architecture(FIXTURES / 'bert', BASE)
    exported = huggingface.rename_params(huggingface.load_params(FIXTURES / 'bert', c), c)
    assert original.keys() - exported.keys() == {'pooler.dense.weight', 'pooler.dense.bias'}
    for name, array in exported.items():
        np.testing.assert_array_equal(array, original[name])


@pytest.mark.parametrize('wrap', ['', 'params', 'roberta', 'xlm_roberta', 'bert', 'params.model'])
def test_flax_msgpack_loads_bit_for_bit(tmp_path, wrap):
    c = small()
    params = random_params(c)
    tree = flax_tree(params, c)
    if wrap == 'roberta':
        tree['pooler'] = {'dense': {'kernel': np.ones((8, 8)), 'bias': np.ones(8)}}
    for key in reversed(wrap.split('.') if wrap else []):
        tree = {key: tree}
    if wrap == 'roberta':
        tree['lm_head'] = {'bias': np.ones(30), 'layer_norm': {'scale': np.ones(8)}}
    assert_same(huggingface.load_params(write_msgpack(tmp_path, tree), c), params)


def test_flax_names_in_safetensors_load_bit_for_bit(tmp_path):
    c = small(
        hidden_dim=12, mlp_dim=12
    )  # square, so that a wrong transpose would not be noticed by shape
    params = random_params(c)
    flat = flax.traverse_util.flatten_dict(flax_tree(params, c), sep='.')
    write_safetensors(tmp_path, {f'roberta.{name}': x for name, x in flat.items()}, format='flax')
    assert_same(huggingface.load_params(tmp_path, c), params)


@pytest.mark.parametrize('prefix', ['', 'roberta.', 'xlm_roberta.', 'bert.', 'model.'])
def test_prefixes_and_heads_of_tasks_are_taken_off(tmp_path, prefix):
    c = small()
    params = random_params(c)
    arrays = {prefix + name: x for name, x in huggingface.rename_params(params, c).items()}
    arrays[f'{prefix}embeddings.position_ids'] = np.arange(16)[None]
    arrays[f'{prefix}embeddings.token_type_ids'] = np.zeros((1, 16), np.int64)
    heads = 'lm_head.decoder.weight', 'cls.predictions.bias', 'classifier.weight', 'qa_outputs.bias'
    arrays |= {name: np.ones(3) for name in (f'{prefix}pooler.dense.bias', *heads)}
    assert_same(huggingface.load_params(write_safetensors(tmp_path, arrays), c), params)


def test_old_names_of_layer_norm_are_understood(tmp_path):
    c = small('bert')
    params = random_params(c)
    arrays = {
        name.replace('Norm.weight', 'Norm.gamma').replace('Norm.bias', 'Norm.beta'): x
        for name, x in huggingface.rename_params(params, c).items()
    }
    assert_same(huggingface.load_params(write_safetensors(tmp_path, arrays), c), params)


@pytest.mark.parametrize('dtype', [np.float16, ml_dtypes.bfloat16, np.float64])
def test_weights_of_other_float_types_become_float32(tmp_path, dtype):
    c = small()
    rounded = jax.tree.map(lambda x: x.astype(dtype), random_params(c))
    expected = jax.tree.map(lambda x: x.astype(np.float32), rounded)
    for name, x in huggingface.rename_params(rounded, c).items():
        assert x.dtype == dtype, name
    write_safetensors(tmp_path, huggingface.rename_params(rounded, c))
    assert_same(huggingface.load_params(tmp_path, c), expected)
    (tmp_path / 'model.safetensors').unlink()
    assert_same(
        huggingface.load_params(write_msgpack(tmp_path, flax_tree(rounded, c)), c), expected
    )


def test_safetensors_are_preferred_to_msgpack(tmp_path):
    c = small()
    write_msgpack(tmp_path, flax_tree(random_params(c, seed=1), c))
    write_safetensors(tmp_path, huggingface.rename_params(random_params(c), c))
    assert_same(huggingface.load_params(tmp_path, c), random_params(c))


KERNEL = 'encoder.layer.1.intermediate.dense.weight'
DAMAGES = {
    'unknown': (
        lambda x: {**x, **{f'roberta.extra.{i}': np.ones(2) for i in range(9)}},
        r'xlmr encoder of 2 layers, got also roberta\.extra\.0, .*\.3, \.\.\. \(9 in all\)',
    ),
    'missing': (
        lambda x: {k: v for k, v in x.items() if k != f'roberta.{KERNEL}'},
        rf'expected roberta\.{KERNEL} \(12, 8\), got no such tensor',
    ),
    'misshapen': (
        lambda x: {**x, f'roberta.{KERNEL}': np.ones((8, 12), np.float32)},
        rf'roberta\.{KERNEL}: expected shape \(12, 8\), got \(8, 12\)',
    ),
    'integers': (
        lambda x: {**x, f'roberta.{KERNEL}': np.ones((12, 8), np.int8)},
        rf'roberta\.{KERNEL}: expected floating-point numbers, got int8',
    ),
    'not a number': (
        lambda x: {**x, f'roberta.{KERNEL}': np.full((12, 8), np.nan, np.float32)},
        rf'roberta\.{KERNEL}: expected finite numbers, got nan',
    ),
    'infinite': (
        lambda x: {**x, f'roberta.{KERNEL}': np.full((12, 8), -np.inf, np.float16)},
        rf'roberta\.{KERNEL}: expected finite numbers, got -inf',
    ),
    'too large': (
        lambda x: {**x, f'roberta.{KERNEL}': np.full((12, 8), 1e99)},
        rf'roberta\.{KERNEL}: expected finite numbers, got inf',
    ),
    'twice': (
        lambda x: {**x, KERNEL: np.ones((12, 8), np.float32)},
        rf'expected {KERNEL} or roberta\.{KERNEL}, got both',
    ),
    'empty': (
        lambda x: {},
        r'expected embeddings\.word_embeddings\.weight \(30, 8\), .* \(37 in all\), got no such',
    ),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_wrong_tensors_are_named_as_in_the_file(tmp_path, damage):
    c = small()
    arrays = {
        f'roberta.{name}': x for name, x in huggingface.rename_params(random_params(c), c).items()
    }
    change, message = DAMAGES[damage]
    write_safetensors(tmp_path, change(arrays))
    with pytest.raises(ValueError, match=rf'model\.safetensors: .*{message}'):
        huggingface.load_params(tmp_path, c)


def test_wrong_tensors_of_flax_are_named_and_shaped_as_flax_does(tmp_path):
    c = small()
    tree = flax_tree(random_params(c), c)
    dense = tree['encoder']['layer']['1']['intermediate']['dense']
    name = r'flax_model\.msgpack: .*bert\.encoder\.layer\.1\.intermediate\.dense\.kernel'
    kernel = dense.pop('kernel')
    with pytest.raises(ValueError, match=rf'{name} \(8, 12\), got no such tensor'):
        huggingface.load_params(write_msgpack(tmp_path, {'bert': tree}), c)
    dense['kernel'] = kernel.T
    with pytest.raises(ValueError, match=rf'{name}: expected shape \(8, 12\), got \(12, 8\)'):
        huggingface.load_params(write_msgpack(tmp_path, {'bert': tree}), c)
    dense['kernel'] = 'x'
    with pytest.raises(ValueError, match=r'flax_model\.msgpack: expected a tree of arrays'):
        huggingface.load_params(write_msgpack(tmp_path, {'bert': tree}), c)


def test_another_number_of_layers_than_stated_is_an_error(tmp_path):
    c = small()
    write_safetensors(tmp_path, huggingface.rename_params(random_params(c), c))
    with pytest.raises(ValueError, match=r'of 1 layers, got also encoder\.layer\.1\..*16 in all'):
        huggingface.load_params(tmp_path, dataclasses.replace(c, num_layers=1))
    with pytest.raises(ValueError, match=r'expected encoder\.layer\.2\..*\(16 in all\), got no'):
        huggingface.load_params(tmp_path, dataclasses.replace(c, num_layers=3))


@pytest.mark.parametrize('file', ['model.safetensors', 'flax_model.msgpack'])
@pytest.mark.parametrize('length', [0, 5, 1000, -1])
def test_a_file_that_is_cut_short_is_named(tmp_path, file, length):
    c = small()
    write_safetensors(tmp_path, huggingface.rename_params(random_params(c), c))
    write_msgpack(tmp_path, flax_tree(random_params(c), c))
    content = (tmp_path / file).read_bytes()
    for other in tmp_path.iterdir():
        other.unlink()
    (tmp_path / file).write_bytes(content[:length])
    size = len(content[:length])
    with pytest.raises(ValueError, match=f'{file}: expected a .*, got {size} bytes that are none'):
        huggingface.load_params(tmp_path, c)


@pytest.mark.parametrize('file', ['model.safetensors', 'flax_model.msgpack'])
@pytest.mark.parametrize(
    'content', [b'version https://git-lfs.github.com/spec/v1\n', b'\x93\1\2\3']
)
def test_a_file_of_another_kind_is_named(tmp_path, file, content):
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=f'{file}: expected a .*, got {len(content)} bytes'):
        huggingface.load_params(tmp_path, small())


@pytest.mark.parametrize('file', ['model.safetensors', 'flax_model.msgpack'])
def test_damaged_bytes_give_weights_or_a_value_error_and_nothing_else(tmp_path, file):
    c = small()
    write_safetensors(tmp_path, huggingface.rename_params(random_params(c), c))
    if file == 'flax_model.msgpack':
        (tmp_path / 'model.safetensors').unlink()
        write_msgpack(tmp_path, flax_tree(random_params(c), c))
    content = (tmp_path / file).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(content)
        damaged[rng.integers(min(len(content), 4000))] = rng.integers(256)
        (tmp_path / file).write_bytes(damaged)
        try:
            huggingface.load_params(tmp_path, c)
        except ValueError as error:
            assert file in str(error)


def test_a_directory_without_weights_is_named_with_what_is_in_it(tmp_path):
    write_config(tmp_path)
    (tmp_path / 'tf_model.h5').touch()
    message = 'flax_model.msgpack or pytorch_model.bin, got config.json, tf_model.h5$'
    with pytest.raises(ValueError, match=message):
        huggingface.load_params(tmp_path, small())
    with pytest.raises(ValueError, match='got no such directory'):
        huggingface.load_params(tmp_path / 'none', small())


def test_the_architecture_is_read_and_the_rest_stays(tmp_path):
    base = config.Encoder(
        init='x', dropout=0.3, pooling='cls', dtype='bfloat16', hidden_dim=5, num_heads=5
    )
    write_config(
        tmp_path,
        vocab_size=31,
        num_hidden_layers=3,
        intermediate_size=9,
        max_position_embeddings=21,
        type_vocab_size=1,
        layer_norm_eps=1,
        hidden_act='gelu_pytorch_tanh',
        pad_token_id=0,
        hidden_dropout_prob=0.9,
        position_embedding_type='absolute',
    )
    sizes = dict(
        vocab_size=31,
        hidden_dim=8,
        num_layers=3,
        num_heads=2,
        mlp_dim=9,
        max_positions=21,
        type_vocab_size=1,
    )
    rest = dict(norm_eps=1.0, activation='gelu_new', pad_id=0, family='xlmr')
    expected = dataclasses.replace(base, **sizes, **rest)
    assert huggingface.read_architecture(tmp_path, base) == expected


@pytest.mark.parametrize('kind', ['xlm-roberta', 'xlm-roberta-xl', 'roberta', 'bert'])
def test_absent_keys_have_the_defaults_of_transformers(tmp_path, kind):
    transformers = pytest.importorskip('transformers')
    (tmp_path / 'config.json').write_text(json.dumps({'model_type': kind}))
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    ours = huggingface.read_architecture(tmp_path, BASE)
    assert ours.family == ('bert' if kind == 'bert' else 'xlmr')
    for key, (setting, _) in huggingface.KEYS.items():
        assert getattr(ours, setting) == getattr(theirs, key), key


@pytest.mark.parametrize(
    'key, value, expected',
    [
        ('model_type', 'distilbert', f"{MODELS}, got 'distilbert'"),
        ('model_type', None, f'{MODELS}, got None'),
        ('position_embedding_type', 'relative_key', "absolute or nothing, got 'relative_key'"),
        ('is_decoder', True, 'False or nothing, got True'),
        ('hidden_act', 'relu', "one of gelu, gelu_python, .*, got 'relu'"),
        ('hidden_size', '8', "an integer from 1 on, got '8'"),
        ('hidden_size', 9, 'a multiple of num_attention_heads=2, got 9'),
        ('num_hidden_layers', -1, 'an integer from 0 on, got -1'),
        ('pad_token_id', None, 'an integer from 0 on, got None'),
        ('layer_norm_eps', 0, 'a positive number, got 0'),
        ('layer_norm_eps', None, 'a positive number, got None'),
    ],
)
def test_an_architecture_that_is_not_ours_is_refused(tmp_path, key, value, expected):
    write_config(tmp_path, **{key: value})
    with pytest.raises(ValueError, match=rf'config\.json: {key}: expected {expected}'):
        huggingface.read_architecture(tmp_path, BASE)


@pytest.mark.parametrize('content', ['', '{"model_type":', '[1]', '7', 'null'])
def test_a_config_that_is_no_json_object_is_named(tmp_path, content):
    (tmp_path / 'config.json').write_text(content)
    with pytest.raises(ValueError, match=r'config\.json: expected a JSON object, got \d+ bytes'):
        huggingface.read_architecture(tmp_path, BASE)


def test_a_directory_without_config_is_named_with_what_is_in_it(tmp_path):
    with pytest.raises(ValueError, match='expected a directory with config.json, got an empty one'):
        huggingface.read_architecture(tmp_path, BASE)
    (tmp_path / 'config.yaml').touch()
    with pytest.raises(ValueError, match='with config.json, got config.yaml$'):
        huggingface.read_architecture(tmp_path, BASE)
    with pytest.raises(ValueError, match='with config.json, got a file$'):
        huggingface.read_architecture(tmp_path / 'config.yaml', BASE)
