"""What a run exports embeds as the run does, in hbt and in sentence-transformers."""

import dataclasses
import json
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
import tokenizers

import hbt
from hbt import config
from hbt.data import build, tokenization
from hbt.data.readers import synthetic
from hbt.evaluation import results
from hbt.models import embedder
from hbt.training import checkpoint, loop, model_export
from hbt.utils import sharding
from tests import ROOT, tiny

BENCHMARK = 'jsonl:held.jsonl'
TEXTS = ['Is 3 May a Monday?', '', 'la valeur de 12 euros', '日本の首都', 'x' * 300]


@pytest.fixture(scope='session')
def run(tmp_path_factory):
    return make(tmp_path_factory.mktemp('export'))


def make(folder, tokenizer='train:800', **encoder):
    """A run of 6 steps, evaluated and exported."""
    c = tiny.get_config()
    c.data.tokenizer = tokenizer
    c.encoder = dataclasses.replace(c.encoder, **encoder)
    c.data.root, c.steps, c.name = str(folder / 'store'), 6, 'tiny|run'
    c.data.query_length = c.data.passage_length
    lines = map(json.dumps, synthetic.groups('test', 10))
    (folder / 'held.jsonl').write_text('\n'.join(lines))
    c.eval = config.Eval(benchmarks=(BENCHMARK,), root=str(folder), batch_size=256)
    build.build_store(c.data, c.data.root, c.data.sources)
    loop.train_config(config.check(c), folder / 'run')
    model_export.export_model(str(folder / 'run'), None, 'latest', folder / 'model', 'apache-2.0')
    return folder


def from_run(run, texts, prefix):
    """Embeddings by the run's own checkpoint."""
    c, mesh = config.load(run / 'run/config.json'), sharding.make_mesh()
    tokenizer = tokenizers.Tokenizer.from_file(str(run / 'run/tokenizer.json'))
    _, params = checkpoint.load_params(run / 'run', 'latest', sharding.replicated(mesh))
    table, _ = tokenization.encode_texts(tokenizer, texts, prefix, c.data.passage_length)
    return embedder.make_table_embedder(c, mesh)(params, table, 'texts')


def test_the_exported_model_embeds_as_the_run(run):
    model = hbt.load(str(run / 'model')).encode
    for kind, prefix in (('query', 'Query: '), ('passage', 'Passage: ')):
        expected = from_run(run, TEXTS, prefix)
        np.testing.assert_allclose(model(TEXTS, kind), expected, atol=1e-6)


def test_sentence_transformers_embeds_as_the_run(run):
    sentence_transformers = pytest.importorskip('sentence_transformers')
    model = sentence_transformers.SentenceTransformer(str(run / 'model'), device='cpu')
    for name, prefix in (('query', 'Query: '), ('document', 'Passage: '), ('passage', 'Passage: ')):
        got = model.encode(TEXTS, prompt_name=name)
        np.testing.assert_allclose(got, from_run(run, TEXTS, prefix), atol=1e-5)
    assert model.max_seq_length == 32 and model.similarity_fn_name == 'cosine'


def test_every_prompt_name_is_that_of_sentence_transformers(run):
    sentence_transformers = pytest.importorskip('sentence_transformers')
    theirs = sentence_transformers.SentenceTransformer(str(run / 'model'), device='cpu')
    ours = hbt.load(run / 'model')
    assert {*theirs.prompts} == {'query', 'document', 'passage'}
    for name in (*theirs.prompts, None):
        expected = theirs.encode(TEXTS, prompt_name=name)
        np.testing.assert_allclose(ours.encode(TEXTS, prompt_name=name), expected, atol=1e-5)
    queries, documents = theirs.encode_query(TEXTS), theirs.encode_document(TEXTS)
    np.testing.assert_allclose(ours.encode_query(TEXTS), queries, atol=1e-5)
    np.testing.assert_allclose(ours.encode_document(TEXTS), documents, atol=1e-5)
    for name in ('similarity', 'similarity_pairwise'):
        expected = getattr(theirs, name)(queries, documents)
        np.testing.assert_allclose(getattr(ours, name)(queries, documents), expected, atol=1e-5)


