"""Tokenizers are loaded as transformers loads them; files that are none are refused by name."""

import gzip
import json
import unicodedata

import numpy as np
import pytest
import tokenizers

from hbt.data import tokenization, tokenizer_files
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


@pytest.mark.parametrize(
    'kind, around, pad',
    [('', ['<s>', '</s>'], 1), (':static', [], 1), (':bert', ['[CLS]', '[SEP]'], 0)],
)
def test_a_trained_tokenizer_has_the_special_tokens_of_its_kind(kind, around, pad):
    texts = [f'the forest {i} and the river {i}' for i in range(100)]
    tokenizer = tokenizer_files.train_tokenizer(f'train:300{kind}', lambda: texts)
    assert tokenizer.encode('').tokens == around
    tokens = tokenizer.encode('the river').tokens
    pieces = tokens[1:-1] if around else tokens
    assert pieces == (['the', 'river'] if kind == ':bert' else ['▁the', '▁river'])
    assert tokenizer_files.padding_id(tokenizer) == pad
    plain = tokenizer_files.without_special_tokens(tokenizer)
    assert plain.encode('the river').tokens == pieces
    cut = tokenizer_files.truncating(plain, 1)
    assert cut.encode('the river').tokens == pieces[:1]
    assert plain.truncation is None


@pytest.mark.parametrize('kind', ['', ':static', ':bert'])
def test_the_same_texts_train_the_same_tokenizer(kind):
    # Of many words that are equally frequent, so that the order of merges is a matter of ties.
    texts = [f'{i:04}'.translate(str.maketrans('0123456789', 'abcdefghij')) for i in range(3000)]
    train = tokenizer_files.train_tokenizer
    (saved,) = {train(f'train:400{kind}', lambda: texts).to_str() for _ in range(3)}
    assert tokenizers.Tokenizer.from_str(saved).get_vocab_size() == 400
    assert len(json.loads(saved)['added_tokens']) == (5 if kind == ':bert' else 4)


@pytest.mark.parametrize('spec', ['train:', 'train:299', 'train:x', 'train:300:gpt'])
def test_an_unknown_kind_of_tokenizer_is_refused(spec):
    with pytest.raises(ValueError, match=f'expected train:SIZE, .* of 300 or more, got {spec!r}'):
        tokenizer_files.train_tokenizer(spec, list)


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


HELLO = ['Hello Über', 'hello uber', 'İstanbul \tŻółć', 'Ａ漢字b', 'x\u0301\x07 ﬁ']


def write_bert(folder, texts, lowercase=True, special=SPECIAL, **settings):
    """A tokenizer of BERT whose pieces are characters; with settings beside it, if there are."""
    forms = (y for x in texts for y in (x, x.lower(), x.upper()))
    both = {c for x in forms for y in (x, unicodedata.normalize('NFD', x)) for c in y}
    letters = sorted(c for c in both if not c.isspace())
    words = dict.fromkeys([*special, *letters, *(f'##{c}' for c in letters)])
    vocabulary = {word: i for i, word in enumerate(words)}
    model = tokenizers.models.WordPiece(vocabulary, unk_token='[UNK]')
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = tokenizers.processors.BertProcessing(('[SEP]', 3), ('[CLS]', 2))
    tokenizer.add_special_tokens(special)
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / 'tokenizer.json'))
    if settings:
        (folder / 'tokenizer_config.json').write_text(json.dumps(settings))
    return folder


def spell(folder, text):
    tokens = tokenizer_files.load_tokenizer(folder).encode(text, add_special_tokens=False).tokens
    return ''.join(x.removeprefix('##') for x in tokens)


def test_settings_beside_a_tokenizer_say_how_it_normalises_texts(tmp_path):
    pytest.importorskip('transformers')
    folder, text = tmp_path / 'x', 'Hello Über'
    assert spell(write_bert(folder, HELLO), text) == 'hellouber'
    kind = {'tokenizer_class': 'BertTokenizer'}
    write_bert(folder, HELLO, do_lower_case=False, **kind)
    assert spell(folder, text) == spell(folder / 'tokenizer.json', text) == 'HelloÜber'
    assert spell(write_bert(folder, HELLO, strip_accents=False, **kind), text) == 'helloüber'
    kind = {'tokenizer_class': 'PreTrainedTokenizerFast'}  # for which transformers passes it over
    assert spell(write_bert(folder, HELLO, do_lower_case=False, **kind), text) == 'hellouber'
    (folder / 'tokenizer.json').rename(folder / 'own.json')
    assert spell(folder / 'own.json', text) == 'hellouber'


def test_settings_add_no_mask_that_the_vocabulary_lacks(tmp_path):
    pytest.importorskip('transformers')
    write_bert(tmp_path, HELLO, special=SPECIAL[:4], tokenizer_class='BertTokenizer')
    plain = tokenizers.Tokenizer.from_file(str(tmp_path / 'tokenizer.json'))
    assert tokenizer_files.load_tokenizer(tmp_path).get_vocab() == plain.get_vocab()


SETTINGS = {
    'nothing': {},
    'no class': {'do_lower_case': False},
    'cased': {'tokenizer_class': 'BertTokenizer', 'do_lower_case': False},
    'accents': {'tokenizer_class': 'BertTokenizerFast', 'strip_accents': False},
    'no accents': {'tokenizer_class': 'BertTokenizer', 'strip_accents': True},
    'Chinese': {'tokenizer_class': 'BertTokenizer', 'tokenize_chinese_chars': False},
    'plain': {'tokenizer_class': 'PreTrainedTokenizerFast', 'do_lower_case': False},
    'unknown': {'tokenizer_class': 'SomeTokenizer', 'do_lower_case': False},
    'more tokens': {'tokenizer_class': 'BertTokenizer', 'additional_special_tokens': ['Hell']},
}  # fmt: skip


