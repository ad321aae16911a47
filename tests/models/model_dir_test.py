"""Whole models embed texts as sentence-transformers does, and are written as it reads them."""

import dataclasses
import json
import pathlib
import runpy
import shutil
import types

import huggingface_hub
import jax
import numpy as np
import pytest
import safetensors.numpy

import hbt
from hbt import config
from hbt.data import tokenization, tokenizer_files
from hbt.models import encoder, model_dir, weights
from hbt.utils import hub
from tests import FIXTURES, tiny

LABSE = FIXTURES / 'labse'
MAKE = FIXTURES / 'make.py'
TEXTS = ['w1 w2 w3', '', 'w4', ' w5  unknown w49 ', ' '.join(f'w{i}' for i in range(30))]


def copy(tmp_path):
    return pathlib.Path(shutil.copytree(LABSE, tmp_path / 'model'))


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_the_recorded_directory_gives_the_recorded_embeddings():
    expected = np.load(LABSE / 'expected.npz')
    model = hbt.load(str(LABSE), batch_size=8).encode
    for ours, theirs in (('query', 'query'), ('passage', 'document'), ('', 'none')):
        np.testing.assert_allclose(model(TEXTS, ours), expected[theirs], atol=1e-6, rtol=0)


def test_what_a_directory_states_is_read():
    c = model_dir.load_model(str(LABSE)).config
    assert (c.encoder.pooling, c.encoder.projection_dim, c.encoder.projection_activation) == (
        'cls',
        24,
        'tanh',
    )
    assert c.encoder.normalise and c.encoder.norm == 'post'
    assert (c.data.query_prefix, c.data.passage_prefix) == ('ask ', 'tell ')
    assert (c.data.query_length, c.data.passage_length) == (12, 12)


def test_a_written_directory_is_read_as_it_was(tmp_path):
    model = model_dir.load_model(str(LABSE))
    model_dir.write_model(tmp_path / 'out', model, '# A card\n')
    again = model_dir.load_model(str(tmp_path / 'out'))
    assert again.config == model.config
    assert again.tokenizer.to_str() == model.tokenizer.to_str()
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)
    assert (tmp_path / 'out' / 'README.md').read_text() == '# A card\n'
    files = [x for x in (tmp_path / 'out').rglob('*') if x.is_file()]
    assert len({x.stat().st_mode for x in files}) == 1, 'all are for those whom the umask admits'
    for file in ('model.safetensors', '2_Dense/model.safetensors'):
        ours = safetensors.numpy.load_file(tmp_path / 'out' / file)
        theirs = safetensors.numpy.load_file(LABSE / file)
        assert {name for name in theirs if not name.startswith('pooler.')} == set(ours)
        for name, array in ours.items():
            np.testing.assert_array_equal(array, theirs[name])
    with pytest.raises(ValueError, match='out: expected nothing there yet, got 1_Pooling'):
        model_dir.write_model(tmp_path / 'out', model, '')


def test_both_names_of_the_prompt_of_documents_are_written_and_read(tmp_path):
    """`document` is that of sentence-transformers, `passage` that of training."""
    model_dir.write_model(tmp_path / 'x', model_dir.load_model(str(LABSE)), '')
    file = tmp_path / 'x/config_sentence_transformers.json'
    prompts = json.loads(file.read_text())['prompts']
    assert prompts == {'query': 'ask ', 'document': 'tell ', 'passage': 'tell '}
    for name in ('document', 'passage'):
        change(file, prompts={'query': 'ask ', name: f'{name}: '})
        data = model_dir.load_model(str(tmp_path / 'x')).config.data
        assert (data.query_prefix, data.passage_prefix) == ('ask ', f'{name}: ')


@pytest.mark.parametrize(
    'changes',
    [
        dict(norm='pre', pooling='max', normalise=False),
        dict(projection_dim=7, projection_activation='identity', pooling='mean'),
    ],
)
def test_every_kind_of_encoder_is_written_and_read(tmp_path, changes):
    tokenizer = model_dir.load_model(str(LABSE)).tokenizer
    c = dataclasses.replace(tiny.make().encoder, vocab_size=56, pad_id=0, **changes)
    full = config.Config(data=config.Data('', (), '', 'q ', 'p ', 20, 20), encoder=c)
    params = jax.device_get(encoder.init_params(c, jax.random.key(0)))
    model_dir.write_model(tmp_path / 'x', model_dir.Model(full, params, tokenizer), '')
    again = model_dir.load_model(str(tmp_path / 'x'))
    assert again.config == full
    jax.tree.map(np.testing.assert_array_equal, again.params, params)


