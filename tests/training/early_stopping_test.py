"""The validation loss, what it decides, and what it refuses."""

import dataclasses
import itertools
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from hbt import config, main
from hbt.data import ragged, store
from hbt.data.readers import synthetic
from hbt.models import embedder
from hbt.sampling import batches, validation
from hbt.training import checkpoint, loop, losses, run_dir, telemetry, train_state
from hbt.utils import distributed, log, sharding
from tests import ROOT, tiny

LOSS = checkpoint.VALIDATION_LOSS


def write_groups(path, groups):
    with path.open('w') as file:
        for group in groups:
            row = {key: group[key] for key in ('id', 'query', 'passage')}
            file.write(json.dumps(row) + '\n')
    return str(path)


def experiment(folder, **evaluation):
    """A store of few groups, which a run overfits within some steps, and other groups."""
    train = write_groups(folder / 'few.jsonl', synthetic.groups('train', 12))
    held_out = write_groups(folder / 'held.jsonl', synthetic.groups('test', 20))
    evaluation = {'every': 3, 'patience': 2, 'best': 'loss'} | evaluation
    c = tiny.get_config()
    return dataclasses.replace(
        c,
        steps=200,
        ckpt_every=4,
        data=dataclasses.replace(c.data, root=str(folder / 'store'), sources=(train,)),
        optim=config.Optim(lr=1e-2, warmup=0, schedule='constant'),
        eval=config.Eval(validation=held_out, **evaluation),
    )


def train(c, workdir):
    c = config.check(c)
    main.make_store(c)
    main.make_validation(c, workdir)
    loop.train_config(c, workdir)


def validation_losses(workdir):
    lines = log.read_metrics(workdir / 'metrics.jsonl')
    return {line['step']: line[LOSS] for line in lines if LOSS in line}


def steps_in(folder):
    return [int(x.name) for x in folder.iterdir() if x.name.isdigit()]


@pytest.fixture(scope='session')
def overfitted(tmp_path_factory):
    """Settings, and the run directory of a run that stopped by itself."""
    folder = tmp_path_factory.mktemp('overfit')
    c = experiment(folder)
    train(c, folder / 'run')
    return c, folder / 'run'


def test_a_run_that_overfits_stops_after_the_patience_and_keeps_its_best(overfitted, capsys):
    c, workdir = overfitted
    measured = validation_losses(workdir)
    best, last = min(measured, key=measured.get), max(measured)
    assert last < c.steps and last == best + 3 * 2
    assert steps_in(workdir / 'best') == [best] and max(steps_in(workdir / 'ckpt')) == last
    train(c, workdir)
    assert validation_losses(workdir) == measured
    output = capsys.readouterr().out
    reason = f'stopped at step {last}: 2 evaluations in a row (eval.patience=2) without a better'
    assert f'{reason} validation/loss than {measured[best]:.6g} of step {best}; best/ has' in output


@pytest.mark.slow
def test_a_run_that_is_stopped_at_any_step_ends_as_one_that_was_not(overfitted, monkeypatch):
    c, whole = overfitted
    workdir, asked = whole.with_name('stopped'), []

    def due(self, step):
        self.signal = signal.SIGTERM if step in asked else None
        return step in asked

    monkeypatch.setattr(distributed.StopRequests, 'due', due)
    for step in (2, 5, 6, 7):  # an evaluation is at 6, a checkpoint at 4
        asked[:] = [step]
        with pytest.raises(SystemExit):
            train(c, workdir)
    asked.clear()
    train(c, workdir)
    assert validation_losses(workdir) == validation_losses(whole)
    assert steps_in(workdir / 'best') == steps_in(whole / 'best')


@pytest.mark.slow
def test_what_was_logged_after_the_checkpoint_has_no_say(overfitted):
    """As after a kill between an evaluation and the next checkpoint."""
    c, whole = overfitted
    workdir = whole.with_name('short')
    train(dataclasses.replace(c, steps=4), workdir)
    with (workdir / 'metrics.jsonl').open('a') as file:
        for step in (6, 9):
            file.write(json.dumps({'step': step, LOSS: 99.0}) + '\n')
    train(dataclasses.replace(c, steps=5), workdir)
    assert list(validation_losses(workdir)) == [3, 4, 5]


@pytest.mark.slow
def test_a_run_killed_at_random_moments_stops_at_the_same_step_with_the_same_best(overfitted):
    c, whole = overfitted
    workdir, dice = whole.with_name('killed'), random.SystemRandom()
    command = [sys.executable, '-m', 'hbt.main', '--config=tests/tiny.py', f'--workdir={workdir}']
    for name, value in {
        'data.root': c.data.root,
        'steps': c.steps,
        'ckpt_every': c.ckpt_every,
        'optim.lr': c.optim.lr,
        'optim.warmup': 0,
        'optim.schedule': 'constant',
        'eval.validation': c.eval.validation,
        'eval.best': 'loss',
        'eval.every': c.eval.every,
        'eval.patience': c.eval.patience,
    }.items():
        command.append(f'--config.{name}={value}')
    kills = 0
    for _ in range(30):
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ, stdout=subprocess.DEVNULL)
        if kills < 4:
            lines = len(log.read_metrics(workdir / 'metrics.jsonl'))
            while process.poll() is None and lines >= len(
                log.read_metrics(workdir / 'metrics.jsonl')
            ):
                time.sleep(0.01)
            time.sleep(dice.random() / 4)
            process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            break
        kills += 1
    assert kills >= 1
    assert validation_losses(workdir) == validation_losses(whole)
    assert steps_in(workdir / 'best') == steps_in(whole / 'best')


