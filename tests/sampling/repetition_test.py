"""Languages whose groups a batch repeats are named, with what helps."""

import json
import re

import numpy as np
import pytest

from hbt import config
from hbt.data import build
from hbt.sampling import repetition, sampler
from tests import tiny

HINDI, ALL = 34, 300


@pytest.fixture(scope='module')
def stored(tmp_path_factory):
    """Groups in German and English, of which a few are in Hindi too; others in Japanese alone."""
    folder = tmp_path_factory.mktemp('store')
    languages = {'faq': ('de', 'en', 'hi'), 'wiki': ('ja',)}
    for name, codes in languages.items():
        with (folder / f'{name}.jsonl').open('w') as file:
            for i in range(ALL):
                have = [x for x in codes if x != 'hi' or i < HINDI]
                texts = [{x: f'{kind} {i} {name} {x}' for x in have} for kind in 'qp']
                row = {'id': str(i), 'query': texts[0], 'passage': texts[1]}
                file.write(json.dumps(row) + '\n')
    data = config.Data(tokenizer='train:300', query_length=32, passage_length=64)
    files = [str(folder / f'{x}.jsonl') for x in languages]
    return build.build_store(data, folder / 'store', files)


def make(stored, batch_size=100, steps=200, **changes):
    c = tiny.make(batch_size=batch_size, steps=steps, sampler=config.Sampler(**changes))
    return sampler.Sampler(config.check(c), stored)


def rows(lines):
    """Name -> groups, times in a batch, epochs."""
    pattern = r'((?:mono|cross) .*?)  +(\d+)  +([\d.]+)  +([\d.,]+|-)'
    return {x[1]: x.groups()[1:] for x in (re.fullmatch(pattern, line) for line in lines) if x}


def test_a_language_with_few_groups_is_named_with_its_epochs(stored):
    s = make(stored, alpha=1.0)
    lines = repetition.describe_run(s)
    times, epochs = 100 / HINDI, 200 * 100 / 4 / HINDI
    assert rows(lines) == {'mono hi of faq': (str(HINDI), f'{times:.1f}', f'{epochs:.1f}')}
    assert 'a batch of 100 pairs' in lines[0]
    for advice in ('sampler.mono=mixed', 'sampler.language_power=1', 'a smaller batch_size'):
        assert advice in lines[-1]
    hindi = s.languages.index('hi')
    plans = [p for step in range(50) for p in s.plans(step) if p.query_languages[0] == hindi]
    counts = [np.bincount(p.groups, minlength=HINDI) for p in plans]
    assert counts and all({*x.tolist()} <= {2, 3, 4} for x in counts), 'as the plans have it'


def test_epochs_are_those_of_the_plans(stored):
    s = make(stored, batch_size=20, alpha=0.5)
    epochs = repetition.count_epochs(s)
    assert epochs['mono'].keys() == {*s.languages} and 'ja' not in epochs['cross']
    assert not repetition.describe_run(s)
    drawn = sum(20 for step in range(200) for p in s.plans(step) if p.kind == 'cross')
    pairs = {'de': ALL + HINDI, 'en': ALL + HINDI, 'hi': 2 * HINDI}
    assert abs(drawn / sum(epochs['cross'][x] * n for x, n in pairs.items()) - 1) < 0.25


@pytest.mark.parametrize(
    'changes, expected, advice',
    [
        ({'alpha': 1.0, 'mono': 'mixed'}, {}, ''),
        ({'alpha': 1.0, 'batch_size': HINDI}, {}, ''),
        ({'alpha': 1.0, 'languages': ('hi',)}, {'hi'}, ': a smaller'),
        ({'alpha': 1.0, 'language_power': 1.0}, {'hi'}, 's: sampler.mono=mixed, sampler.da'),
        ({'alpha': 0.0}, {'hi'}, 'sampler.pair_power=1, a smaller'),
        ({'alpha': 0.0, 'pair_power': 1.0}, {}, ''),
        ({'alpha': 0.0, 'batch_size': 400, 'pair_power': 1.0}, {'de', 'en', 'hi'}, ': a smaller'),
        ({'alpha': 0.0, 'languages': ('de', 'hi'), 'batch_size': 40}, {'de', 'hi'}, ': a smaller'),
    ],
)
def test_batches_of_other_compositions_repeat_other_languages(stored, changes, expected, advice):
    lines = repetition.describe_run(make(stored, **changes))
    kind = 'mono' if changes['alpha'] else 'cross'
    assert rows(lines).keys() == {f'{kind} {x} of faq' for x in expected}
    assert advice in ''.join(lines)


def test_a_store_says_which_languages_a_batch_of_the_default_size_repeats(stored):
    lines = repetition.describe_store(stored, 96)
    assert rows(lines) == {'mono hi of faq': (str(HINDI), '2.8', '-')}
    assert 'sampler.mono=mixed' in lines[-1]
    assert not repetition.describe_store(stored, HINDI)


def test_a_multitask_run_draws_batches_of_both_kinds_at_every_step(stored):
    s = make(stored, steps=10, kind='multitask', languages=('de', 'en'))
    assert {*repetition.count_epochs(s)} == {'mono', 'cross'}
    assert repetition.describe_run(s) == []