@pytest.mark.parametrize(
    'changes',
    [
        dict(pooling='mean'),
        dict(pooling='cls', normalise=False),
        dict(projection_dim=12, projection_activation='tanh'),
    ],
)
def test_a_truncated_model_embeds_the_first_dimensions_and_is_written_as_any_other(
    tmp_path, changes
):
    tokenizer = model_dir.load_model(str(LABSE)).tokenizer
    c = dataclasses.replace(tiny.make().encoder, vocab_size=56, pad_id=0, **changes)
    full = config.Config(data=config.Data('', (), '', 'q ', 'p ', 20, 20), encoder=c)
    full.loss.dims = (5, 9)
    params = jax.device_get(encoder.init_params(c, jax.random.key(0)))
    model = model_dir.Model(full, params, tokenizer)
    small = model_dir.truncate_model(model, 7)
    assert small.config.encoder.embedding_dim == 7 and small.config.loss.dims == (5,)
    assert full.encoder is c and full.loss.dims == (5, 9), 'the model itself is unchanged'
    tokens, lengths = np.arange(24).reshape(4, 6) + 4, np.array([6, 1, 4, 3])
    whole, got = (
        encoder.encode_padded(jax.device_put(x.params), tokens, lengths, x.config.encoder)
        for x in (model, small)
    )
    expected = np.asarray(whole)[:, :7]
    if c.normalise:
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    model_dir.write_model(tmp_path / 'x', small, '')
    again = model_dir.load_model(str(tmp_path / 'x'))
    assert again.config.encoder == small.config.encoder
    jax.tree.map(np.testing.assert_array_equal, again.params, small.params)
    for dim in (None, c.embedding_dim):
        assert model_dir.truncate_model(model, dim).params is params


def test_truncate_dim_of_sentence_transformers_is_read(tmp_path):
    folder = copy(tmp_path)
    file, loaded = folder / 'config_sentence_transformers.json', {}
    for stated in (9, 100, None):  # more than there are: all, as in sentence-transformers
        change(file, truncate_dim=stated)
        loaded[stated] = model_dir.load_model(str(folder)).config.encoder.embedding_dim
    assert loaded == {9: 9, 100: 24, None: 24}
    change(file, truncate_dim=9)
    assert model_dir.load_model(str(folder), 12).config.encoder.embedding_dim == 12
    for damage in (0, -1, '9', 9.5, True):
        change(file, truncate_dim=damage)
        with pytest.raises(ValueError, match=f'{file.name}: truncate_dim: expected an integer'):
            model_dir.load_model(str(folder))


DAMAGES = {
    'pooling': ('1_Pooling/config.json', {'pooling_mode': 'lasttoken'}, 'pooling_mode: .*last'),
    'two modes': ('1_Pooling/config.json', {'pooling_mode': ['cls', 'mean']}, 'pooling_mode'),
    'prompt': ('1_Pooling/config.json', {'include_prompt': False}, 'include_prompt: expected true'),
    'width': ('2_Dense/config.json', {'in_features': 8}, 'in_features: expected 16 as the encoder'),
    'size': ('2_Dense/config.json', {'out_features': 'x'}, "out_features: expected .* got 'x'"),
    'shape': ('2_Dense/config.json', {'out_features': 9}, r'linear.*: expected shape'),
    'code': ('2_Dense/config.json', {'activation_function': 'os.system'}, "got 'os.system'"),
    'residual': ('2_Dense/config.json', {'use_residual': True}, 'use_residual: expected false'),
    'input': ('2_Dense/config.json', {'module_input_name': 'x'}, 'module_input_name'),
    'table': ('config.json', {'vocab_size': 58}, 'word_embeddings.weight: expected shape'),
    'words': ('config.json', {'pad_token_id': -1}, 'pad_token_id: expected an integer from 0'),
}  # fmt: skip


