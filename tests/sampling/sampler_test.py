import collections
import itertools
import json
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
import tokenizers

from hbt import config
from hbt.data import build
from hbt.sampling import batches, draws, packing, sampler
from tests import ROOT, tiny


def write(path, rows):
    path.write_text(''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows))
    return str(path)


def group(i, languages, name='g', negatives=None):
    row = {
        'id': f'{name}{i}',
        'query': {x: f'question {i} of {name} in {x}' for x in languages},
        'passage': {x: f'answer {i} of {name} in {x}' for x in languages},
    }
    return row | ({'negatives': negatives} if negatives else {})


@pytest.fixture(scope='module')
def stored(tmp_path_factory):
    """Two data sets: `big` in three languages, some groups in two; `small` in English only."""
    folder = tmp_path_factory.mktemp('store')
    cycle = itertools.cycle([('en', 'de', 'ja'), ('en', 'de'), ('ja', 'de')])
    big = [group(i, x) for i, x in zip(range(300), cycle, strict=False)]
    small = [group(i, ('en',), 's') for i in range(100)]
    inputs = [write(folder / 'big.jsonl', big), write(folder / 'small.jsonl', small)]
    data = config.Data(tokenizer='train:300', query_length=32, passage_length=64)
    return build.build_store(data, folder / 'store', inputs)


def make(stored, alpha=0.5, batch_size=32, devices=1, **changes):
    c = tiny.make(batch_size=batch_size, sampler=config.Sampler(alpha=alpha, **changes))
    return sampler.Sampler(c, stored, devices)


def test_a_stream_counts_what_came_before():
    stream = draws.Stream((1, 2), (0.2, 0.5, 0.3))
    values, nth = stream.draws_from(0, 20_000)
    counts = collections.Counter()
    for value, count in zip(values, nth, strict=True):
        assert counts[value] == count
        counts[value] += 1
    for start, size in ((0, 1), (4095, 2), (9000, 5000), (19_999, 1)):
        again = draws.Stream((1, 2), (0.2, 0.5, 0.3)).draws_from(start, size)
        np.testing.assert_array_equal(again[0], values[start : start + size])
        np.testing.assert_array_equal(again[1], nth[start : start + size])
    for stop in (0, 1, 4096, 9999):
        before = draws.Stream((1, 2), (0.2, 0.5, 0.3)).counts_before(stop)
        np.testing.assert_array_equal(before, np.bincount(values[:stop], minlength=3))
    assert abs(counts[1] / 20_000 - 0.5) < 0.015


def test_a_stream_of_many_values_counts_each_of_them():
    size = 2**16 + 5000
    values, nth = draws.Stream((1, 2), np.ones(size)).draws_from(0, 100_000)
    assert values.max() >= 2**16
    counts = collections.Counter()
    for value, count in zip(values.tolist(), nth.tolist(), strict=True):
        assert counts[value] == count
        counts[value] += 1


@pytest.mark.parametrize('size', [1, 2, 3, 4, 5, 7, 16, 17, 64, 1000, 4096, 4097])
def test_a_permutation_visits_every_element_once_an_epoch(size):
    index = np.arange(3 * size)
    key = np.full(3 * size, 7, np.uint64)
    walk = draws.permute(index, np.full(3 * size, size), key)
    epochs = walk.reshape(3, size)
    assert (np.sort(epochs, axis=1) == np.arange(size)).all()
    if size >= 64:
        assert (epochs[0] != epochs[1]).mean() > 0.9
        assert abs(np.corrcoef(epochs[0], np.arange(size))[0, 1]) < 0.4


def test_a_monolingual_batch_is_in_one_language(stored):
    s = make(stored, alpha=1.0)
    for step in range(50):
        plan = s.plans(step)[0]
        assert plan.kind == 'mono'
        assert len({*plan.query_languages, *plan.passage_languages}) == 1


def test_a_cross_lingual_pair_has_two_languages_and_a_batch_mixes_language_pairs(stored):
    s = make(stored, alpha=0.0)
    for step in range(50):
        plan = s.plans(step)[0]
        assert plan.kind == 'cross'
        assert (plan.query_languages != plan.passage_languages).all()
        assert len(set(zip(plan.query_languages, plan.passage_languages, strict=True))) >= 4


