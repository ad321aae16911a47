import dataclasses

import jax
import numpy as np
import tokenizers

from hbt import config, embed, encoder, sharding


def tokenizer():
    words = {'<s>': 0, '<pad>': 1, '</s>': 2, '<unk>': 3}
    words |= {f'w{i}': 4 + i for i in range(40)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, '<unk>'))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single='<s> $A </s>', special_tokens=[('<s>', 0), ('</s>', 2)]
    )
    return made


def test_a_text_too_long_is_cut_and_keeps_its_end():
    table = embed.tokenise(tokenizer(), ['w1 w2 w3 w4 w5 w6', 'w1'], 'w0 ', 6)
    np.testing.assert_array_equal(table.tokens, [0, 4, 5, 6, 7, 2, 0, 4, 5, 2])
    np.testing.assert_array_equal(table.offsets, [0, 6, 10])


def test_embeddings_come_in_the_order_of_the_texts_whatever_their_batch():
    c = config.tiny(eval=config.Eval(batch_size=16))
    c.encoder = dataclasses.replace(c.encoder, vocab_size=44)
    params = encoder.init(c.encoder, jax.random.key(0))
    rng = np.random.default_rng(0)
    texts = [' '.join(f'w{i}' for i in rng.integers(0, 40, n)) for n in rng.integers(1, 30, 37)]
    table = embed.tokenise(tokenizer(), texts, '', 64)
    params = jax.device_put(params, sharding.replicated(sharding.make_mesh()))
    found = embed.make(c, sharding.make_mesh())(params, table, 'texts')
    assert found.shape == (37, 32)
    for i in (0, 7, 36):
        tokens = table.tokens[table.offsets[i] : table.offsets[i + 1]][None]
        alone = encoder.encode(params, tokens, c.encoder)
        np.testing.assert_allclose(found[i], alone[0], atol=1e-6)
