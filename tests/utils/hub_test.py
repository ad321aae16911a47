"""Names of models become directories, from the cache, and what is not there is named."""

import pathlib

import huggingface_hub
import pytest

from hbt.utils import hub

PATTERNS = ('config.json', '*.safetensors')


def test_an_existing_path_is_itself(tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    assert hub.snapshot(str(tmp_path), PATTERNS) == tmp_path
    assert hub.snapshot(str(tmp_path / 'file'), PATTERNS) == tmp_path / 'file'
    monkeypatch.setenv('HOME', str(tmp_path))
    assert hub.snapshot('~/file', PATTERNS) == tmp_path / 'file'
    monkeypatch.chdir(tmp_path)
    assert hub.snapshot('file', PATTERNS) == pathlib.Path('file')


@pytest.mark.parametrize('name', ['', './x', '../x', '/no/x', '~/none', 'a/b/c', 'tokenizer.json'])
def test_what_looks_like_a_path_is_not_sought_on_the_hub(name, monkeypatch):
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', None)
    with pytest.raises(ValueError, match=f'^{name!r}: no such file or directory$'):
        hub.snapshot(name, PATTERNS)


def test_a_hub_name_is_found_in_the_cache_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    snapshot = tmp_path / 'models--some--model' / 'snapshots' / ('0' * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / 'refs').mkdir()
    (snapshot.parents[1] / 'refs' / 'main').write_text('0' * 40)
    (snapshot / 'config.json').write_text('{}')
    assert hub.snapshot('some/model', PATTERNS) == snapshot
    assert hub.pinned_name('some/model', snapshot) == 'some/model@' + '0' * 40
    assert hub.snapshot('some/model@' + '0' * 40, PATTERNS) == snapshot
    assert hub.pinned_name('some/model@main', snapshot) == 'some/model@' + '0' * 40
    with pytest.raises(ValueError, match="^'some/model@v2': expected a file"):
        hub.snapshot('some/model@v2', PATTERNS)


def test_a_path_is_not_pinned(tmp_path):
    folder = tmp_path / 'snapshots' / 'model'
    folder.mkdir(parents=True)
    assert hub.pinned_name(str(folder), hub.snapshot(str(folder), PATTERNS)) == str(folder)


@pytest.mark.parametrize('name', ['some/model', 'model'])
def test_a_hub_name_out_of_reach_gives_the_command_that_mends_it(tmp_path, monkeypatch, name):
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises(ValueError) as caught:
        hub.snapshot(name, PATTERNS)
    message = str(caught.value)
    assert '\n' not in message and len(message) < 500
    assert message.startswith(f'{name!r}: expected a file, a directory or a name on the')
    assert 'OfflineModeIsEnabled: Cannot reach' in message
    assert f'`hf download {name} --local-dir DIR`, then pass DIR' in message


def test_a_name_that_cannot_be_is_refused():
    with pytest.raises(
        ValueError, match=r"^'a name\?': expected .* HFValidationError: Repo id must"
    ):
        hub.snapshot('a name?', PATTERNS)