def test_hybrid_batches_are_monolingual_with_probability_alpha(stored):
    s = make(stored, alpha=0.3, batch_size=2)
    proportion = np.mean([s.plans(step)[0].kind == 'mono' for step in range(4000)])
    assert abs(proportion - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 4000)


def test_languages_are_uniform_and_datasets_by_size_within_a_language(stored):
    s = make(stored, alpha=1.0, batch_size=2)
    plans = [s.plans(step)[0] for step in range(3000)]
    languages = collections.Counter(s.languages[p.query_languages[0]] for p in plans)
    assert all(abs(languages[x] / 3000 - 1 / 3) < 0.035 for x in ('de', 'en', 'ja'))
    english = [p.datasets[0] for p in plans if s.languages[p.query_languages[0]] == 'en']
    assert abs(np.mean(english) - 100 / 300) < 0.06  # 200 groups of big have English, 100 of small


def test_language_pairs_of_a_cross_lingual_batch_are_uniform(stored):
    s = make(stored, alpha=0.0, batch_size=60)
    pairs = collections.Counter()
    for step in range(1000):
        plan = s.plans(step)[0]
        pairs.update(zip(plan.query_languages, plan.passage_languages, strict=True))
    assert len(pairs) == 6
    assert all(abs(n / 60_000 - 1 / 6) < 4 * np.sqrt(5 / 36 / 60_000) for n in pairs.values())


def test_a_group_is_never_drawn_for_a_language_it_lacks(stored):
    for alpha in (0.0, 1.0):
        s = make(stored, alpha=alpha)
        for step in range(100):
            plan = s.plans(step)[0]
            dataset = stored.datasets[plan.datasets[0]]
            for g, q, p in zip(*plan[3:], strict=True):
                assert dataset.query[s.languages[q]].hashes[g]
                assert dataset.passage[s.languages[p]].hashes[g]


def test_a_pool_is_drawn_without_replacement(stored):
    s = make(stored, alpha=1.0, batch_size=20, languages=('ja',))  # 200 groups have Japanese
    groups = np.concatenate([s.plans(step)[0].groups for step in range(20)])
    assert (np.bincount(groups[:200], minlength=300) <= 1).all()
    assert (np.bincount(groups, minlength=300)[np.unique(groups)] == 2).all()


def test_plans_do_not_depend_on_how_many_steps_are_planned_at_once(stored, monkeypatch):
    expected = [make(stored).plans(step) for step in range(40)]
    monkeypatch.setattr(sampler, 'MAX_STEPS', 7)
    for step, plans in enumerate(map(make(stored).plans, range(40))):
        for got, plan in zip(plans, expected[step], strict=True):
            assert got[:2] == plan[:2]
            np.testing.assert_array_equal(got[2:], plan[2:])