def test_a_run_is_loaded_as_what_it_exports(run):
    expected = hbt.load(run / 'model').encode_query(TEXTS)
    for step in (None, 'latest'):
        got = hbt.load(run / 'run', step).encode_query(TEXTS)
        np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.fixture(scope='session')
def small(run):
    """The first 12 of 32 dimensions, exported from the run."""
    model_export.export_model(str(run / 'run'), None, 'latest', run / 'small', dim=12)
    return run / 'small'


def test_truncated_embeddings_are_those_of_sentence_transformers(run):
    sentence_transformers = pytest.importorskip('sentence_transformers')
    theirs = sentence_transformers.SentenceTransformer(
        str(run / 'model'), device='cpu', truncate_dim=12
    )
    ours, whole = hbt.load(run / 'model', dim=12), hbt.load(run / 'model')
    for name in (*theirs.prompts, None):
        truncated = theirs.encode(TEXTS, prompt_name=name)
        expected = theirs.encode(TEXTS, prompt_name=name, normalize_embeddings=True)
        got = ours.encode(TEXTS, prompt_name=name)
        np.testing.assert_allclose(got, expected, atol=1e-5)
        np.testing.assert_allclose(whole.encode(TEXTS, name, dim=12), expected, atol=1e-5)
        # Without being asked to, sentence-transformers does not normalise what it truncated.
        lengths = np.linalg.norm(whole.encode(TEXTS, name)[:, :12], axis=1, keepdims=True)
        np.testing.assert_allclose(got * lengths, truncated, atol=1e-5)
        np.testing.assert_allclose(theirs.similarity(truncated, truncated), got @ got.T, atol=1e-5)


def test_a_directory_that_sentence_transformers_truncated_is_truncated_here(run, tmp_path):
    sentence_transformers = pytest.importorskip('sentence_transformers')
    options = {'device': 'cpu', 'truncate_dim': 12}
    theirs = sentence_transformers.SentenceTransformer(str(run / 'model'), **options)
    theirs.save(str(tmp_path / 'saved'), create_model_card=False)
    expected = theirs.encode(TEXTS, prompt_name='query', normalize_embeddings=True)
    for dim in (None, 12):
        got = hbt.load(tmp_path / 'saved', dim=dim).encode_query(TEXTS)
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_truncated_run_or_model_is_exported(run, small, tmp_path):
    model = hbt.load(small)
    for name in ('query', 'document', None):
        expected = hbt.load(run / 'run', 'latest', dim=12).encode(TEXTS, name)
        np.testing.assert_allclose(model.encode(TEXTS, name), expected, atol=1e-6)
    card, full = ((run / x / 'README.md').read_text() for x in ('small', 'model'))
    added = {*card.splitlines()} - {*full.replace('run/model', 'run/small').splitlines()}
    assert 'This directory has the model with the first 12 dimensions of its embeddings.' in added
    assert '12 dimensions and length 1' in card and '32 dimensions and length 1' in full
    assert 'projection_dim' not in card, 'the settings are those of the training run'
    (tmp_path / 'texts').write_text('\n'.join(TEXTS))
    options = '', (), [str(tmp_path / 'texts')], 12
    model_export.export_model(None, str(run / 'model'), 'latest', tmp_path / 'both', *options)
    card = (tmp_path / 'both/README.md').read_text()
    assert ' with the first 12 dimensions of its embeddings, without the token embeddings' in card
    expected, got = (hbt.load(x).encode_query(TEXTS) for x in (small, tmp_path / 'both'))
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_sentence_transformers_needs_not_be_told_of_a_truncated_export(run, small):
    sentence_transformers = pytest.importorskip('sentence_transformers')
    theirs = sentence_transformers.SentenceTransformer(str(small), device='cpu')
    for name in (*theirs.prompts, None):
        expected = hbt.load(run / 'model', dim=12).encode(TEXTS, prompt_name=name)
        np.testing.assert_allclose(theirs.encode(TEXTS, prompt_name=name), expected, atol=1e-5)


