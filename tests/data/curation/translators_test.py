"""Programs and models that translate, each as it is installed or converted."""

import json
import shutil
import sys

import pytest

from hbt.data.curation import translators

ENGLISH = ('the house is big', 'my dog sleeps here', 'where is the station', 'we eat bread')
TRAINED = {
    'de': ('das Haus ist gross', 'mein Hund schläft hier', 'wo ist der Bahnhof', 'wir essen Brot'),
    'fr': ('la maison est grande', 'mon chien dort ici', 'où est la gare', 'nous mangeons du pain'),
}
SIZES = dict(
    d_model=32,
    encoder_layers=1,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=64,
    decoder_ffn_dim=64,
    max_position_embeddings=64,
    dropout=0.0,
    attention_dropout=0.0,
    activation_dropout=0.0,
    scale_embedding=True,
)
pytestmark = pytest.mark.filterwarnings('ignore')  # of other libraries


def pieces(folder, name):
    """Trains the SentencePiece model of a checkpoint; returns its pieces."""
    import sentencepiece

    texts = [*ENGLISH, *TRAINED['de'], *TRAINED['fr']]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 4),
        model_prefix=str(folder / name),
        vocab_size=70,
        hard_vocab_limit=False,
        pad_id=-1,
        minloglevel=2,
    )
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / f'{name}.model'))
    return [model.id_to_piece(i) for i in range(3, model.get_piece_size())]


def learn(model, tokenizer, targets, until):
    """Teaches a model a few sentences by heart."""
    import torch

    rows = []
    for code in targets:
        tokenizer.src_lang, tokenizer.tgt_lang = 'en', code  # of no effect in OPUS-MT's
        rows += [
            (tokenizer(a)['input_ids'], tokenizer(text_target=b)['input_ids'])
            for a, b in zip(ENGLISH, TRAINED[code], strict=True)
        ]

    def padded(side, fill):
        longest = max(len(row[side]) for row in rows)
        return torch.tensor([row[side] + [fill] * (longest - len(row[side])) for row in rows])

    inputs, labels = padded(0, tokenizer.pad_token_id), padded(1, -100)
    mask = (inputs != tokenizer.pad_token_id).long()
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(900):
        loss = model(input_ids=inputs, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.get_input_embeddings().weight.data[tokenizer.pad_token_id] = 0  # as at the beginning
        if float(loss) < until:
            return
    raise AssertionError(f'not learnt: {float(loss)}')


def converted(folder, copied):
    import ctranslate2.converters

    out = folder / 'converted'
    convert = ctranslate2.converters.TransformersConverter(str(folder), copy_files=copied)
    convert.convert(str(out))
    return f'ctranslate2:{out}'


@pytest.fixture
def libraries():
    for name in ('ctranslate2', 'torch', 'transformers'):
        pytest.importorskip(name)
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    translators.load_ctranslate2.cache_clear()


@pytest.mark.slow
def test_a_converted_opus_mt_model_gives_the_translations_it_learnt(libraries, tmp_path):
    import transformers

    vocabulary = ['</s>', '<unk>', *pieces(tmp_path, 'source'), '<pad>']
    (tmp_path / 'vocab.json').write_text(json.dumps({x: i for i, x in enumerate(vocabulary)}))
    for name in ('source', 'target'):
        shutil.copy(tmp_path / 'source.model', tmp_path / f'{name}.spm')
    tokenizer = transformers.MarianTokenizer(
        *(str(tmp_path / x) for x in ('source.spm', 'target.spm', 'vocab.json'))
    )
    size, pad = len(vocabulary), len(vocabulary) - 1
    c = transformers.MarianConfig(
        vocab_size=size, pad_token_id=pad, eos_token_id=0, decoder_start_token_id=pad, **SIZES
    )
    model = transformers.MarianMTModel(c)
    learn(model, tokenizer, ['de'], 0.01)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    spec = converted(tmp_path, ['source.spm', 'target.spm'])
    translate = translators.make_engine([spec], ['de'])
    assert translate([*ENGLISH, ENGLISH[1]], 'en', 'de') == [*TRAINED['de'], TRAINED['de'][1]]
    assert translate([], 'en', 'de') == []


@pytest.mark.slow
def test_a_converted_m2m_100_model_is_told_the_languages(libraries, tmp_path, monkeypatch):
    import ctranslate2.converters
    import transformers

    vocabulary = ['<s>', '<pad>', '</s>', '<unk>', *pieces(tmp_path, 'sentencepiece.bpe')]
    (tmp_path / 'sentencepiece.bpe.model').rename(tmp_path / 'trained.model')
    shutil.copy(tmp_path / 'trained.model', tmp_path / 'sentencepiece.bpe.model')
    (tmp_path / 'vocab.json').write_text(json.dumps({x: i for i, x in enumerate(vocabulary)}))
    tokenizer = transformers.M2M100Tokenizer(
        str(tmp_path / 'vocab.json'), str(tmp_path / 'sentencepiece.bpe.model')
    )
    c = transformers.M2M100Config(
        vocab_size=len(vocabulary) + 108,  # 100 languages, and 8 that have no name
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=2,
        encoder_layerdrop=0.0,
        decoder_layerdrop=0.0,
        **SIZES,
    )
    model = transformers.M2M100ForConditionalGeneration(c)
    learn(model, tokenizer, TRAINED, 0.052)  # it cannot know which language comes first
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    # The converter does not find the languages in tokenizers of transformers 5.
    names = [*vocabulary, *tokenizer.lang_token_to_id, *(f'madeupword{i}' for i in range(8))]
    loader = ctranslate2.converters.transformers.M2M100Loader
    monkeypatch.setattr(loader, 'get_vocabulary', lambda *_: names)
    translate = translators.make_engine(
        [converted(tmp_path, ['sentencepiece.bpe.model'])], ['de', 'fr']
    )
    for code, expected in TRAINED.items():
        assert translate(list(ENGLISH), 'en', code) == list(expected)
    with pytest.raises(ValueError, match="expected a language of the model, got 'nds'"):
        translators.make_engine([f'ctranslate2:{tmp_path}/converted'], ['nds'])(['a'], 'en', 'nds')


def test_a_byte_order_mark_of_a_program_is_no_translation(tmp_path):
    program = tmp_path / 'engine.py'
    code = 'import sys\ndata = sys.stdin.buffer.read().upper()\n'
    program.write_text(code + "sys.stdout.buffer.write(b'\\xef\\xbb\\xbf' + data)\n")
    translate = translators.make_engine([f'command:{sys.executable} {program}'], ['de'])
    assert translate(['a\u2028b', 'c'], 'en', 'de') == ['A B', 'C']


def test_a_directory_without_a_model_is_named(tmp_path):
    engine = translators.make_engine([f'ctranslate2:{tmp_path}/none'], ['de'])
    with pytest.raises(ValueError, match='expected a model of CTranslate2, got no such directory'):
        engine(['a'], 'en', 'de')


@pytest.mark.skipif(not shutil.which('apertium'), reason='no apertium')
def test_apertium_translates_line_by_line():
    translate = translators.make_engine(['command:apertium -u eng-spa'], ['es'])
    texts = translate(['The house is big', 'Where is the door?', 'It has 12 rooms.'], 'en', 'es')
    assert len(texts) == 3 and 'casa' in texts[0] and 'puerta' in texts[1] and '12' in texts[2]
