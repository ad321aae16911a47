"""Full disks and folders that cannot be written: the error names them, nothing is half written."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from hbt import config
from hbt.data import build
from hbt.models import embedding_file, model_dir
from tests import ROOT, tiny

MODEL = ROOT / 'tests/fixtures/labse'
FULL = r'No space left on device|os error 28'


@pytest.fixture
def disk(tmp_path):
    """A small file system of its own, and what gives it another size."""
    folder = tmp_path / 'disk'
    folder.mkdir()

    def resize(size: str, *more: str) -> pathlib.Path:
        options = ','.join((*more, f'size={size}'))
        command = ['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', str(folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip('only root may mount')
        return folder

    yield resize
    subprocess.run(['umount', '-l', str(folder)], capture_output=True)


def data(**changes) -> config.Data:
    return dataclasses.replace(tiny.get_config().data, tokenizer=str(MODEL), **changes)


def test_a_store_on_a_full_disk_names_it_and_is_resumed_when_there_is_room(disk):
    out = disk('300k') / 'store'
    with pytest.raises(OSError, match=FULL) as caught:
        build.build_store(data(), out, ['cldr:300'])
    assert str(out) in str(caught.value)
    assert not out.exists()
    disk('50m', 'remount')
    build.build_store(data(), out, ['cldr:300'])


def test_embeddings_without_room_are_refused_before_they_are_computed(disk, tmp_path):
    folder = disk('100k')
    source, out = tmp_path / 'texts', folder / 'out.npy'
    source.write_text('text\n' * 5000)

    def embed_table(texts, place):
        return np.ones((len(texts), 16), np.float32)

    with pytest.raises(OSError, match=FULL) as caught:
        embedding_file.embed_lines(embed_table, source, out, {})
    assert str(folder) in str(caught.value) and not out.exists()
    disk('10m', 'remount')
    embedding_file.embed_lines(embed_table, source, out, {})
    assert np.load(out).sum() == 80000


def test_a_model_on_a_full_disk_is_not_half_written(disk):
    folder = disk('20k')
    model = model_dir.load_model(str(MODEL))
    with pytest.raises(OSError, match=FULL) as caught:
        model_dir.write_model(folder / 'out', model, 'card')
    assert str(folder) in str(caught.value) and not (folder / 'out').exists()
    disk('10m', 'remount')
    model_dir.write_model(folder / 'out', model, 'card')
    model_dir.load_model(str(folder / 'out'))


def run(workdir, store):
    command = [
        *(sys.executable, '-m', 'hbt.main', '--config=tests/tiny.py'),
        *(f'--config.data.root={store}', f'--workdir={workdir}'),
    ]
    environment = os.environ | {'JAX_PLATFORMS': 'cpu'}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_training_run_on_a_full_disk_ends_and_is_resumed_when_there_is_room(disk, tmp_path):
    c = tiny.get_config()
    build.build_store(c.data, tmp_path / 'store', c.data.sources)
    folder = disk('800k')
    full = run(folder / 'run', tmp_path / 'store')
    last = full.stderr.splitlines()[-1]
    assert full.returncode == 2 and last.startswith('error: ') and 'No space left' in last
    assert str(folder / 'run') in last
    disk('50m', 'remount')
    again = run(folder / 'run', tmp_path / 'store')
    assert again.returncode == 0, again.stderr[-2000:]


def test_a_run_directory_that_cannot_be_created_is_named(tmp_path):
    c = tiny.get_config()
    build.build_store(c.data, tmp_path / 'store', c.data.sources)
    (tmp_path / 'file').touch()
    done = run(tmp_path / 'file/run', tmp_path / 'store')
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith('error: ') and f'{tmp_path}/file' in done.stderr