def test_the_validation_loss_is_the_mean_infonce_of_every_group_without_dropout(tmp_path):
    c = experiment(tmp_path)
    main.make_store(c)
    main.make_validation(c, tmp_path / 'run')
    held_out = store.open_store(run_dir.validation_path(tmp_path / 'run'))
    training = store.open_store(c.data.root)
    assert held_out.manifest['tokenizer'] == training.manifest['tokenizer']
    assert held_out.manifest['settings'] == training.manifest['settings']
    losses_by_devices = {}
    for devices in (1, 8):
        mesh = sharding.make_mesh(jax.devices()[:devices])
        resolved = run_dir.resolve_config(c, training, mesh)
        state = train_state.init_state(resolved, mesh)
        validate = loop._make_validation(resolved, training.languages, tmp_path / 'run', mesh)
        losses_by_devices[devices] = validate(state)
        assert validate(state) == losses_by_devices[devices]
    assert losses_by_devices[1] == pytest.approx(losses_by_devices[8], rel=1e-6)
    expected = expected_loss(resolved, held_out, training, state)
    assert losses_by_devices[8] == pytest.approx(expected, rel=1e-4)


def expected_loss(c, held_out, training, state):
    """By the loss and the encoder of another path: the embedder of evaluation."""
    mesh = sharding.make_mesh()
    embed = embedder.make_table_embedder(c, mesh)
    params = jax.device_put(state.params, sharding.replicated(mesh))
    values, end = [], held_out.manifest['tokenizer']['end_id']
    for plan in validation.plan_batches(c, held_out, training.languages):
        texts = batches.collect_texts(c, held_out, training.languages, [plan])
        vectors = np.zeros((2, len(plan.groups), c.encoder.hidden_dim), np.float32)
        for x in texts.columns:
            table = ragged.truncate_texts(x.table, x.texts, x.limit, end)
            vectors[x.column, x.pairs] = embed(params, table, '', str)
        ids = texts.ids[0, : len(plan.groups)].astype(np.int32)
        pairs = losses.infonce(
            *(jax.numpy.asarray(x) for x in (vectors[0], vectors[1][:, None])),
            *(jax.numpy.asarray(x) for x in (ids[:, 0], ids[:, 1:])),
            jax.numpy.asarray(jax.device_get(state.log_scale)),
            c.loss,
        )
        values.extend(np.asarray(pairs.loss).tolist())
    assert len(values) == 20
    return np.mean(values)


