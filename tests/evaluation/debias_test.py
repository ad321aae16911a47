import dataclasses
import gzip
import json

import jax
import numpy as np
import pytest
import tokenizers

from hbt import config
from hbt.data import build, ragged
from hbt.data.readers import synthetic
from hbt.evaluation import debias, evaluator
from hbt.models import embedder, encoder, model_dir
from hbt.utils import sharding
from tests import tiny

LANGUAGES = ['ar', 'de', 'en', 'zh']


@pytest.fixture(scope='session')
def stored(tmp_path_factory):
    """Two data sets; the second has no Chinese."""
    c, root = tiny.get_config(), tmp_path_factory.mktemp('data')
    groups = [
        group | {side: {x: group[side][x] for x in ('ar', 'de', 'en')}}
        for group in synthetic.groups('test', 30)
        for side in ('query', 'passage')
    ]
    for i, group in enumerate(groups):
        group['id'] = str(i)
    write_groups(root / 'more.jsonl.gz', groups)
    return build.build_store(c.data, root / 'store', (*c.data.sources, f'{root}/more.jsonl.gz'))


def write_groups(path, groups):
    text = ''.join(json.dumps(group, ensure_ascii=False) + '\n' for group in groups)
    path.write_bytes(gzip.compress(text.encode()))


def fake_vector(tokens, dim=12):
    """An embedding that tells of the text, and more of its first tokens."""
    generator = np.random.default_rng(list(tokens))
    first = np.random.default_rng(list(tokens)[:4]).standard_normal(dim)
    return generator.standard_normal(dim) + first + 1


def fake_embed(table):
    rows = [ragged.token_ids(table, i) for i in range(len(table.lengths))]
    return np.array([fake_vector(row) for row in rows], np.float32)


def embed_all(s, data, language):
    """The embeddings of all texts of a language, one by one."""
    vectors = []
    for dataset in s.datasets:
        for side, limit in (('query', data.query_length), ('passage', data.passage_length)):
            if language not in getattr(dataset, side):
                continue
            table = getattr(dataset, side)[language]
            for row in range(len(table.lengths)):
                if table.lengths[row]:
                    end = s.manifest['tokenizer']['end_id']
                    vectors.append(
                        fake_vector(ragged.truncate(ragged.token_ids(table, row), limit, end))
                    )
    return np.array(vectors)


def plain_removal(kind, texts, vectors):
    """The same by numpy's singular values of the whole matrix."""
    if kind == 'centre':
        out = vectors - texts.mean(axis=0)
    else:
        basis = np.linalg.svd(texts, full_matrices=False)[2][: int(kind.removeprefix('lir:'))]
        out = vectors - vectors @ basis.T @ basis
    return out / np.linalg.norm(out, axis=1, keepdims=True)


@pytest.mark.parametrize('kind', ['centre', 'lir:1', 'lir:3'])
def test_removal_is_that_of_numpy(kind, stored, tmp_path, monkeypatch):
    monkeypatch.setattr(debias, 'BLOCK', 17)
    data = config.Data(query_length=6, passage_length=12)  # some texts are cut
    removal = debias.fit_removal(kind, stored, data, LANGUAGES, fake_embed)
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((40, 12)).astype(np.float32) + 1
    languages = [LANGUAGES[i] for i in generator.integers(0, 4, 40)]
    result = debias.apply_removal(removal, vectors, languages, normalise=True)
    for language in LANGUAGES:
        rows = np.array(languages) == language
        texts = embed_all(stored, data, language)
        assert removal.manifest['texts'][language] == len(texts) > 100
        np.testing.assert_allclose(
            result[rows], plain_removal(kind, texts, vectors[rows]), atol=1e-5
        )
    debias.save_removal(removal, tmp_path / 'a' / 'x.npz')
    again = debias.load_removal(tmp_path / 'a' / 'x.npz')
    assert again.manifest == removal.manifest and again.languages == LANGUAGES
    np.testing.assert_array_equal(
        debias.apply_removal(again, vectors, languages, normalise=True), result
    )


def test_embeddings_that_were_not_of_unit_length_are_not_made_so(stored):
    removal = debias.fit_removal('centre', stored, tiny.get_config().data, ['en'], fake_embed)
    vectors = np.ones((2, 12), np.float32)
    expected = vectors - removal.means
    np.testing.assert_array_equal(
        debias.apply_removal(removal, vectors, ['en'] * 2, normalise=False), expected
    )


@pytest.mark.parametrize(('limit', 'halves'), [(40, [20, 20]), (10**6, None)])
def test_half_of_the_texts_are_queries_and_each_comes_once(limit, halves, stored, monkeypatch):
    monkeypatch.setattr(debias, 'TEXTS', limit)
    data = tiny.get_config().data

    def draw():
        tables = list(debias._sample_texts(stored, data, 'de'))
        return [ragged.token_ids(t, i) for t in tables for i in range(len(t.lengths))]

    sample = draw()
    assert sample == draw()
    sides = [
        sorted(
            ragged.token_ids(getattr(d, side)['de'], i)
            for d in stored.datasets
            for i in range(len(getattr(d, side)['de'].lengths))
        )
        for side in ('query', 'passage')
    ]
    counts = [sum(row in side for row in sample) for side in sides]
    assert counts == (halves or [len(side) for side in sides])
    if not halves:
        assert sorted(sample) == sorted(sides[0] + sides[1])


