"""Names of models become directories, from the cache and with no more than is needed."""

import json
import pathlib

import huggingface_hub
import pytest

from hbt.models import weights
from hbt.utils import hub


def test_an_existing_path_is_itself(tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    assert hub.resolve(str(tmp_path)) == tmp_path
    assert hub.resolve(str(tmp_path / 'file')) == tmp_path / 'file'
    monkeypatch.setenv('HOME', str(tmp_path))
    assert hub.resolve('~/file') == tmp_path / 'file'
    monkeypatch.chdir(tmp_path)
    assert hub.resolve('file') == pathlib.Path('file')


@pytest.mark.parametrize('name', ['', './x', '../x', '/no/x', '~/none', 'a/b/c', 'tokenizer.json'])
def test_what_looks_like_a_path_is_not_sought_on_the_hub(name, monkeypatch):
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', None)
    with pytest.raises(ValueError, match=f'^{name!r}: no such file or directory$'):
        hub.resolve(name)


def test_a_hub_name_is_found_in_the_cache_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    snapshot = tmp_path / 'models--some--model' / 'snapshots' / ('0' * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / 'refs').mkdir()
    (snapshot.parents[1] / 'refs' / 'main').write_text('0' * 40)
    (snapshot / 'config.json').write_text('{}')
    assert hub.resolve('some/model') == snapshot
    assert hub.pinned('some/model', snapshot) == 'some/model@' + '0' * 40
    assert hub.resolve('some/model@' + '0' * 40) == snapshot
    assert hub.pinned('some/model@main', snapshot) == 'some/model@' + '0' * 40
    with pytest.raises(ValueError, match="^'some/model@v2': expected a file"):
        hub.resolve('some/model@v2')


def test_a_path_is_not_pinned(tmp_path):
    folder = tmp_path / 'snapshots' / 'mine'
    folder.mkdir(parents=True)
    assert hub.pinned(str(folder), hub.resolve(str(folder))) == str(folder)


@pytest.mark.parametrize('name', ['some/model', 'model'])
def test_a_hub_name_out_of_reach_gives_the_command_that_mends_it(tmp_path, monkeypatch, name):
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises(ValueError) as caught:
        hub.resolve(name)
    message = str(caught.value)
    assert '\n' not in message and len(message) < 500
    assert message.startswith(f'{name!r}: expected a file, a directory or a name on the')
    assert 'OfflineModeIsEnabled: Cannot reach' in message
    assert f'`hf download {name} --local-dir DIR`, then pass DIR' in message


def test_a_name_that_cannot_be_is_refused():
    with pytest.raises(
        ValueError, match=r"^'a name\?': expected .* HFValidationError: Repo id must"
    ):
        hub.resolve('a name?')


def fake_hub(monkeypatch, folder, files):
    """Has the hub hold `files`, name -> content; gives the list of all that is asked of it."""
    asked = []

    def download(name, revision, allow_patterns):
        assert name == 'some/model' and revision is None
        asked.extend(allow_patterns)
        for file in files.keys() & set(allow_patterns):
            (folder / file).write_text(files[file])
        return str(folder)

    monkeypatch.setattr(huggingface_hub, 'snapshot_download', download)
    return asked


KINDS = list(weights.READERS)


@pytest.mark.parametrize('held', [*KINDS, 'tf_model.h5'])
def test_one_file_of_weights_is_downloaded_and_none_for_a_tokenizer(tmp_path, monkeypatch, held):
    asked = fake_hub(monkeypatch, tmp_path, {held: ''})
    assert hub.resolve('some/model', with_weights=False) == tmp_path
    assert asked == list(hub.SMALL_FILES)
    assert hub.resolve('some/model') == tmp_path
    kinds = KINDS[: KINDS.index(held) + 1] if held in KINDS else KINDS
    expected = [file for kind in kinds for file in (kind, kind + weights.INDEX)]
    assert [file for file in asked if file not in hub.SMALL_FILES] == expected


@pytest.mark.parametrize('kind', KINDS)
def test_the_shards_that_an_index_names_are_downloaded_once(tmp_path, monkeypatch, kind):
    index = json.dumps({'weight_map': {'x': 'part-2', 'y': 'part-1', 'z': 'part-2'}})
    files = {kind + weights.INDEX: index, 'part-1': '', 'part-2': ''}
    asked = fake_hub(monkeypatch, tmp_path, files)
    assert hub.resolve('some/model') == tmp_path
    assert asked[-3:] == [kind + weights.INDEX, 'part-2', 'part-1']
    asked.clear()
    assert hub.resolve('some/model') == tmp_path
    assert asked == list(hub.SMALL_FILES)


def test_an_index_on_the_hub_that_names_a_path_is_refused(tmp_path, monkeypatch):
    index = json.dumps({'weight_map': {'x': '../part-1'}})
    asked = fake_hub(monkeypatch, tmp_path, {'model.safetensors.index.json': index})
    with pytest.raises(ValueError, match=r'index\.json: weight_map: x: expected the plain name'):
        hub.resolve('some/model')
    assert '../part-1' not in asked
