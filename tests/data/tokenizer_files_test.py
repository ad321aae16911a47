"""Tokenizers are loaded as they are; files that are none are refused by name."""

import numpy as np
import pytest
import tokenizers

from hbt.data import tokenizer_files
from hbt.models import vocab_trim


def word_tokenizer(words=(), pad='[PAD]'):
    vocabulary = {word: i for i, word in enumerate([pad, '[UNK]', 'hello', *words])}
    result = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token='[UNK]'))
    result.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return result


def test_a_tokenizer_is_read_from_a_file_or_its_directory_and_neither_pads_nor_truncates(tmp_path):
    saved = word_tokenizer(['world'])
    saved.enable_padding(length=9)
    saved.enable_truncation(1)
    saved.save(str(tmp_path / 'tokenizer.json'))
    for name in (tmp_path, tmp_path / 'tokenizer.json'):
        loaded = tokenizer_files.load_tokenizer(name)
        assert loaded.padding is None and loaded.truncation is None
        assert loaded.encode('hello world and').ids == [2, 3, 1]


def test_the_padding_token_has_either_name():
    assert tokenizer_files.padding_id(word_tokenizer()) == 0
    assert tokenizer_files.padding_id(word_tokenizer(['<pad>'], pad='x')) == 3
    with pytest.raises(ValueError, match=r'expected a token <pad> or \[PAD\], got neither among 3'):
        tokenizer_files.padding_id(word_tokenizer(pad='x'))


def test_files_without_a_tokenizer_are_refused_by_name(tmp_path):
    message = 'tokenizer.json or vocab.txt or sentencepiece.bpe.model, got'
    with pytest.raises(ValueError, match=f'{message} an empty one'):
        tokenizer_files.load_tokenizer(tmp_path)
    (tmp_path / 'notes.txt').touch()
    with pytest.raises(ValueError, match=f'{message} notes.txt'):
        tokenizer_files.load_tokenizer(tmp_path)
    for file in ('notes.txt', 'tokenizer.json'):
        (tmp_path / file).write_text('{"version":')
        with pytest.raises(ValueError, match=f'{file}: expected a tokenizer.json, got 11 bytes'):
            tokenizer_files.load_tokenizer(tmp_path / file)
    with pytest.raises(ValueError, match='tokenizer.json: expected'):
        tokenizer_files.load_tokenizer(tmp_path)


def write_vocabulary(folder, words):
    (folder / 'vocab.txt').write_text('\n'.join(words))
    (folder / 'config.json').write_text('{"model_type": "bert"}')
    return folder


SPECIAL = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
WORDS = [f'w{i}' for i in range(100)]


def test_a_vocabulary_of_bert_becomes_a_tokenizer(tmp_path):
    pytest.importorskip('transformers')
    write_vocabulary(tmp_path, [*SPECIAL, 'hello', *WORDS])
    loaded = tokenizer_files.load_tokenizer(tmp_path)
    assert loaded.encode('hello w1').tokens == ['[CLS]', 'hello', 'w1', '[SEP]']
    assert tokenizer_files.padding_id(loaded) == 0
    assert loaded.padding is None and loaded.truncation is None


def test_a_sentencepiece_model_becomes_the_tokenizer_of_xlmr(tmp_path):
    pytest.importorskip('transformers')
    sentencepiece = pytest.importorskip('sentencepiece')
    rng = np.random.default_rng(0)
    lines = [' '.join(f'hello{i}' for i in rng.integers(0, 10**6, 5)) for _ in range(500)]
    with open(tmp_path / 'sentencepiece.bpe.model', 'wb') as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=file, vocab_size=150, minloglevel=2
        )
    (tmp_path / 'tokenizer_config.json').write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    loaded = tokenizer_files.load_tokenizer(tmp_path)
    pieces = sentencepiece.SentencePieceProcessor(
        model_file=str(tmp_path / 'sentencepiece.bpe.model')
    )
    text = 'hello12 hello 345'
    assert loaded.encode(text).ids == [0, *(i + 1 for i in pieces.encode(text)), 2]
    assert tokenizer_files.padding_id(loaded) == 1


@pytest.mark.parametrize(
    'words, got', [(SPECIAL, 'got 5 tokens'), ([*SPECIAL, *WORDS], 'got 105 tokens that cannot')]
)
def test_a_vocabulary_without_words_is_refused(tmp_path, words, got):
    pytest.importorskip('transformers')
    write_vocabulary(tmp_path, words)
    with pytest.raises(ValueError, match=f'of 100 tokens or more that can spell hello, {got}'):
        tokenizer_files.load_tokenizer(tmp_path)


def test_a_vocabulary_without_its_config_is_refused(tmp_path):
    pytest.importorskip('transformers')
    (tmp_path / 'vocab.txt').write_text('\n'.join([*SPECIAL, 'hello', *WORDS]))
    with pytest.raises(
        ValueError, match='expected a vocabulary for transformers, with config.json'
    ):
        tokenizer_files.load_tokenizer(tmp_path)


def unigram():
    pieces = [('<s>', 0.0), ('<pad>', 0.0), ('</s>', 0.0), ('<unk>', 0.0)]
    pieces += [('▁', -3.0), ('▁ab', -4.0), ('▁a', -5.0), ('b', -5.5), ('c', -6.0), ('cd', -6.5)]
    pieces += [('d', -7.0), ('▁кот', -4.0), ('к', -8.0), ('о', -8.0), ('т', -8.0), ('7', -6.0)]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram([*pieces, ('<mask>', 0.0)], 3))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(['<s>', '<pad>', '</s>', '<unk>', '<mask>'])
    ends = [('<s>', 0), ('</s>', 2)]
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing('<s> $A </s>', None, ends)
    return tokenizer


def bpe():
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token='<unk>'))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=60, special_tokens=['<s>', '<pad>', '</s>', '<unk>'], show_progress=False
    )
    tokenizer.train_from_iterator(['abcab abcd abd cdc ab'] * 9, trainer)
    tokenizer.post_processor = tokenizers.processors.RobertaProcessing(('</s>', 2), ('<s>', 0))
    return tokenizer


def wordpiece():
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', 'ab', 'a', '##b', '##c', '##cd', 'abc', 'x']
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({w: i for i, w in enumerate(words)}, unk_token='[UNK]')
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = tokenizers.processors.BertProcessing(('[SEP]', 3), ('[CLS]', 2))
    return tokenizer


@pytest.mark.parametrize('make', [unigram, bpe, wordpiece])
def test_a_trimmed_tokenizer_splits_covered_texts_as_before(make):
    original, texts = make(), ['abcd ab', 'abcab', 'a ab ab', '']
    used = {i for text in texts for i in original.encode(text).ids}
    small, ids = vocab_trim.trim_tokenizer(original, used)
    assert tokenizer_files.vocab_size(small) == len(ids) < tokenizer_files.vocab_size(original)
    for text in texts:
        before, after = original.encode(text), small.encode(text)
        assert after.tokens == before.tokens and len(after.ids) > 1
        np.testing.assert_array_equal(ids[after.ids], before.ids)
    assert tokenizer_files.padding_id(small) == tokenizer_files.padding_id(original)