def test_a_batch_is_a_function_of_the_step_alone(stored):
    forwards = [make(stored).batch(step)[1] for step in range(6)]
    s = make(stored)
    for step in (5, 2, 4, 0):
        again = s.batch(step)[1]
        np.testing.assert_array_equal(again.packed, forwards[step].packed)
        for a, b in zip(again[1:], forwards[step][1:], strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_parts_of_the_hosts_make_the_whole_batch(stored):
    s = make(stored, devices=8)
    for step in range(5):
        whole = s.batch(step)[1]
        for hosts in (2, 8):
            each = 8 // hosts
            pieces = [
                make(stored, devices=8).batch(step, range(i * each, (i + 1) * each))[1]
                for i in range(hosts)
            ]
            for dim, a, *b in zip(batches.SHARD_AXES, whole, *pieces, strict=True):
                a, *b = ([x] if dim else x for x in (a, *b))
                for x, *y in zip(a, *b, strict=True):
                    np.testing.assert_array_equal(x, np.concatenate(y, axis=dim))


def texts_of(batch, width=64):
    """Tokens of the texts of a batch for one device, by task, pair of the plan and column."""
    texts = {}
    slots = packing.slots_per_row(width)
    for task, pair, column in np.ndindex(batch.embedding_indices.shape):
        row, slot = divmod(batch.embedding_indices[task, pair, column], slots)
        if row < len(batch.packed.tokens):
            mask = batch.packed.segment_ids[row] == slot + 1
            index = int(batch.pair_indices[task, pair])
            texts[task, index, column] = batch.packed.tokens[row][mask]
    return texts


def test_a_batch_holds_the_texts_of_its_plan(stored):
    tokenizer = tokenizers.Tokenizer.from_file(str(stored.path / 'tokenizer.json'))
    s = make(stored)
    for step in range(4):
        (plan,), batch = s.batch(step)
        dataset, texts = stored.datasets[plan.datasets[0]], texts_of(batch)
        assert (batch.packed.segment_ids > 0).sum() == sum(map(len, texts.values()))
        for i, (g, q, p) in enumerate(zip(*plan[3:], strict=True)):
            name, number = dataset.group_id(g)[0], dataset.group_id(g)[1:]
            query = tokenizer.decode(texts[0, i, 0]).strip()
            passage = tokenizer.decode(texts[0, i, 1]).strip()
            assert query == f'Query: question {number} of {name} in {s.languages[q]}'
            assert passage == f'Passage: answer {number} of {name} in {s.languages[p]}'


def test_a_text_that_is_too_long_is_cut_and_keeps_its_end(stored):
    c = tiny.make(
        batch_size=32, data=config.Data(query_length=6, passage_length=10), sampler=config.Sampler()
    )
    short, full = sampler.Sampler(c, stored), make(stored)
    end = stored.manifest['tokenizer']['end_id']
    for key, text in texts_of(short.batch(3)[1], 16).items():
        expected, limit = texts_of(full.batch(3)[1])[key], 10 if key[2] else 6
        assert len(text) == min(len(expected), limit)
        np.testing.assert_array_equal(text[:-1], expected[: len(text) - 1])
        assert text[-1] == expected[-1] == end


def test_groups_that_share_a_text_share_a_duplicate_cluster(tmp_path):
    rows = [group(i, ('en', 'de')) for i in range(20)]
    rows[3]['passage']['de'] = rows[7]['passage']['de']
    rows[5]['query']['en'] = rows[9]['query']['en']
    data = config.Data(tokenizer='train:300', query_length=32, passage_length=64)
    s = build.build_store(data, tmp_path / 'store', [write(tmp_path / 'a.jsonl', rows)])
    queries, passages = s.datasets[0].query_clusters, s.datasets[0].passage_clusters
    assert passages[3] == passages[7] and len(set(passages)) == 19
    assert queries[5] == queries[9] and len(set(queries)) == 19


def test_texts_that_the_model_cannot_tell_share_a_duplicate_cluster(tmp_path):
    rows = [group(i, ('en', 'de')) for i in range(12)]
    text = 'Crème brûlée, déjà vu, naïveté, Ångström'
    rows[2]['passage']['de'] = unicodedata.normalize('NFC', text)
    rows[7]['passage']['de'] = unicodedata.normalize('NFD', text)
    rows[4]['passage']['en'] = 'the same ' * 70 + 'and a'  # equal in the 64 tokens that are kept
    rows[9]['passage']['en'] = 'the same ' * 70 + 'and b'
    rows[5]['query']['de'] = rows[8]['query']['en']
    data = config.Data(tokenizer='train:300', query_length=32, passage_length=64)
    s = build.build_store(data, tmp_path / 'store', [write(tmp_path / 'a.jsonl', rows)])
    queries, passages = s.datasets[0].query_clusters, s.datasets[0].passage_clusters
    assert passages[2] == passages[7] and passages[4] == passages[9]
    assert queries[5] == queries[8]
    assert len(set(passages)) == 10 and len(set(queries)) == 11


def test_copies_in_two_datasets_are_not_negatives_of_each_other(tmp_path):
    first, second = ([group(i, ('en', 'de'), x) for i in range(8)] for x in 'ab')
    second[1]['passage']['de'] = first[6]['passage']['de']
    second[3]['query']['en'] = first[5]['query']['en']
    data = config.Data(tokenizer='train:300', query_length=32, passage_length=64)
    inputs = [write(tmp_path / f'{x}.jsonl', rows) for x, rows in (('a', first), ('b', second))]
    s = build.build_store(data, tmp_path / 'store', inputs)
    (plan,), batch = make(s, batch_size=16, datasets='mixed', alpha=1.0, mono='mixed').batch(0)
    groups = {8 * d + g: i for i, (d, g) in enumerate(zip(plan.datasets, plan.groups, strict=True))}
    pair = np.argsort(batch.pair_indices[0])
    passages, queries = batch.passage_ids[0, pair, 0], batch.query_ids[0, pair]
    for a, b in itertools.combinations(groups, 2):
        i, j = groups[a], groups[b]
        assert (passages[i] == passages[j]) == ((a, b) in {(6, 9), (9, 6)})
        assert (queries[i] == queries[j]) == ((a, b) in {(5, 11), (11, 5)})


def test_hard_negatives_are_drawn_in_the_language_of_the_passage(tmp_path):
    rows = [group(i, ('en', 'de')) for i in range(8)]
    for i, row in enumerate(rows):
        row['negatives'] = {'en': [f'wrong {i} {j}' for j in range(i % 3)], 'de': [f'falsch {i}']}
    rows[0]['negatives']['de'] = [rows[1]['passage']['de']]
    data = config.Data(tokenizer='train:300', query_length=32, passage_length=64)
    s = build.build_store(data, tmp_path / 'store', [write(tmp_path / 'a.jsonl', rows)])
    tokenizer = tokenizers.Tokenizer.from_file(str(s.path / 'tokenizer.json'))
    drawing = make(s, alpha=0.5, batch_size=8, negatives=2)
    positives = s.datasets[0].passage_clusters[s.datasets[0].passage_indices]
    for step in range(10):
        (plan,), batch = drawing.batch(step)
        tokens = texts_of(batch)
        for pair, i in enumerate(batch.pair_indices[0]):
            g, p = plan.groups[i], plan.passage_languages[i]
            texts = [
                tokenizer.decode(tokens[0, i, column]).strip()
                for column in (2, 3)
                if (0, i, column) in tokens
            ]
            ids = batch.passage_ids[0, pair]
            if drawing.languages[p] == 'en':
                assert set(texts) == {f'Passage: wrong {g} {j}' for j in range(g % 3)}
                absent = [False] * (g % 3) + [True] * (2 - g % 3)
                assert list(ids[1:] == batches.NO_PASSAGE) == absent
                assert not set(ids[1:]) & set(positives)
            else:
                assert (ids[1] == positives[1]) == (g == 0) and ids[2] == batches.NO_PASSAGE
                assert texts == ['Passage: ' + rows[g]['negatives']['de'][0]]


def test_settings_that_leave_nothing_to_draw_are_named(stored):
    with pytest.raises(ValueError, match="languages: expected some of de, en, ja, got 'xx'"):
        make(stored, languages=('xx',))
    with pytest.raises(
        ValueError, match='negatives: expected 0, as .* has no hard negatives, which .* got 2'
    ):
        make(stored, negatives=2)
    for changes, advice in (
        ({}, 'with sampler.alpha=1, all batches are mono'),
        ({'alpha_points': '0:1,5:0'}, 'sampler.alpha=1 and no sampler.alpha_points, all'),
        ({'kind': 'multitask'}, 'sampler.alpha=1 and sampler.kind=hybrid, all'),
    ):
        message = 'asks for cross batches, but no group .* in en can be in one; .*' + advice
        c = tiny.make(
            data=config.Data(query_length=32, passage_length=64),
            sampler=config.Sampler(languages=('en',), **changes),
        )
        with pytest.raises(ValueError, match=message):
            sampler.Sampler(c, stored)
    c = tiny.make(data=config.Data(query_length=33, passage_length=64))
    with pytest.raises(ValueError, match='data.query_length: expected 32, .* got 33'):
        sampler.Sampler(c, stored)
    c = tiny.make(data=config.Data(query_length=8, passage_length=64, query_prefix='q: '))
    with pytest.raises(ValueError, match="data.query_prefix: expected 'Query: '"):
        sampler.Sampler(c, stored)


def test_a_text_equal_to_its_query_is_in_no_pool(tmp_path):
    rows = [group(i, ('en', 'de')) for i in range(30)]
    for row in rows[:10]:
        row['passage'] = dict(row['query'])
    data = config.Data(tokenizer='train:300', query_length=32, passage_length=64)
    s = build.build_store(data, tmp_path / 'store', [write(tmp_path / 'a.jsonl', rows)])
    mono = make(s, alpha=1.0, batch_size=20)
    assert all(min(mono.plans(step)[0].groups) >= 10 for step in range(10))
    cross = make(s, alpha=0.0, batch_size=20)
    assert min(min(cross.plans(step)[0].groups) for step in range(10)) < 10


def test_sampling_needs_no_jax():
    code = (
        'import sys; from hbt.sampling import batches, proportions, sampler, schedule; '
        "sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 0