@pytest.mark.parametrize('damage', DAMAGES)
def test_what_cannot_be_computed_is_named_with_its_file(tmp_path, damage):
    file, values, message = DAMAGES[damage]
    folder = copy(tmp_path)
    change(folder / file, **values)
    with pytest.raises(ValueError, match=f'{folder}.*{message}'):
        model_dir.load_model(str(folder))


@pytest.mark.parametrize(
    'types, message',
    [
        (['Transformer'], 'types: expected a Transformer and a Pooling, or'),
        (['Pooling', 'Transformer'], 'types: expected a Transformer and a Pooling, or'),
        (['Transformer', 'Pooling', 'Dense', 'Dense'], r"\[3\]: expected .* got 'Dense'"),
        (['Transformer', 'Pooling', 'Evil'], r"\[2\]: expected .* got 'Evil'"),
    ],
)
def test_modules_of_another_kind_or_order_are_named(tmp_path, types, message):
    folder = copy(tmp_path)
    entries = [{'type': f'some.where.{name}', 'path': ''} for name in types]
    (folder / 'modules.json').write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=f'modules.json: {message}'):
        model_dir.load_model(str(folder))


def set_path(folder, number, path):
    entries = json.loads((folder / 'modules.json').read_text())
    entries[number]['path'] = path
    (folder / 'modules.json').write_text(json.dumps(entries))


@pytest.mark.parametrize('path', ['../1_Pooling', '1_Pooling/..', '/', '/tmp', 'a/../../b', None])
def test_a_module_outside_the_directory_is_refused(tmp_path, path):
    folder = copy(tmp_path)
    set_path(folder, 1, path)
    with pytest.raises(ValueError, match=r'modules.json: \[1\]: path: expected a plain name, got'):
        model_dir.load_model(str(folder))


def test_a_module_has_the_same_path_with_and_without_a_point_and_a_slash(tmp_path):
    expected = model_dir.load_model(str(LABSE))
    folder = copy(tmp_path)
    for number, path in enumerate(['./', './1_Pooling', '2_Dense/', './3_Normalize//']):
        set_path(folder, number, path)
    loaded = model_dir.load_model(str(folder))
    assert loaded.config == expected.config
    jax.tree.map(np.testing.assert_array_equal, loaded.params, expected.params)


LENGTHS = {  # of the settings for an encoder, of the tokenizer -> of queries, of passages
    'of the encoder': ({'max_seq_length': 8}, {'model_max_length': 6}, (8, 8)),
    'with a point': ({'max_seq_length': 8.0}, {}, (8, 8)),
    'of the tokenizer': ({'max_seq_length': None}, {'model_max_length': 6.0}, (6, 6)),
    'of an old tokenizer': ({}, {'model_max_length': None, 'max_len': 7}, (20, 20)),
    'of an older tokenizer': ({}, {'max_len': 7}, (7, 7)),
    'without an end': ({}, {'model_max_length': 1e30}, (20, 20)),
    'of a task': ({'max_seq_length': 8, 'query_length': 5.0, 'document_length': 9}, {}, (5, 9)),
    'of more than there is': ({'max_seq_length': 99}, {}, (20, 20)),
}


def write_lengths(folder, name, values, stated):
    """Settings of a directory, those of sentence-transformers in the file `name`."""
    (folder / 'sentence_bert_config.json').unlink(missing_ok=True)
    (folder / name).write_text(json.dumps(values))
    file = folder / 'tokenizer_config.json'
    settings = json.loads(file.read_text())
    settings.pop('model_max_length', None)
    file.write_text(json.dumps(settings | stated))


@pytest.mark.parametrize('name', ['sentence_bert_config.json', 'sentence_xlm-roberta_config.json'])
@pytest.mark.parametrize('case', LENGTHS)
def test_lengths_are_read_from_every_file_that_has_them(tmp_path, case, name):
    folder = copy(tmp_path)
    values, stated, expected = LENGTHS[case]
    write_lengths(folder, name, values, stated)
    data = model_dir.load_model(str(folder)).config.data
    assert (data.query_length, data.passage_length) == expected
    assert {type(data.query_length), type(data.passage_length)} == {int}


