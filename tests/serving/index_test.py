"""A corpus is embedded once, resumed after a kill, and refused once it or the model has changed."""

import json
import shutil

import numpy as np
import pytest

from hbt.models import embedding_file
from hbt.serving import index

SETTINGS = {'model': 'm', 'dtype': 'float32'}


def embed(texts, place=None):
    return np.array([[len(text), 1] for text in texts], np.float32)


@pytest.fixture
def source(tmp_path):
    rows = [
        {'id': f'd{i}', 'text': 'x' * (i + 1), 'language': 'de fr'.split()[i % 2]}
        for i in range(10)
    ]
    path = tmp_path / 'corpus.jsonl'
    path.write_text(''.join(json.dumps(x) + '\n' for x in rows))
    return path


def build(source, embed=embed, **settings):
    folder = index.default_folder(source)
    made = index.make_settings(source, 'm', 'float32') | settings
    index.build_index(embed, source, folder, made)
    return index.open_index(folder, made, True)


def test_an_index_holds_embeddings_texts_ids_and_languages_in_the_order_of_the_corpus(source):
    opened = build(source)
    assert opened.folder.name == 'corpus.jsonl.index' and len(opened) == 10
    assert tuple(opened.read_entry(3)) == ('d3', 'fr', 'xxxx')
    assert [opened.languages[x] for x in opened.codes[:3]] == ['de', 'fr', 'de']
    np.testing.assert_array_equal(np.load(opened.folder / 'embeddings.npy')[:, 0], range(1, 11))
    names = 'codes.npy documents.jsonl embeddings.npy languages.json manifest.json offsets.npy'
    assert sorted(x.name for x in opened.folder.iterdir()) == names.split()


def test_a_killed_call_is_resumed_after_the_last_whole_block(source, monkeypatch):
    monkeypatch.setattr(embedding_file, 'CHUNK', 3)
    calls = []

    def dies(texts, place):
        calls.append(len(texts[0]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return embed(texts)

    with pytest.raises(KeyboardInterrupt):
        build(source, dies)
    assert not index.default_folder(source).exists()
    with pytest.raises(ValueError, match="partial: model: expected 'm', with which .* got 'n'"):
        build(source, model='n')
    opened = build(source, dies)
    assert calls == [1, 4, 7, 7, 10]
    np.testing.assert_array_equal(opened.embeddings[:, 0], range(1, 11))


def test_a_call_that_was_killed_at_its_very_end_is_resumed_with_the_same_settings_only(source):
    folder = build(source).folder
    folder.rename(folder.with_name(f'{folder.name}.partial'))
    with pytest.raises(ValueError, match="partial: model: expected 'm', with which .* got 'n'"):
        build(source, len, model='n')
    assert len(build(source, len)) == 10


def test_another_corpus_model_or_type_is_refused(source):
    folder = build(source).folder
    for name in ('model', 'dtype', 'format'):
        settings = index.make_settings(source, 'm', 'float32') | {name: 'other'}
        with pytest.raises(ValueError, match=f"index: {name}: expected .* got 'other'; delete it"):
            index.open_index(folder, settings, True)
    source.write_text('another\n')
    settings = index.make_settings(source, 'm', 'float32')
    with pytest.raises(ValueError, match="index: corpus: expected '.*', with which .*, got '.*'"):
        index.open_index(folder, settings, True)
    del settings['corpus']
    assert len(index.open_index(folder, settings, True)) == 10


def test_damaged_files_are_named(source, tmp_path):
    folder, settings = build(source).folder, index.make_settings(source, 'm', 'float32')
    for name, message in (
        ('embeddings.npy', 'expected a .npy file, got'),
        ('documents.jsonl', r'expected \d+ bytes, got \d+ bytes; delete'),
        ('codes.npy', 'expected a .npy file, got'),
        ('languages.json', 'expected a JSON list, got'),
        ('manifest.json', 'expected a JSON object, got'),
    ):
        copy = shutil.copytree(folder, tmp_path / name)
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match=f'{name}: {message}'):
            index.open_index(copy, settings, True)
    np.save(folder / 'codes.npy', np.full(10, 2, np.int32))
    with pytest.raises(
        ValueError, match='codes.npy: expected places in languages.json, got others'
    ):
        index.open_index(folder, settings, True)
    with pytest.raises(ValueError, match='none: expected an index, got no such directory'):
        index.open_index(tmp_path / 'none', settings, True)