@pytest.mark.slow
def test_an_evaluation_is_of_the_dimensions_that_it_was_asked_for(run, small, tmp_path):
    def evaluate(*flags):
        done = subprocess.run(
            [
                *(sys.executable, '-m', 'hbt.evaluate'),
                *(f'--benchmark={BENCHMARK}', f'--data={run}', *flags),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stderr

    assert evaluate(f'--workdir={run}/run', '--dim=12', f'--out={tmp_path}/a')[0] == 0
    assert evaluate(f'--model={small}', f'--out={tmp_path}/b')[0] == 0
    file = f'{results.file_stem(BENCHMARK)}.json'
    first, second, whole = (
        json.loads((folder / file).read_text())['metrics']
        for folder in (tmp_path / 'a', tmp_path / 'b', run / 'run/results/6')
    )
    assert first == second != whole
    for flags, message in (
        (['--dim=12'], '--dim: expected --out with it: these are not the results of the run'),
        (['--dim=33', f'--out={tmp_path}/c'], 'dim: expected 1 to 32, the dimensions of the'),
        (['--dim=0', f'--out={tmp_path}/c'], 'dim: expected 1 to 32, the dimensions of the'),
        (['--dim=x', f'--out={tmp_path}/c'], '--dim=x'),
    ):
        code, error = evaluate(f'--workdir={run}/run', *flags)
        assert code == 2 and message in error.splitlines()[-1], error


@pytest.mark.slow
def test_a_run_without_layers_is_saved_and_exported(tmp_path):
    make(tmp_path, num_layers=0)
    model = hbt.load(str(tmp_path / 'model')).encode
    expected = from_run(tmp_path, TEXTS, 'Query: ')
    np.testing.assert_allclose(model(TEXTS, 'query'), expected, atol=1e-6)
    assert len(set(np.round(expected[:, 0], 4))) == len(TEXTS)


@pytest.mark.slow
def test_a_run_of_a_static_encoder_is_exported_for_sentence_transformers(tmp_path):
    make(tmp_path, tokenizer='train:800:static', family='static', num_layers=0)
    model = hbt.load(str(tmp_path / 'model')).encode
    expected = from_run(tmp_path, TEXTS, 'Query: ')
    np.testing.assert_allclose(model(TEXTS, 'query'), expected, atol=1e-6)
    sentence_transformers = pytest.importorskip('sentence_transformers')
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / 'model'), device='cpu')
    got = theirs.encode(TEXTS, prompt_name='query')
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_transformers_loads_encoder_and_tokenizer(run):
    transformers = pytest.importorskip('transformers')
    pytest.importorskip('torch')
    tokenizer = transformers.AutoTokenizer.from_pretrained(run / 'model')
    ours = tokenizers.Tokenizer.from_file(str(run / 'run/tokenizer.json'))
    assert tokenizer('12 euros')['input_ids'] == ours.encode('12 euros').ids
    assert (tokenizer.pad_token, tokenizer.model_max_length) == ('<pad>', 32)
    model = transformers.AutoModel.from_pretrained(run / 'model')
    assert type(model).__name__ == 'XLMRobertaModel' and model.config.num_hidden_layers == 2


def test_the_card_states_data_settings_results_and_licence(run):
    card = (run / 'model/README.md').read_text()
    front = card.split('---')[1]
    assert 'license: "apache-2.0"' in front and '"de", "el", "en"' in front
    assert '| cldr | cldr:60 | 60 | 660 | 660 |' in card
    assert '| de | 60 | 60 |' in card
    assert r"| `name` | `'tiny\|run'` |" in card
    assert '| `batch_size` | `8` | pairs of a batch, over all devices |' in card
    numbers = json.loads((run / f'run/results/6/{results.file_stem(BENCHMARK)}.json').read_text())
    assert f'| mean | {numbers["metrics"]["mono"]["map"]:.4f} |' in card
    assert re.search(r'jax \d+\.\d+', card)