@pytest.mark.parametrize('value', [0, -1, 8.5, '8', True, [8], float('nan')])
@pytest.mark.parametrize('key', ['max_seq_length', 'query_length', 'model_max_length'])
def test_a_length_that_is_none_is_refused(tmp_path, key, value):
    folder = copy(tmp_path)
    values = {'max_seq_length': None, 'query_length': None, 'model_max_length': None, key: value}
    stated = {'model_max_length': values.pop('model_max_length')}
    write_lengths(folder, 'sentence_roberta_config.json', values, stated)
    with pytest.raises(ValueError, match=f'{key}: expected an integer from 1 on, got'):
        model_dir._read_lengths(folder, 20)


@pytest.mark.parametrize('key', model_dir.PROCESSING)
def test_settings_that_change_the_tokens_are_refused_by_name(tmp_path, key):
    folder = copy(tmp_path)
    change(folder / 'sentence_bert_config.json', **{key: {'trust_remote_code': False}})
    model_dir.load_model(str(folder))
    change(folder / 'sentence_bert_config.json', **{key: {'model_max_length': 4}})
    with pytest.raises(ValueError, match=f'sentence_bert_config.json: {key}: expected nothing'):
        model_dir.load_model(str(folder))


def test_a_tokenizer_with_more_words_than_the_table_is_refused(tmp_path):
    folder = copy(tmp_path)
    tokenizer = json.loads((folder / 'tokenizer.json').read_text())
    tokenizer['model']['vocab'] |= {f'more{i}': 56 + i for i in range(10)}
    (folder / 'tokenizer.json').write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match='vocab_size: expected at least 66 .* got 60'):
        model_dir.load_model(str(folder))


def test_the_tokenizer_tells_padding_for_bert_and_must_agree_for_xlmr():
    bert = config.Encoder(family='bert', vocab_size=9, pad_id=0)
    assert model_dir.match_tokenizer(bert, 9, 1, 'x').pad_id == 1
    xlmr = config.Encoder(family='xlmr', vocab_size=9, pad_id=1)
    with pytest.raises(ValueError, match='x: pad_id: expected 0 as in the tokenizer, got 1'):
        model_dir.match_tokenizer(xlmr, 9, 0, 'x')


def test_lower_case_is_taken_from_the_settings_beside_the_tokenizer(tmp_path):
    folder = copy(tmp_path)
    assert tokenizer_files.load_tokenizer(folder).encode('W1').tokens == ['[CLS]', '[UNK]', '[SEP]']
    (folder / 'sentence_bert_config.json').write_text('{"do_lower_case": true}')
    assert tokenizer_files.load_tokenizer(folder).encode('W1').tokens == ['[CLS]', 'w1', '[SEP]']


def fake_hub(monkeypatch, folder, contents):
    """Makes `contents`, name -> text, the files of the hub; returns the list of all downloads."""
    downloads = []

    def download(name, revision, allow_patterns):
        assert name == 'some/model' and revision is None
        downloads.extend(allow_patterns)
        for file in contents.keys() & set(allow_patterns):
            (folder / file).write_text(contents[file])
        return str(folder)

    monkeypatch.setattr(huggingface_hub, 'snapshot_download', download)
    return downloads


KINDS = list(weights.READERS)


@pytest.mark.parametrize('file', [*KINDS, 'tf_model.h5'])
def test_one_file_of_weights_is_downloaded_and_none_for_a_tokenizer(tmp_path, monkeypatch, file):
    downloads = fake_hub(monkeypatch, tmp_path, {file: ''})
    assert hub.snapshot('some/model', tokenizer_files.PATTERNS) == tmp_path
    assert downloads == list(tokenizer_files.PATTERNS)
    assert not any(file in x for x in tokenizer_files.PATTERNS)
    downloads.clear()
    assert model_dir.fetch_model('some/model') == tmp_path
    kinds = KINDS[: KINDS.index(file) + 1] if file in KINDS else KINDS
    expected = [name for kind in kinds for name in (kind, kind + weights.INDEX)]
    assert downloads == [*model_dir.PATTERNS, *expected]


