"""A table of token embeddings alone: StaticEmbedding of sentence-transformers."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors.numpy
import tokenizers

import hbt
from hbt import config
from hbt.data import tokenizer_files
from hbt.models import encoder, model_dir
from tests import tiny

TEXTS = ['one two', 'two', ' '.join(['three one'] * 30), 'unknown two']


def make_tokenizer():
    """Words and, around every text, special tokens."""
    words = ['<pad>', '<s>', '</s>', '<unk>', 'ask', 'tell', 'one', 'two', 'three']
    model = tokenizers.models.WordLevel({x: i for i, x in enumerate(words)}, unk_token='<unk>')
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single='<s> $A </s>', special_tokens=[('<s>', 1), ('</s>', 2)]
    )
    return tokenizer


def make_model(**changes):
    sizes = dict(family='static', num_layers=0, vocab_size=9, pad_id=0, max_positions=20)
    sizes |= dict(num_heads=1)
    c = dataclasses.replace(tiny.make().encoder, **sizes | changes)
    full = config.Config(data=config.Data('', (), '', 'ask ', 'tell ', 20, 20), encoder=c)
    params = jax.device_get(encoder.init_params(c, jax.random.key(0)))
    tokenizer = tokenizer_files.without_special_tokens(make_tokenizer())
    return model_dir.Model(full, params, tokenizer)


def test_the_embedding_is_the_mean_of_the_rows_at_length_1():
    c, params, _ = make_model()
    assert encoder.param_shapes(c.encoder) == {'embeddings/token': (9, 32)}
    tokens, lengths = np.array([[3, 5, 5, 0], [7, 0, 0, 0]]), np.array([3, 1])
    got = encoder.encode_padded(jax.device_put(params), tokens, lengths, c.encoder)
    table = params['embeddings']['token']
    expected = np.stack([(table[3] + 2 * table[5]) / 3, table[7]])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize(
    'changes', [{}, dict(normalise=False), dict(projection_dim=7), dict(norm='pre')]
)
def test_a_written_directory_is_read_as_it_was_and_by_sentence_transformers(tmp_path, changes):
    model = make_model(**changes)
    model_dir.write_model(tmp_path / 'x', model, '')
    again = model_dir.load_model(str(tmp_path / 'x'))
    assert again.config.data == model.config.data
    for name in ('family', 'normalise', 'projection_dim', 'max_positions', 'num_layers'):
        assert getattr(again.config.encoder, name) == getattr(model.config.encoder, name), name
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)
    sentence_transformers = pytest.importorskip('sentence_transformers')
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / 'x'), device='cpu')
    ours = hbt.load(str(tmp_path / 'x')).encode
    for name in ('query', 'document', None):
        expected = theirs.encode(TEXTS, prompt_name=name)
        np.testing.assert_allclose(ours(TEXTS, name or ''), expected, atol=1e-6)


@pytest.mark.parametrize('place', ['', '0_StaticEmbedding'])
def test_a_directory_of_sentence_transformers_embeds_the_same(tmp_path, place):
    """Its tokenizer may put special tokens around a text, which are not embedded."""
    pytest.importorskip('torch')
    sentence_transformers = pytest.importorskip('sentence_transformers')
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    table = np.random.default_rng(0).normal(size=(9, 16)).astype(np.float32)
    module = StaticEmbedding(make_tokenizer(), embedding_weights=table)
    theirs = sentence_transformers.SentenceTransformer(modules=[module], device='cpu')
    theirs.save(str(tmp_path / 'x'), create_model_card=False)
    if place:  # as older releases saved it
        (tmp_path / 'x' / place).mkdir()
        for name in ('model.safetensors', 'tokenizer.json'):
            (tmp_path / 'x' / name).rename(tmp_path / 'x' / place / name)
        file = tmp_path / 'x/modules.json'
        modules = json.loads(file.read_text())
        modules[0]['path'] = place
        file.write_text(json.dumps(modules))
    model = hbt.load(str(tmp_path / 'x'))
    np.testing.assert_allclose(model.encode(TEXTS), theirs.encode(TEXTS), atol=1e-6)


def test_another_tensor_than_the_table_is_named(tmp_path):
    model_dir.write_model(tmp_path / 'x', make_model(), '')
    file = tmp_path / 'x/model.safetensors'
    for tensors, message in (
        ({'embeddings': np.zeros((9, 4), np.float32)}, 'tensors: expected embedding.weight, got'),
        ({'embedding.weight': np.zeros(9, np.float32)}, 'expected two axes, got'),
    ):
        safetensors.numpy.save_file(tensors, file)
        with pytest.raises(ValueError, match=f'{file}: .*{message}'):
            model_dir.load_model(str(tmp_path / 'x'))


def test_a_truncation_that_is_no_length_is_refused(tmp_path):
    model_dir.write_model(tmp_path / 'x', make_model(), '')
    file = tmp_path / 'x/tokenizer.json'
    tree = json.loads(file.read_text())
    assert tree['truncation']['max_length'] == 20
    for value in (5, {'max_length': 0}):
        file.write_text(json.dumps(tree | {'truncation': value}))
        with pytest.raises(ValueError, match=f'{file}: truncation: expected max_length from 4 to'):
            model_dir.read_architecture(tmp_path / 'x', config.Encoder())
