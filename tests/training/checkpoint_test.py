"""What is restored is what was saved, whatever happened to the files."""

import gc
import json
import logging
import pathlib
import random
import shutil
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from hbt.training import checkpoint
from hbt.utils import sharding

ALL = sharding.replicated(sharding.make_mesh())
# Orbax leaves tasks behind when a file cannot be read; a fixture collects them in the same test.
NOISE = pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
ONE = sharding.replicated(sharding.make_mesh(jax.devices()[:1]))


@pytest.fixture(autouse=True)
def collect_tasks():
    yield
    gc.collect()


class State(typing.NamedTuple):
    step: jax.Array
    params: dict
    opt: tuple


def state(step, place=ALL):
    params = {'a': {'b': jnp.arange(1000.0) * step}, 'c': jnp.full((3, 5), step, jnp.bfloat16)}
    made = State(jnp.int32(step), params, (jnp.int32(step), {'m': jnp.zeros(4)}))
    return jax.device_put(made, place)


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """A workdir with the states 1 and 2, of which 2 is the best."""
    folder = tmp_path_factory.mktemp('saved')
    opened, best = checkpoint.Checkpoints(folder), checkpoint.Best(folder)
    assert opened.restore(state(0)) is None
    for step in (1, 2):
        opened.save(step, state(step), {'seen': step / 3})
        save_best(best, step, 0.1 * step)
    save_best(best, 3, 0.0)
    opened.close()
    return folder


def save_best(best, step, score, metric='map', seed=0, **others):
    """Saves parameters that differ by step and seed."""
    best.save(step, state(step + 100 * seed).params, {metric: score} | others, metric)


def assert_best(folder, step, seed=0):
    """Of the parameters that are kept, which no other folder is beside."""
    assert [x.name for x in (folder / 'best').iterdir()] == [str(step)]
    got, params = checkpoint.load_params(folder, 'best', ONE)
    assert got == step
    assert_same(params, state(step + 100 * seed).params)


def restore(folder):
    opened = checkpoint.Checkpoints(folder)
    try:
        restored, notes = opened.restore(state(0))
        assert notes == {'seen': int(restored.step) / 3}
        return restored
    finally:
        opened.close()


def test_the_newest_state_is_restored(saved):
    assert_same(restore(saved), state(2))


def test_parameters_are_read_without_the_rest(saved):
    for which, step in (('latest', 2), ('best', 2), ('1', 1)):
        got, params = checkpoint.load_params(saved, which, ONE)
        assert got == step
        assert_same(params, state(step).params)


def test_steps_that_are_not_there_are_named(saved, tmp_path):
    with pytest.raises(ValueError, match=r"ckpt: expected one of the steps \[1, 2\], got '7'"):
        checkpoint.load_params(saved, '7', ONE)
    with pytest.raises(ValueError, match='expected a run with a folder best/, got none'):
        checkpoint.load_params(tmp_path, 'best', ONE)


def test_a_checkpoint_of_another_version_is_refused_and_stays(saved, tmp_path, monkeypatch):
    folder = pathlib.Path(shutil.copytree(saved, tmp_path / 'older'))
    monkeypatch.setattr(checkpoint, 'VERSION', 3)
    message = 'ckpt/1: expected a checkpoint of version 3, got 2; .* another --workdir'
    with pytest.raises(ValueError, match=message):
        checkpoint.Checkpoints(folder)
    with pytest.raises(ValueError, match='best/2: expected a checkpoint of version 3, got 2'):
        checkpoint.Best(folder)
    with pytest.raises(ValueError, match='best/2: expected a checkpoint of version 3, got 2'):
        checkpoint.load_params(folder, 'best', ONE)
    assert (folder / 'ckpt/1').is_dir() and not (folder / 'damaged').exists()


def test_any_changed_bit_changes_a_checksum():
    rng = np.random.default_rng(0)
    for dtype in (jnp.float32, jnp.bfloat16, jnp.int32, jnp.uint8):
        x = jnp.asarray(rng.integers(0, 200, (7, 5)), dtype)
        first = checkpoint.checksums({'x': x})
        for _ in range(20):
            raw = bytearray(np.asarray(x).tobytes())
            raw[rng.integers(len(raw))] ^= 1 << rng.integers(8)
            y = jnp.asarray(np.frombuffer(bytes(raw), x.dtype).reshape(x.shape))
            assert checkpoint.checksums({'x': y}) != first
        assert checkpoint.checksums({'x': x[::-1]}) != first