@pytest.mark.parametrize('kind', KINDS)
def test_the_shards_that_an_index_names_are_downloaded_once(tmp_path, monkeypatch, kind):
    index = json.dumps({'weight_map': {'x': 'part-2', 'y': 'part-1', 'z': 'part-2'}})
    contents = {kind + weights.INDEX: index, 'part-1': '', 'part-2': ''}
    downloads = fake_hub(monkeypatch, tmp_path, contents)
    assert model_dir.fetch_model('some/model') == tmp_path
    assert downloads[-3:] == [kind + weights.INDEX, 'part-2', 'part-1']
    downloads.clear()
    assert model_dir.fetch_model('some/model') == tmp_path
    assert downloads == list(model_dir.PATTERNS)


def test_an_index_on_the_hub_that_names_a_path_is_refused(tmp_path, monkeypatch):
    index = json.dumps({'weight_map': {'x': '../part-1'}})
    downloads = fake_hub(monkeypatch, tmp_path, {'model.safetensors.index.json': index})
    with pytest.raises(ValueError, match=r'index\.json: weight_map: x: expected the plain name'):
        model_dir.fetch_model('some/model')
    assert '../part-1' not in downloads


def xlmr_words():
    """XLM-R's special tokens, and so its id of padding."""
    return ['[CLS]', '[PAD]', '[SEP]', '[UNK]', 'ask', 'tell', *(f'w{i}' for i in range(40))]


PIPELINES = {  # class, changes of its configuration, modules
    'XLM-R': ('XLMRobertaModel', {}, ('mean', 'unit')),
    'XLM-R XL': ('XLMRobertaXLModel', {}, ('mean', 'unit')),
    'mBERT': ('BertModel', {'layer_norm_eps': 1e-12}, ('mean',)),
    'LaBSE': ('BertModel', {'layer_norm_eps': 1e-12}, ('cls', 'dense', 'unit')),
    'multilingual E5': ('XLMRobertaModel', {}, ('mean', 'unit')),
    'multilingual E5 small': ('BertModel', {'pad_token_id': 0}, ('mean', 'unit')),
    'multilingual MiniLM': ('BertModel', {'pad_token_id': 0, 'vocab_size': 77}, ('max',)),
}


@pytest.fixture(scope='session')
def make():
    pytest.importorskip('torch')
    pytest.importorskip('sentence_transformers')
    return types.SimpleNamespace(**runpy.run_path(str(MAKE)))


def build(make, folder, name):
    """Has sentence-transformers write a model of random weights; gives it."""
    import torch
    import transformers
    from sentence_transformers.base.modules import Dense, Normalize
    from sentence_transformers.sentence_transformer.modules import Pooling

    cls, changes, parts = PIPELINES[name]
    modules = {
        'mean': Pooling(32, 'mean'),
        'cls': Pooling(32, 'cls'),
        'max': Pooling(32, 'max'),
        'dense': Dense(32, 32),
        'unit': Normalize(),
    }
    words = make.WORDS if name in ('mBERT', 'LaBSE') else xlmr_words()
    sizes = dict(vocab_size=60, hidden_size=32, num_hidden_layers=2, intermediate_size=48)
    sizes |= dict(num_attention_heads=4, max_position_embeddings=40, type_vocab_size=2)
    cls = getattr(transformers, cls)
    torch.manual_seed(0)
    model = make.randomise(cls(cls.config_class(**sizes | changes)), 3)
    return make.save_pipeline(
        folder, model, make.word_tokenizer(words), *(modules[part] for part in parts),
        query='ask ', document='tell ',
    )  # fmt: skip


