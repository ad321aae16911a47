"""A disk without room, and folders that cannot be written: one line, and nothing half taken."""

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
    place = tmp_path / 'disk'
    place.mkdir()

    def resize(size: str, *more: str) -> pathlib.Path:
        options = ','.join((*more, f'size={size}'))
        command = ['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', str(place)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip('only root may mount')
        return place

    yield resize
    subprocess.run(['umount', '-l', str(place)], capture_output=True)


def data(**changes) -> config.Data:
    return dataclasses.replace(tiny.get_config().data, tokenizer=str(MODEL), **changes)


def test_a_store_that_finds_no_room_names_it_and_goes_on_when_there_is(disk):
    out = disk('300k') / 'store'
    with pytest.raises(OSError, match=FULL) as caught:
        build.build_store(data(), out, ['cldr:300'])
    assert str(out) in str(caught.value)
    assert not out.exists()
    disk('50m', 'remount')
    build.build_store(data(), out, ['cldr:300'])


def test_embeddings_that_find_no_room_are_refused_before_they_are_made(disk, tmp_path):
    place = disk('100k')
    source, out = tmp_path / 'texts', place / 'out.npy'
    source.write_text('text\n' * 5000)

    def embed_table(texts):
        return np.ones((len(texts), 16), np.float32)

    with pytest.raises(OSError, match=FULL) as caught:
        embedding_file.embed_lines(embed_table, source, out, {})
    assert str(place) in str(caught.value) and not out.exists()
    disk('10m', 'remount')
    embedding_file.embed_lines(embed_table, source, out, {})
    assert np.load(out).sum() == 80000


def test_a_model_that_finds_no_room_is_not_there(disk):
    place = disk('20k')
    model = model_dir.load_model(str(MODEL))
    with pytest.raises(OSError, match=FULL) as caught:
        model_dir.write_model(place / 'out', model, 'card')
    assert str(place) in str(caught.value) and not (place / 'out').exists()
    disk('10m', 'remount')
    model_dir.write_model(place / 'out', model, 'card')
    model_dir.load_model(str(place / 'out'))


def run(workdir, store):
    command = [
        *(sys.executable, '-m', 'hbt.main', '--config=tests/tiny.py'),
        *(f'--config.data.root={store}', f'--workdir={workdir}'),
    ]
    environment = os.environ | {'JAX_PLATFORMS': 'cpu'}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_run_without_room_ends_and_goes_on_when_there_is(disk, tmp_path):
    c = tiny.get_config()
    build.build_store(c.data, tmp_path / 'store', c.data.sources)
    place = disk('800k')
    full = run(place / 'run', tmp_path / 'store')
    last = full.stderr.splitlines()[-1]
    assert full.returncode == 2 and last.startswith('error: ') and 'No space left' in last
    assert str(place / 'run') in last
    disk('50m', 'remount')
    again = run(place / 'run', tmp_path / 'store')
    assert again.returncode == 0, again.stderr[-2000:]


def test_a_run_directory_that_cannot_be_made_is_named(tmp_path):
    c = tiny.get_config()
    build.build_store(c.data, tmp_path / 'store', c.data.sources)
    (tmp_path / 'file').touch()
    done = run(tmp_path / 'file/run', tmp_path / 'store')
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith('error: ') and f'{tmp_path}/file' in done.stderr
