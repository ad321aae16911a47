import dataclasses
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import safetensors.numpy
import tokenizers

from hbt import config, main
from hbt.data import tokenizer_files
from hbt.evaluation import evaluator, metrics
from hbt.models import encoder, model_dir
from hbt.training import checkpoint, loop, replay, run_dir, train_state
from hbt.utils import log, sharding, text_table
from tests import ROOT, tiny

ONE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


def command(store_path, workdir):
    return [
        *(sys.executable, '-m', 'hbt.main', '--config=tests/tiny.py'),
        *(f'--config.data.root={store_path}', f'--workdir={workdir}', '--config.steps=48'),
    ]


def losses_by_step(workdir):
    lines = log.read_metrics(workdir / 'metrics.jsonl')
    steps = [line['step'] for line in lines if 'loss' in line]
    assert steps == sorted(set(steps)), 'a step is logged twice or out of order'
    return {line['step']: line['loss'] for line in lines if 'loss' in line}


def train(store_path, workdir, **changes):
    c = tiny.get_config()
    c.data.root = str(store_path)
    for name, value in changes.items():
        setattr(c, name, value)
    loop.train_config(config.check(c), workdir)


@pytest.mark.slow
def test_a_run_killed_at_random_ends_bit_equal_to_one_that_was_not(tiny_store, tmp_path):
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    environment = os.environ | {'JAX_PLATFORMS': 'cpu'}
    subprocess.run(
        command(tiny_store.path, whole), cwd=ROOT, env=environment, check=True, capture_output=True
    )
    at = random.SystemRandom().randrange(3, 40)
    process = subprocess.Popen(
        command(tiny_store.path, killed), cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while not any(int(x.name) >= at for x in killed.glob('ckpt/*') if x.name.isdigit()):
        assert process.poll() is None, f'ended before a checkpoint of step {at}'
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = subprocess.run(
        command(tiny_store.path, killed), cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    assert 'continuing after step' in again.stdout, f'killed at step {at}: {again.stdout}'
    assert losses_by_step(whole) == losses_by_step(killed)
    expected, resumed = (checkpoint.load_params(x, 'latest', ONE) for x in (whole, killed))
    assert expected[0] == resumed[0] == 48
    for a, b in zip(leaves(expected[1]), leaves(resumed[1]), strict=True):
        np.testing.assert_array_equal(a, b)


def leaves(tree):
    for key in sorted(tree):
        yield from leaves(tree[key]) if isinstance(tree[key], dict) else [np.asarray(tree[key])]


def started(store_path, workdir):
    """A run that has logged a few steps."""
    process = subprocess.Popen(
        command(store_path, workdir),
        cwd=ROOT,
        env=os.environ | {'JAX_PLATFORMS': 'cpu'},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(log.read_metrics(workdir / 'metrics.jsonl')) < 4:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return process


@pytest.mark.slow
@pytest.mark.parametrize('name, status', [('SIGTERM', 75), ('SIGINT', 130)])
def test_a_run_stopped_by_a_signal_saves_its_step_and_says_so(tiny_store, tmp_path, name, status):
    process = started(tiny_store.path, tmp_path)
    process.send_signal(getattr(signal, name))
    out, error = process.communicate()
    assert process.returncode == status, error
    step = int(out.split(f'{name}: saved at step ')[1].split(';')[0])
    assert (
        checkpoint.load_params(tmp_path, 'latest', ONE)[0] == step == max(losses_by_step(tmp_path))
    )


@pytest.mark.slow
def test_a_second_process_in_a_run_directory_is_refused(tiny_store, tmp_path):
    process = started(tiny_store.path, tmp_path)
    second = subprocess.run(
        command(tiny_store.path, tmp_path), cwd=ROOT, env=os.environ, capture_output=True, text=True
    )
    process.kill()
    process.communicate()
    assert second.returncode == 2
    assert f'{tmp_path} is locked by process {process.pid} on' in second.stderr


@pytest.mark.slow
def test_a_finished_run_is_evaluated_again_with_the_same_numbers(tiny_store, tmp_path, monkeypatch):
    c = config.Eval(benchmarks=('cldr',), at_start=True, every=6, batch_size=64)
    train(tiny_store.path, tmp_path, eval=c, steps=6)
    first = json.loads((tmp_path / 'results/6/cldr.json').read_text())
    assert (tmp_path / 'results/0/cldr.json').exists()
    assert first['counts'] == {'queries': 4400, 'documents': 4400}
    assert set(first['metrics']) == {'mono', 'cross', 'multi'}
    assert len(first['pairs']) == 121 and first['pairs']['ar-de']['queries'] == 400
    assert 'rank_distance' in first['metrics']['multi']
    assert set(first['languages']['ar']['cross']) == set(metrics.METRICS)
    assert first['manifest']['documents']['ar'] == 400
    assert (tmp_path / 'results/6/cldr.npz').exists()
    for which in ('latest', 'best', '6'):
        out = tmp_path / which
        subprocess.run(
            [
                *(sys.executable, '-m', 'hbt.evaluate', f'--workdir={tmp_path}', f'--out={out}'),
                *('--benchmark=cldr', f'--step={which}', f'--run_file={out}.run'),
                '--run_depth=100',
            ],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
    again = json.loads((tmp_path / 'latest/cldr.json').read_text())
    for setting, values in first['metrics'].items():
        for name, value in values.items():
            assert again['metrics'][setting][name] == pytest.approx(value, rel=1e-4, abs=1e-6)
    check_run_file(tmp_path, again)


def check_run_file(folder, result):
    """trec_eval gives, for the files that were written, the numbers that were written."""
    pytrec_eval = pytest.importorskip('pytrec_eval')
    with open(folder / 'latest.qrels') as file:
        qrels = pytrec_eval.parse_qrel(file)
    with open(folder / 'latest.run') as file:
        run = pytrec_eval.parse_run(file)
    assert len(run) == 4400 and all(len(x) == 100 for x in run.values())
    scores = pytrec_eval.RelevanceEvaluator(qrels, {'map', 'recip_rank', 'recall'}).evaluate(run)
    for ours, theirs in (('map', 'map'), ('mrr', 'recip_rank'), ('recall@10', 'recall_10')):
        mean = np.mean([x[theirs] for x in scores.values()])
        assert result['run'][ours] == pytest.approx(mean, abs=1e-6)


def test_a_run_directory_has_config_tokenizer_metrics_and_checkpoint(tiny_store, tmp_path, capsys):
    train(tiny_store.path, tmp_path, steps=3)
    assert re.search(r'compiling the step for \d rows of 32 \(1 of \d\)', capsys.readouterr().err)
    assert config.load(tmp_path / 'config.json').encoder.vocab_size == 800
    assert (tmp_path / 'tokenizer.json').read_bytes() == (
        tiny_store.path / 'tokenizer.json'
    ).read_bytes()
    assert list((tmp_path / 'tensorboard').iterdir())
    assert list(losses_by_step(tmp_path)) == [1, 2, 3]
    step, params = checkpoint.load_params(tmp_path, 'latest', ONE)
    assert step == 3 and set(params) == {'embeddings', 'layers'}
    with pytest.raises(ValueError, match=r"expected one of the steps \[3\], got '7'"):
        checkpoint.load_params(tmp_path, '7', ONE)
    with pytest.raises(ValueError, match='best: expected the best step .* --step=latest takes'):
        checkpoint.load_params(tmp_path, 'best', ONE)


def test_a_run_ends_with_its_best_step_and_the_commands_that_come_next(tmp_path, monkeypatch):
    c, workdir = tiny.make(), tmp_path / 'a run'
    lines = run_dir.list_next_commands(c, workdir)
    assert lines[0] == 'best step: none, as nothing was evaluated'
    assert (
        f"  python -m hbt.export --workdir='{workdir}' --out=models/'a run' --step=latest" in lines
    )
    c.eval = config.Eval(benchmarks=('cldr',), best='cross.map')
    monkeypatch.setattr(checkpoint, 'read_best', lambda _: (4, {'cldr/cross.map': 0.25}))
    assert run_dir.list_next_commands(c, workdir) == [
        'best step: 4, with cross.map 0.2500',
        'next:',
        f"  python -m hbt.evaluate --workdir='{workdir}' --step=best",
        f"  python -m hbt.export --workdir='{workdir}' --out=models/'a run'",
        f"  python -m hbt.report '{workdir}' --out=reports/'a run'",
    ]


@pytest.mark.slow
def test_a_run_resumes_only_with_the_settings_that_it_began_with(tiny_store, tmp_path):
    train(tiny_store.path, tmp_path, steps=3)
    train(tiny_store.path, tmp_path, steps=5)
    assert list(losses_by_step(tmp_path)) == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match='optim.lr: expected 0.001, with which this run began'):
        train(tiny_store.path, tmp_path, optim=config.Optim(lr=1.0, warmup=2))


def test_lines_logged_after_the_checkpoint_are_dropped_on_resuming(tiny_store, tmp_path):
    train(tiny_store.path, tmp_path, steps=3)
    with (tmp_path / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 4, "loss": 9.0}\n{"step": 5, "lo')
    train(tiny_store.path, tmp_path, steps=5)
    assert losses_by_step(tmp_path)[4] != 9.0


def test_settings_that_do_not_fit_are_refused_before_training(tiny_store, tmp_path):
    def refuses(message, **changes):
        with pytest.raises(ValueError, match=message):
            train(tiny_store.path, tmp_path / 'run', **changes)
        assert not (tmp_path / 'run').exists()

    refuses('batch_size: expected a multiple of the 8 devices, such as 16, got 12', batch_size=12)
    small = tiny.make().encoder
    small.vocab_size = 500
    refuses('encoder: vocab_size: expected at least 800', encoder=small)
    short = tiny.make().encoder
    short.max_positions = 20
    refuses('encoder: max_positions: expected at least 34', encoder=short)
    refuses('benchmark: expected one of', eval=config.Eval(benchmarks=('squad',)))
    refuses('loss.dims: expected at most 32, .* got 64', loss=config.Loss(dims=(8, 64)))
    row = {'id': '0', 'query': {'en': 'five'}, 'passage': {'en': '5'}}
    (tmp_path / 'held.jsonl').write_text(json.dumps(row) + '\n')
    impossible = config.Eval(benchmarks=('jsonl:held.jsonl',), root=str(tmp_path), best='cross.map')
    refuses('eval.best: expected a metric of mono or multi, .* got cross.map', eval=impossible)
    refuses('xquad-r/', eval=config.Eval(benchmarks=('xquad_r',), root=str(tmp_path)))


def test_dims_beyond_pretrained_weights_are_refused_before_training(tiny_store, monkeypatch):
    c = tiny.get_config()
    c.encoder.init, c.loss.dims = 'some/model', (8, 64)
    architecture = dataclasses.replace(c.encoder, vocab_size=800)
    monkeypatch.setattr(run_dir, '_pretrained_architecture', lambda c, s: architecture)
    with pytest.raises(ValueError, match='loss.dims: expected at most 32, .* got 64'):
        run_dir.resolve_config(config.check(c), tiny_store, sharding.make_mesh())


def test_every_seed_begins_with_weights_of_its_own(tiny_store, tmp_path):
    c = tiny.get_config()
    for seed in range(2):
        sizes = dataclasses.replace(c.encoder, vocab_size=800, num_layers=1)
        params = jax.device_get(encoder.init_params(sizes, jax.random.key(seed)))
        full = config.Config(data=c.data, encoder=sizes)
        tokenizer = tokenizer_files.load_tokenizer(tiny_store.path)
        model = model_dir.Model(full, params, tokenizer)
        model_dir.write_model(tmp_path / f'start{seed}', model, '')
        table = params['embeddings']['token']
        own = dataclasses.replace(c, seed=seed)
        own.encoder.init = f'{tmp_path}/start{{seed}}'
        own = run_dir.resolve_config(config.check(own), tiny_store, sharding.make_mesh())
        assert own.encoder.init == f'{tmp_path}/start{{seed}}'
        state = train_state.init_state(own, sharding.make_mesh())
        np.testing.assert_array_equal(state.params['embeddings']['token'], table)


def test_a_static_encoder_needs_texts_without_special_tokens_and_no_layers(tiny_store):
    c = tiny.get_config()
    c.encoder.family = 'static'
    for layers, message in ((2, 'num_layers: expected 0 .* got 2'), (0, 'train:SIZE:static')):
        c.encoder.num_layers = layers
        with pytest.raises(ValueError, match=message):
            run_dir.resolve_config(config.check(c), tiny_store, sharding.make_mesh())


def test_weights_of_another_tokenizer_are_refused(tiny_store, tmp_path):
    folder = tmp_path / 'checkpoint'
    shutil.copytree(ROOT / 'tests/fixtures/xlmr', folder)
    c = tiny.make().encoder
    c.init = str(folder)
    with pytest.raises(ValueError, match='vocab_size: expected at least 800 .* got'):
        train(tiny_store.path, tmp_path / 'run', encoder=c)
    words = {str(i): i for i in range(800)} | {'<unk>': 800}
    model = tokenizers.models.WordLevel(words, '<unk>')
    tokenizers.Tokenizer(model).save(str(folder / 'tokenizer.json'))
    with pytest.raises(ValueError, match="the tokenizer of .* tokens differ, such as '(0|<s>)'"):
        train(tiny_store.path, tmp_path / 'run', encoder=c)
    c.init = 'nobody/nothing'
    with pytest.raises(ValueError, match='encoder.init: .*hf download nobody/nothing'):
        train(tiny_store.path, tmp_path / 'run', encoder=c)


def with_tokenizer(folder):
    """The bare checkpoint of the fixtures, with a tokenizer of its own."""
    shutil.copytree(ROOT / 'tests/fixtures/xlmr', folder)
    size = json.loads((folder / 'config.json').read_text())['vocab_size']
    words = {x: i for i, x in enumerate(['<s>', '<pad>', '</s>', '<unk>', *range(size - 4)])}
    model = tokenizers.models.WordLevel({str(x): i for x, i in words.items()}, '<unk>')
    tokenizers.Tokenizer(model).save(str(folder / 'tokenizer.json'))
    return folder


@pytest.mark.parametrize(
    'kind',
    [
        pytest.param('a bare encoder', marks=pytest.mark.slow),
        'a directory of sentence-transformers',
    ],
)
def test_training_starts_from_pretrained_weights(tmp_path, kind):
    """Prepared with the tokenizer of a checkpoint, trained from it, and kept after no change."""
    is_bare = kind == 'a bare encoder'
    folder = with_tokenizer(tmp_path / 'bare') if is_bare else ROOT / 'tests/fixtures/labse'
    c = tiny.get_config()
    c.data = config.Data(
        root=str(tmp_path / 'store'),
        sources=('cldr:20',),
        tokenizer=str(folder),
        query_length=8,
        passage_length=8,
    )
    c.encoder.init, c.steps = str(folder), 1
    c.optim = config.Optim(lr=0.0, warmup=0, weight_decay=0.0)
    main.make_store(c)
    loop.train_config(c, tmp_path / 'run')
    _, params = checkpoint.load_params(tmp_path / 'run', 'latest', ONE)
    resolved = config.load(tmp_path / 'run/config.json').encoder
    assert (resolved.pooling, resolved.projection_dim) == (('mean', 0) if is_bare else ('cls', 24))
    loaded = model_dir.load_params(folder, resolved)
    for a, b in zip(leaves(params), leaves(loaded), strict=True):
        np.testing.assert_array_equal(a, b)


def change_words(folder, value):
    """Sets the embedding of unknown words, the fourth token of the fixtures' checkpoint."""
    arrays = safetensors.numpy.load_file(folder / 'model.safetensors')
    (name,) = [x for x in arrays if x.endswith('word_embeddings.weight')]
    arrays[name][3] = value
    safetensors.numpy.save_file(arrays, folder / 'model.safetensors')


@pytest.fixture
def not_finite(tmp_path):
    """A config whose weights, finite themselves, give no number for unknown words."""
    folder = with_tokenizer(tmp_path / 'bare')
    change_words(folder, 3e38)
    c = tiny.get_config()
    c.data = dataclasses.replace(
        c.data, root=str(tmp_path / 'store'), sources=('cldr:20',), tokenizer=str(folder)
    )
    c.data.query_length = c.data.passage_length = 8
    c.encoder.init, c.steps = str(folder), 3
    main.make_store(c)
    return c


def test_a_loss_that_is_not_finite_stops_the_run_and_its_texts_are_written(not_finite, tmp_path):
    with pytest.raises(ValueError, match=r'run: step 1: the loss .* --replay=1 computes it again'):
        loop.train_config(not_finite, tmp_path / 'run')
    rows = (tmp_path / 'run/nonfinite-1.txt').read_text()
    assert rows.startswith('step 0: ') and rows.count('  ? ') == 8


def test_weights_that_are_not_finite_are_named_before_training(not_finite, tmp_path):
    change_words(pathlib.Path(not_finite.encoder.init), np.nan)
    message = r'model\.safetensors: .*word_embeddings\.weight: expected finite numbers, got nan'
    with pytest.raises(ValueError, match=message):
        loop.train_config(not_finite, tmp_path / 'run')


@pytest.mark.slow
def test_a_step_that_is_not_finite_is_skipped_with_nonfinite_skip(
    not_finite, tmp_path, monkeypatch
):
    not_finite.nonfinite = 'skip'
    monkeypatch.setattr(loop, 'MAX_NONFINITE_FILES', 2)
    loop.train_config(not_finite, tmp_path / 'run')
    lines = log.read_metrics(tmp_path / 'run/metrics.jsonl')
    assert [line['skipped'] for line in lines] == [1, 1, 1]
    noted = sorted(x.name for x in (tmp_path / 'run').glob('nonfinite-*'))
    assert noted == ['nonfinite-1.txt', 'nonfinite-2.txt']
    assert checkpoint.load_params(tmp_path / 'run', 'latest', ONE)[0] == 3


@pytest.mark.slow
def test_a_step_is_computed_again_as_it_was(tiny_store, tmp_path, capsys):
    train(tiny_store.path, tmp_path, steps=9)
    wanted = {line['step']: line for line in log.read_metrics(tmp_path / 'metrics.jsonl')}[8]
    c = config.load(tmp_path / 'config.json')
    capsys.readouterr()
    replay.replay_step(c, tmp_path, 8)
    printed = capsys.readouterr().out
    assert 'step 7: ' in printed and printed.count('  + ') == 8
    told = dict(line.split() for line in printed.splitlines() if line.count(' ') == 1)
    assert float(told['loss']) == pytest.approx(wanted['loss'], rel=1e-6)
    assert float(told['grad_norm']) == pytest.approx(wanted['grad_norm'], rel=1e-6)


def test_a_store_whose_bytes_have_changed_is_refused(tiny_store, tmp_path):
    copy = pathlib.Path(shutil.copytree(tiny_store.path, tmp_path / 'store'))
    file = copy / 'cldr/passage.de.tokens'
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f'{file}: expected the checksum'):
        train(copy, tmp_path / 'run')
    manifest = (tiny_store.path / 'manifest.json').read_text()
    (copy / 'manifest.json').write_text(manifest.replace('"texts": 60', '"texts": 61', 1))
    with pytest.raises(ValueError, match='manifest.json: expected it as it was written'):
        train(copy, tmp_path / 'run')


def test_a_store_that_cannot_be_made_says_how_to_make_one(tmp_path):
    c = tiny.get_config()
    c.data.root, c.data.sources = str(tmp_path / 'store'), (str(tmp_path / 'none.jsonl'),)
    with pytest.raises(ValueError, match='none.jsonl: .*make the store .*hbt.prepare --input=FILE'):
        main.make_store(c)


def test_the_table_shows_every_language_and_the_mean():
    row = {s: {'map': 0.5, 'recall@1': 0.25} for s in ('mono', 'cross')}
    row['multi'] = {'map': 0.5, 'recall@10': 1.0, 'rank_distance': 123.4}
    numbers = {
        'benchmark': 'x',
        'counts': {'queries': 2, 'documents': 3},
        'languages': {'en': row, 'de': {'multi': row['multi']}},
        'metrics': row,
    }
    lines = evaluator.format_result(numbers, 7).split('\n')
    assert lines[0] == 'x at step 7: 2 queries, 3 documents'
    assert [line.split()[0] for line in lines[3:]] == ['en', 'de', 'mean']
    assert '123.4' in lines[-1]
    assert max(map(len, lines)) <= text_table.WIDTH