@pytest.mark.parametrize('name', PIPELINES)
def test_pipelines_of_every_family_embed_as_in_sentence_transformers(make, tmp_path, name):
    import sentence_transformers

    theirs = build(make, tmp_path / 'theirs', name)
    ours = hbt.load(str(tmp_path / 'theirs'), batch_size=8).encode
    model_dir.write_model(tmp_path / 'ours', model_dir.load_model(str(tmp_path / 'theirs')), '')
    written = sentence_transformers.SentenceTransformer(str(tmp_path / 'ours'), device='cpu')
    for kind, prompt in (('query', 'query'), ('passage', 'document'), ('', None)):
        expected = theirs.encode(TEXTS, prompt_name=prompt)
        np.testing.assert_allclose(ours(TEXTS, kind), expected, atol=1e-5, rtol=1e-5)
        got = written.encode(TEXTS, prompt_name=prompt)
        np.testing.assert_allclose(got, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize('case', LENGTHS)
def test_texts_are_truncated_as_in_sentence_transformers(make, tmp_path, case):
    """It does not take 8.0, and computes a longer text than there are positions for not at all."""
    sentence_transformers = pytest.importorskip('sentence_transformers')
    folder, (values, stated, _) = tmp_path / 'x', LENGTHS[case]
    build(make, folder, 'mBERT')
    whole = ({x: n and min(int(n), 40) for x, n in y.items()} for y in (values, stated))
    write_lengths(folder, 'sentence_roberta_config.json', *whole)
    theirs = sentence_transformers.SentenceTransformer(str(folder), device='cpu')[0]
    write_lengths(folder, 'sentence_roberta_config.json', values, stated)
    model = model_dir.load_model(str(folder))
    texts = [' '.join(f'w{j % 60}, not {j}' for j in range(i % 31)) for i in range(1000)] + TEXTS
    for task, side in (('query', 'query'), ('document', 'passage')):
        limit = getattr(model.config.data, f'{side}_length')
        table, _ = tokenization.encode_texts(model.tokenizer, texts, '', limit)
        tokens = theirs.preprocess(texts, task=task)
        assert table.lengths.tolist() == tokens['attention_mask'].sum(1).tolist()


FORMATS = {
    'safetensors in shards': dict(max_shard_size='20KB'),
    'pytorch_model.bin': {},
    'flax_model.msgpack': {},
    'flax_model.msgpack in shards': {},
}


@pytest.mark.parametrize('form', FORMATS)
def test_every_format_holds_the_same_model(make, tmp_path, form):
    import torch
    import transformers

    folder = tmp_path / 'model'
    build(make, folder, 'LaBSE')
    first = model_dir.load_model(str(folder))
    model = transformers.AutoModel.from_pretrained(str(folder))
    (folder / 'model.safetensors').unlink()
    if form == 'safetensors in shards':
        model.save_pretrained(folder, **FORMATS[form])
        assert (folder / 'model.safetensors.index.json').exists()
    elif form == 'pytorch_model.bin':
        torch.save(model.state_dict(), folder / form)
        dense = safetensors.numpy.load_file(folder / '2_Dense/model.safetensors')
        (folder / '2_Dense/model.safetensors').unlink()
        dense = {name: torch.from_numpy(array) for name, array in dense.items()}
        torch.save(dense, folder / '2_Dense/pytorch_model.bin')
    else:
        write_flax(folder, first, 2 if 'shards' in form else 1)
    again = model_dir.load_model(str(folder))
    jax.tree.map(np.testing.assert_array_equal, again.params, first.params)


def write_flax(folder, model, parts):
    """Writes the encoder as transformers 4 writes Flax models, whole or in shards."""
    import flax.serialization
    import flax.traverse_util

    from tests.models import huggingface_test as hf_test

    tree = hf_test.flax_tree(model.params, model.config.encoder)
    if parts == 1:
        (folder / 'flax_model.msgpack').write_bytes(flax.serialization.to_bytes(tree))
        return
    flat = flax.traverse_util.flatten_dict(tree, sep='/')
    names, index = sorted(flat), {}
    for part in range(parts):
        name = f'flax_model-{part + 1:05}-of-{parts:05}.msgpack'
        arrays = {x: flat[x] for x in names[part::parts]}
        nested = flax.traverse_util.unflatten_dict(arrays, sep='/')
        (folder / name).write_bytes(flax.serialization.to_bytes(nested))
        index |= dict.fromkeys(arrays, name)
    content = json.dumps({'metadata': {}, 'weight_map': index})
    (folder / 'flax_model.msgpack.index.json').write_text(content)