def assert_as_transformers(folder, texts):
    transformers = pytest.importorskip('transformers')
    expected = transformers.AutoTokenizer.from_pretrained(str(folder))
    tokenizer = tokenizer_files.load_tokenizer(folder)
    table, _ = tokenization.encode_texts(tokenizer, texts, '', 10**6)
    expected = expected(texts)['input_ids']
    assert table.lengths.tolist() == [len(x) for x in expected]
    assert table.tokens.tolist() == [token for x in expected for token in x]


@pytest.mark.parametrize('lowercase', [True, False])
@pytest.mark.parametrize('settings', SETTINGS)
def test_tokens_are_those_of_transformers_whatever_the_settings(tmp_path, settings, lowercase):
    write_bert(tmp_path, HELLO, lowercase, **SETTINGS[settings])
    (tmp_path / 'config.json').write_text('{"model_type": "bert"}')
    assert_as_transformers(tmp_path, [*HELLO, 'a [PAD] b', '', ' '])


def real_texts(shared_data):
    """1,000 in all languages of FLORES."""
    with gzip.open(shared_data / 'flores.jsonl.gz', 'rt') as lines:
        rows = [json.loads(line)['passage'] for line, _ in zip(lines, range(100), strict=False)]
    return [text for row in rows for text in row.values()][::5][:1000]


@pytest.mark.slow
@pytest.mark.parametrize('settings', SETTINGS)
def test_tokens_of_real_texts_are_those_of_transformers(tmp_path, shared_data, settings):
    texts = real_texts(shared_data)
    assert len(texts) == 1000
    write_bert(tmp_path, texts, **SETTINGS[settings])
    (tmp_path / 'config.json').write_text('{"model_type": "bert"}')
    assert_as_transformers(tmp_path, texts)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['xlm-roberta', 'xlm-roberta-xl', 'bert'])
def test_tokens_of_xlmr_are_those_of_transformers(tmp_path, shared_data, kind):
    file = shared_data / 'xlm-roberta-tokenizer/tokenizer.json'
    (tmp_path / 'tokenizer.json').symlink_to(file)
    name = 'XLMRobertaTokenizerFast' if kind == 'bert' else None  # as in multilingual E5 small
    settings = {'tokenizer_class': name, 'do_lower_case': True, 'model_max_length': 512}
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps(settings))
    (tmp_path / 'config.json').write_text(json.dumps({'model_type': kind}))
    texts = real_texts(shared_data)
    assert_as_transformers(tmp_path, texts)
    plain = tokenizer_files.load_tokenizer(file)
    loaded = tokenizer_files.load_tokenizer(tmp_path)
    assert [x.ids for x in loaded.encode_batch(texts)] == [x.ids for x in plain.encode_batch(texts)]


CONTRADICTIONS = {
    'class': ({'tokenizer_class': 'XLMRobertaTokenizer'}, 'expected settings of a tokenizer that'),
    'kind': (
        {'tokenizer_class': 'BertTokenizer'},
        'tokenizer_class: expected one for WordLevel .* WordPiece',
    ),
    'side': ({'truncation_side': 'left'}, "truncation_side: expected 'right', got 'left'"),
    'split': ({'split_special_tokens': True}, 'split_special_tokens: expected false, got true'),
    'damage': ({'added_tokens_decoder': {'x': 'y'}}, 'expected settings of a tokenizer that'),
}


@pytest.mark.parametrize('name', CONTRADICTIONS)
def test_settings_that_contradict_a_tokenizer_are_refused(tmp_path, name):
    pytest.importorskip('transformers')
    settings, message = CONTRADICTIONS[name]
    word_tokenizer().save(str(tmp_path / 'tokenizer.json'))
    settings = {'tokenizer_class': 'PreTrainedTokenizerFast'} | settings
    (tmp_path / 'tokenizer_config.json').write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=f'{tmp_path}: {message}'):
        tokenizer_files.load_tokenizer(tmp_path)


@pytest.mark.parametrize('file', tokenizer_files.SENTENCE_FILES)
def test_lower_case_of_sentence_transformers_has_the_older_names_too(tmp_path, file):
    tokenizer = word_tokenizer()
    tokenizer.save(str(tmp_path / 'tokenizer.json'))
    assert tokenizer_files.load_tokenizer(tmp_path).encode('Hello').ids == [1]
    (tmp_path / file).write_text('{"do_lower_case": true}')
    assert tokenizer_files.load_tokenizer(tmp_path).encode('Hello').ids == [2]
    (tmp_path / file).write_text('{"do_lower_case": "no"}')
    message = f"{file}: do_lower_case: expected true or false, got 'no'"
    with pytest.raises(ValueError, match=message):
        tokenizer_files.load_tokenizer(tmp_path)


def test_of_several_settings_of_sentence_transformers_the_first_that_is_not_empty_counts(tmp_path):
    for number, name in ((2, 'roberta'), (3, 'xlnet'), (0, 'bert')):
        content = {'max_seq_length': number} if number else {}
        (tmp_path / f'sentence_{name}_config.json').write_text(json.dumps(content))
    file, content = tokenizer_files.read_sentence_settings(tmp_path)
    assert (file.name, content) == ('sentence_roberta_config.json', {'max_seq_length': 2})


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