def test_a_removal_that_cannot_be_fitted_or_applied_is_refused(stored, tmp_path):
    data = tiny.get_config().data
    for kind in ('lir', 'lir:0', 'mean', 'lir:-1'):
        with pytest.raises(ValueError, match='debias: expected centre, or lir:R with R from 1'):
            debias.fit_removal(kind, stored, data, ['en'], fake_embed)
    with pytest.raises(ValueError, match="least 2 texts of each .* got 0 of 'sw' in .*, de, .*"):
        debias.fit_removal('centre', stored, data, ['en', 'sw'], fake_embed)
    with pytest.raises(ValueError, match='expected R below 12, as embeddings have, got 12'):
        debias.fit_removal('lir:12', stored, data, ['en'], fake_embed)
    removal = debias.fit_removal('centre', stored, data, ['en', 'de'], fake_embed)
    vectors = np.ones((2, 12), np.float32)
    with pytest.raises(ValueError, match="expected texts in en, de, .* got 'zh'"):
        debias.apply_removal(removal, vectors, ['en', 'zh'], normalise=True)
    with pytest.raises(ValueError, match='expected embeddings of 12 numbers, .* got 3'):
        debias.apply_removal(removal, vectors[:, :3], ['en', 'en'], normalise=True)
    (tmp_path / 'x.npz').write_bytes(b'PK')
    with pytest.raises(ValueError, match='x.npz: expected what hbt.evaluate --debias wrote'):
        debias.load_removal(tmp_path / 'x.npz')
    np.savez(tmp_path / 'old.npz', about='{}', languages=['en'], means=[], directions=[])
    with pytest.raises(ValueError, match='old.npz: expected format 2, got 1; delete it and fit ag'):
        debias.load_removal(tmp_path / 'old.npz')
    tokenizer = tokenizers_of(stored)
    debias._check_store(stored, data, tokenizer)
    other = dataclasses.replace(data, query_prefix='ask: ')
    with pytest.raises(ValueError, match="query_prefix: expected 'ask: ' of the model, got 'Que"):
        debias._check_store(stored, other, tokenizer)
    tokenizer.add_tokens(['more'])
    with pytest.raises(
        ValueError, match='made with the tokenizer of the model, got one whose tokens'
    ):
        debias._check_store(stored, data, tokenizer)


def tokenizers_of(stored):
    return tokenizers.Tokenizer.from_file(str(stored.path / 'tokenizer.json'))


@pytest.fixture(scope='session')
def case(stored, tmp_path_factory):
    """An untrained model, whose embeddings tell the language first of all, and held-out groups."""
    folder = tmp_path_factory.mktemp('held')
    write_groups(folder / 'held.jsonl.gz', synthetic.groups('test', 25))
    c = tiny.get_config()
    c.encoder = dataclasses.replace(c.encoder, vocab_size=800)
    c.eval = config.Eval(benchmarks=('jsonl:held.jsonl.gz',), root=str(folder), batch_size=64)
    return c, encoder.init_params(c.encoder, jax.random.key(0)), evaluator.load_benchmarks(c.eval)


def test_a_removal_is_fitted_once_for_a_model_and_then_loaded(case, stored, tmp_path, monkeypatch):
    c, params, _ = case
    params = jax.device_put(params, sharding.replicated(sharding.make_mesh()))
    model = model_dir.Model(c, params, tokenizers_of(stored))
    first = debias.open_removal('centre', model, ['de', 'en'], stored.path, tmp_path)
    file = str(tmp_path / 'debias.npz')
    monkeypatch.setattr(debias, 'fit_removal', None)
    for kind in ('centre', file):
        again = debias.open_removal(kind, model, ['en'], stored.path, tmp_path)
        assert again.manifest == first.manifest
        np.testing.assert_array_equal(again.means, first.means)
    other = model._replace(params=jax.tree.map(lambda x: x + 1, params))
    with pytest.raises(ValueError, match='debias.npz: expected a fit for this model, got one for'):
        debias.open_removal(file, other, ['en'], stored.path, tmp_path)


@pytest.fixture(scope='session')
def measures(case, stored):
    c, params, suite = case
    mesh, tokenizer = sharding.make_mesh(), tokenizers_of(stored)
    params = jax.device_put(params, sharding.replicated(mesh))
    embed_table = embedder.make_table_embedder(c, mesh)
    languages = sorted(set(suite[0].queries.languages))
    numbers = {}
    for kind in ('', 'centre', 'lir:1'):
        removal = kind and debias.fit_removal(
            kind, stored, c.data, languages, lambda x: embed_table(params, x, 'x')
        )
        (result,) = evaluator.make_evaluation(c, tokenizer, mesh, suite, removal=removal or None)(
            params
        ).values()
        assert result.numbers['manifest']['debias'] == (removal.manifest if removal else None)
        numbers[kind] = result.numbers['metrics']['multi']
    return numbers


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['centre', 'lir:1'])
def test_a_real_encoder_is_less_biased_without_the_language_in_its_embeddings(kind, measures):
    plain, less = measures[''], measures[kind]
    for measure in ('own_share@1', 'own_share@10', 'preference'):
        assert less[measure] < 0.6 * plain[measure], measure
    assert less['rank_distance'] != plain['rank_distance']