@pytest.mark.slow
@pytest.mark.parametrize('change', ['pmap', 'shard_params', 'chunk', 'multitask', 'learned'])
def test_the_validation_loss_is_the_same_however_it_is_computed(tmp_path, change):
    c = experiment(tmp_path)
    main.make_store(c)
    main.make_validation(c, tmp_path / 'run')
    training, mesh = store.open_store(c.data.root), sharding.make_mesh()
    changed = {
        'pmap': dataclasses.replace(c, mapping='pmap'),
        'shard_params': dataclasses.replace(c, shard_params=True),
        'chunk': dataclasses.replace(c, encoder=dataclasses.replace(c.encoder, chunk=64)),
        'multitask': dataclasses.replace(c, sampler=config.Sampler(kind='multitask')),
        'learned': dataclasses.replace(c, loss=config.Loss(kind='ring', chunk=3, learned=True)),
    }[change]
    values = []
    for x in (c, changed):
        x = run_dir.resolve_config(x, training, mesh)
        state = train_state.init_state(x, mesh)
        validate = loop._make_validation(x, training.languages, tmp_path / 'run', mesh)
        values.append(validate(state))
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_a_validation_set_that_shares_a_group_with_the_store_is_refused(tmp_path):
    c = experiment(tmp_path)
    rows = [*synthetic.groups('test', 5), *itertools.islice(synthetic.groups('train', 12), 3, 5)]
    rows[5]['id'] = rows[5]['id'] + 'x'
    rows[6]['query'] = {'en': '  '.join(rows[6]['query']['en'].split(' '))}
    c.eval.validation = write_groups(tmp_path / 'leaks.jsonl', rows)
    message = r'eval.validation: expected no group of the training store .*store, got 2 of 7, such '
    with pytest.raises(ValueError, match=message + 'as "leaks/.*x", there "few/.*"; prepare'):
        train(c, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('name', ['query.indices', 'passage.en.hashes'])
def test_a_damaged_store_is_named_before_its_groups_are_compared(tmp_path, name):
    c = experiment(tmp_path)
    main.make_store(c)
    (file,) = pathlib.Path(c.data.root).glob(f'*/{name}')
    file.write_bytes(b'\xff' + file.read_bytes()[1:])
    with pytest.raises(ValueError, match=f'{name}: expected the checksum'):
        train(c, tmp_path / 'run')


def test_a_validation_set_that_cannot_be_is_refused(tmp_path):
    c = experiment(tmp_path)

    def refuses(message, change=None, **evaluation):
        changed = dataclasses.replace(c, eval=dataclasses.replace(c.eval, **evaluation))
        with pytest.raises(ValueError, match=message) as error:
            train(dataclasses.replace(changed, **(change or {})), tmp_path / 'run')
        assert '\n' not in str(error.value)

    refuses('eval.validation: .*none.jsonl: expected a JSONL file', validation='none.jsonl')
    refuses(
        'eval.validation: files=no: expected some files', validation='squad:files=no,language=en'
    )
    refuses('eval.best: expected a metric without eval.validation, got loss', validation='')
    refuses('eval.best: expected loss without eval.benchmarks, got multi.map', best='multi.map')
    refuses('eval.patience: expected 0 without eval.every, got 2', every=0)
    none = {'validation': '', 'best': 'multi.map'}
    refuses('eval.patience: expected 0 without eval.benchmarks or eval.validation, got 2', **none)
    refuses('eval.patience: expected 0 to 1000000, got -1', patience=-1)
    one = write_groups(tmp_path / 'one.jsonl', synthetic.groups('test', 1))
    refuses('eval.validation: expected two groups or more with a pair in ar', validation=one)


def test_another_validation_set_than_that_of_the_run_is_refused(overfitted, tmp_path):
    c, workdir = overfitted
    other = write_groups(tmp_path / 'other.jsonl', synthetic.groups('test', 9))
    changed = dataclasses.replace(c, eval=dataclasses.replace(c.eval, validation=other))
    with pytest.raises(ValueError, match=r'eval.validation: .*was made with other datasets'):
        train(changed, workdir)


@pytest.mark.slow
def test_a_run_resumes_without_the_file_of_its_validation_set(tmp_path):
    c = experiment(tmp_path, patience=0)
    c.steps = 3
    train(c, tmp_path / 'run')
    (tmp_path / 'held.jsonl').unlink()
    train(dataclasses.replace(c, steps=6), tmp_path / 'run')
    assert list(validation_losses(tmp_path / 'run')) == [3, 6]


def test_every_group_is_once_in_the_batches_of_validation(tmp_path):
    groups = [*synthetic.groups('test', 50)]
    for group in groups[:9]:
        for side in ('query', 'passage'):
            group[side] = {'en': group[side]['en']}
    c = experiment(tmp_path)
    c.eval.validation = write_groups(tmp_path / 'mixed.jsonl', groups)
    main.make_store(c)
    main.make_validation(c, tmp_path / 'run')
    held_out = store.open_store(run_dir.validation_path(tmp_path / 'run'))
    for alpha, kinds in ((0.0, {'mono': 9, 'cross': 41}), (0.5, {'mono': 29, 'cross': 21})):
        c.sampler.alpha = alpha
        plans = validation.plan_batches(c, held_out, held_out.languages)
        again = validation.plan_batches(c, held_out, held_out.languages)
        counted = dict.fromkeys(kinds, 0)
        for plan, other in zip(plans, again, strict=True):
            np.testing.assert_equal(plan, other)
            assert 1 <= len(plan.groups) <= c.batch_size
            counted[plan.kind] += len(plan.groups)
            same = plan.query_languages == plan.passage_languages
            assert same.all() if plan.kind == 'mono' else not same.any()
            assert plan.kind == 'cross' or len(set(plan.query_languages)) == 1
        assert sorted(np.concatenate([x.groups for x in plans])) == list(range(50))
        assert counted == kinds


def test_patience_counts_the_evaluations_since_the_best_of_the_log():
    def since(metric, values, patience=2):
        lines = [{'step': i, metric: x} for i, x in enumerate(values)]
        found = telemetry.EarlyStopping(metric, patience, [{'step': 0, 'loss': 1.0}, *lines])
        return found.since, bool(found.reason())

    assert since(LOSS, [3.0, 2.0, 2.0]) == (1, False)
    assert since(LOSS, [3.0, 2.0, 2.0, 2.5]) == (2, True)
    assert since(LOSS, [3.0, 2.0, 2.0, 1.5]) == (0, False)
    assert since('x/multi.map', [0.1, 0.3, 0.2, 0.1]) == (2, True)
    assert since('x/multi.map', [0.1, 0.3, 0.2, 0.1], 0) == (2, False)
    assert since(LOSS, [float('nan')] * 2) == (2, True)