@pytest.mark.slow
def test_the_snippets_of_the_card_run_as_pasted(run):
    pytest.importorskip('sentence_transformers')
    snippets = re.findall('```python\n(.*?)```', (run / 'model/README.md').read_text(), re.S)
    assert len(snippets) == 2
    done = subprocess.run(
        [sys.executable, '-c', '\n'.join(snippets)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {'XLA_FLAGS': ''},
    )
    assert done.returncode == 0, done.stderr
    assert 'tensor([[' in done.stdout


def test_the_snippet_without_torch_runs_as_pasted(run, capsys):
    snippets = re.findall('```python\n(.*?)```', (run / 'model/README.md').read_text(), re.S)
    exec(snippets[1], {})
    printed = float(capsys.readouterr().out.strip('[]\n'))
    model = hbt.load(str(run / 'model')).encode
    texts = ['Where is the river?'], ['Der Fluss liegt im Norden.']
    vectors = model(texts[0], 'query'), model(texts[1], 'passage')
    np.testing.assert_allclose(printed, (vectors[0] @ vectors[1].T)[0, 0], atol=1e-6)


def test_a_run_is_exported_with_a_trimmed_vocabulary(run, tmp_path):
    """Its card is that of the run, plus what was removed; covered texts embed as before."""
    (tmp_path / 'texts').write_text('\n'.join(TEXTS))
    corpus = [str(tmp_path / 'texts')]
    model_export.export_model(
        str(run / 'run'), None, 'latest', tmp_path / 'small', 'apache-2.0', (), corpus
    )
    small, original = (hbt.load(str(x)).encode for x in (tmp_path / 'small', run / 'model'))
    for kind in ('query', 'passage', ''):
        np.testing.assert_allclose(small(TEXTS, kind), original(TEXTS, kind), atol=1e-6)
    files = [x / 'model.safetensors' for x in (tmp_path / 'small', run / 'model')]
    assert files[0].stat().st_size < files[1].stat().st_size
    card, full = ((x / 'README.md').read_text() for x in (tmp_path / 'small', run / 'model'))
    lines = card.replace(str(tmp_path / 'small'), str(run / 'model')).splitlines()
    added = [line for line in lines if line not in full.splitlines()]
    assert added[0] == '# small' and len(added) == 2
    pattern = r'.* without the token embeddings .* in the texts .* for: (\d+) of (\d+) are kept\.'
    few, many = map(int, re.fullmatch(pattern, added[1]).groups())
    assert 0 < few < many


def test_a_checkpoint_that_is_not_finite_is_not_exported(run, tmp_path, monkeypatch):
    def damaged(*args, load_params=checkpoint.load_params):
        number, params = load_params(*args)
        bias = params['layers']['ffn_in']['bias']
        params['layers']['ffn_in']['bias'] = bias.at[0, 0].set(jax.numpy.nan)
        return number, params

    monkeypatch.setattr(checkpoint, 'load_params', damaged)
    message = f'{run}/run: step 6: layers/ffn_in/bias: expected finite numbers, got NaN'
    with pytest.raises(ValueError, match=message):
        model_export.export_model(str(run / 'run'), None, 'latest', tmp_path / 'x')
    assert not (tmp_path / 'x').exists()


def test_what_is_no_run_or_step_or_is_there_already_is_named(run, tmp_path):
    with pytest.raises(ValueError, match='config.json: expected the config of a training run'):
        model_export.export_model(str(tmp_path), None, 'latest', tmp_path / 'x')
    with pytest.raises(ValueError, match=r'ckpt: expected one of the steps \[3, 6\], got .5.'):
        model_export.export_model(str(run / 'run'), None, '5', tmp_path / 'x')
    with pytest.raises(ValueError, match='model: expected nothing there yet, got 1_Pooling'):
        model_export.export_model(str(run / 'run'), None, 'best', run / 'model')
    assert not (tmp_path / 'x').exists()


@pytest.mark.slow
def test_the_best_step_is_exported_too(run, tmp_path):
    done = subprocess.run(
        [sys.executable, '-m', 'hbt.export', f'--workdir={run}/run', f'--out={tmp_path}/best'],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and 'best: step 6 of' in done.stdout, done.stderr
    first, again = (hbt.load(str(x)).encode(TEXTS) for x in (run / 'model', tmp_path / 'best'))
    np.testing.assert_array_equal(first, again)
    assert jax.device_count() == 8