def damage(file, how, dice):
    content = bytearray(file.read_bytes())
    if how == 'cut':
        file.write_bytes(content[: len(content) // 2])
    elif how == 'gone':
        file.unlink()
    elif content:
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        file.write_bytes(content)


@NOISE
@pytest.mark.parametrize('how', ['flipped', 'cut', 'gone'])
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(saved, tmp_path, how, capsys):
    dice, named = random.Random(how), 0
    files = [x.relative_to(saved) for x in (saved / 'ckpt/2').rglob('*') if x.is_file()]
    for i, name in enumerate(files):
        folder = pathlib.Path(shutil.copytree(saved, tmp_path / str(i)))
        damage(folder / name, how, dice)
        restored = restore(folder)
        assert int(restored.step) in (1, 2), name
        assert_same(restored, state(int(restored.step)))
        printed = capsys.readouterr().out
        if int(restored.step) == 1:
            named += 1
            assert 'ckpt/2: damaged: ' in printed and 'set aside as' in printed
            assert (folder / 'damaged/ckpt-2').is_dir() and not (folder / 'ckpt/2').exists()
    assert named


@NOISE
def test_without_a_sound_checkpoint_a_run_does_not_start_again(saved, tmp_path):
    folder = pathlib.Path(shutil.copytree(saved, tmp_path / 'all'))
    for step in '12':
        for file in (folder / 'ckpt' / step / 'state').rglob('*'):
            if file.is_file():
                file.write_bytes(b'')
    with pytest.raises(ValueError, match=r'sound checkpoint, got damaged ones of steps \[1, 2\]'):
        restore(folder)


@NOISE
def test_damaged_best_parameters_are_refused(saved, tmp_path):
    folder = pathlib.Path(shutil.copytree(saved, tmp_path / 'best'))
    for file in (folder / 'best/2/state/d').rglob('*'):
        file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ValueError, match=r'best/2: damaged: .*; others are \[2\]'):
        checkpoint.load_params(folder, 'best', ONE)


def test_an_evaluation_that_is_repeated_or_of_an_earlier_step_is_kept_if_it_scores_higher(tmp_path):
    save_best(checkpoint.Best(tmp_path), 6, 0.5)
    save_best(checkpoint.Best(tmp_path), 6, 0.5, seed=1)
    assert_best(tmp_path, 6, seed=0)
    save_best(checkpoint.Best(tmp_path), 6, 0.6, seed=2)
    assert_best(tmp_path, 6, seed=2)
    resumed = checkpoint.Best(tmp_path)
    save_best(resumed, 3, 0.55)
    assert_best(tmp_path, 6, seed=2)
    save_best(resumed, 4, 0.7)
    assert_best(tmp_path, 4)
    save_best(resumed, 9, 0.65)
    assert_best(tmp_path, 4)


def test_scores_of_two_metrics_are_not_compared(tmp_path):
    save_best(checkpoint.Best(tmp_path), 6, 0.9, 'recall', map=0.3)
    resumed = checkpoint.Best(tmp_path)
    save_best(resumed, 9, 0.2, 'map', recall=0.95)
    assert_best(tmp_path, 6)
    save_best(resumed, 12, 0.4, 'map', recall=0.1)
    assert_best(tmp_path, 12)
    save_best(resumed, 15, 0.01, 'map of another benchmark')
    assert_best(tmp_path, 15)


def test_the_best_of_a_run_of_before_is_compared_by_the_scores_in_its_log(tmp_path):
    for number, kept in enumerate([True, False]):
        folder = tmp_path / str(number)
        with ocp.training.Checkpointer(folder / 'best') as older:
            metadata = checkpoint._make_metadata(state(6).params, {})
            older.save(6, state(6).params, metrics={'score': 0.9}, custom_metadata=metadata)
        lines = [{'step': 5, 'map': 0.1}, {'step': 6, 'map': 0.9, 'recall': 0.1}, {'step': 6}]
        (folder / 'metrics.jsonl').write_text(''.join(json.dumps(x) + '\n' for x in lines))
        save_best(checkpoint.Best(folder), 9, 0.5, 'map' if kept else 'recall')
        assert_best(folder, 6 if kept else 9)


def test_parameters_whose_saving_was_killed_are_put_in_their_place(tmp_path, monkeypatch):
    killed = checkpoint.Best(tmp_path)
    save_best(killed, 6, 0.5)
    monkeypatch.setattr(checkpoint, '_put_in_place', lambda folder: None)
    save_best(killed, 4, 0.7)
    monkeypatch.undo()
    assert checkpoint.load_params(tmp_path, 'best', ONE)[0] == 6
    shutil.copytree(tmp_path / 'best/6', tmp_path / 'best/6.old')
    shutil.copytree(tmp_path / 'best/6', tmp_path / 'best/new.orbax-checkpoint-tmp')
    save_best(checkpoint.Best(tmp_path), 3, 0.6)
    assert_best(tmp_path, 4)


def test_a_relative_workdir_resumes_without_a_warning(saved, monkeypatch, caplog):
    monkeypatch.chdir(saved.parent)
    with caplog.at_level(logging.WARNING):
        restore(pathlib.Path(saved.name))
        checkpoint.Best(pathlib.Path(saved.name))
        checkpoint.load_params(pathlib.Path(saved.name), 'best', ONE)
    assert not caplog.messages
