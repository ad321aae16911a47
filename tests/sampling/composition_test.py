"""Every way to compose a batch: the rules of each, and the proportions over 10,000 steps."""

import collections
import json

import jax.numpy as jnp
import numpy as np
import pytest

from hbt import config
from hbt.data import build
from hbt.sampling import proportions, sampler, schedule
from tests import tiny

STEPS, BATCH_SIZE = 10_000, 8
SIDES = ('query', 'passage')
LANGUAGES = {'big': ('en', 'de', 'ja'), 'half': ('en', 'th'), 'english': ('en',)}
SIZES = {'big': 600, 'half': 200, 'english': 200}


@pytest.fixture(scope='module')
def stored(tmp_path_factory):
    """Three datasets; of `big` a third lacks ja, and a few groups lack de."""
    folder = tmp_path_factory.mktemp('store')
    inputs = []
    for name, languages in LANGUAGES.items():
        path = folder / f'{name}.jsonl'
        with path.open('w') as file:
            for i in range(SIZES[name]):
                have = [x for x in languages if (x != 'ja' or i % 3) and (x != 'de' or i % 50)]
                texts = [{x: f'{kind} {i} of {name} {x}' for x in have} for kind in 'qp']
                row = {'id': str(i), 'query': texts[0], 'passage': texts[1]}
                file.write(json.dumps(row) + '\n')
        inputs.append(str(path))
    data = config.Data(tokenizer='train:300', query_length=32, passage_length=64)
    return build.build_store(data, folder / 'store', inputs)


def make(stored, batch_size=BATCH_SIZE, **changes):
    c = tiny.make(batch_size=batch_size, sampler=config.Sampler(**changes))
    return sampler.Sampler(config.check(c), stored)


def pairs_of(s, plan):
    """(query language, passage language) of each pair, as words."""
    return [
        (s.languages[q], s.languages[p])
        for q, p in zip(plan.query_languages, plan.passage_languages, strict=True)
    ]


def count(s, key, kind):
    """How often each value of `key(plan)` occurs in the batches of a kind, over all steps."""
    counts = collections.Counter()
    for step in range(STEPS):
        for plan in s.plans(step):
            if plan.kind == kind:
                counts.update(key(plan))
    return counts


def near(count, n, proportion):
    """Within four standard deviations of a binomial of n draws."""
    return abs(count / n - proportion) <= 4 * np.sqrt(proportion * (1 - proportion) / n)


COMPOSITIONS = {
    'X-X-mono': {'alpha': 1.0},
    'X-Y': {'alpha': 0.0},
    'X-X mixed': {'alpha': 1.0, 'mono': 'mixed'},
    'hybrid': {'alpha': 0.3},
    'scheduled': {'alpha_points': '0:1,5000:0'},
    'multitask': {'kind': 'multitask'},
    'datasets mixed': {'datasets': 'mixed', 'mono': 'mixed'},
    'by size': {'language_power': 1.0, 'pair_power': 1.0, 'cross_first': 'pair'},
    'by root of size': {'language_power': 0.5, 'pair_power': 0.5},
    'floors': {'language_floor': 0.2, 'pair_floor': 0.1, 'pair_power': 1.0},
    'table': {'pairs': 'en:de:3,de:ja:1,th:en:1', 'cross_first': 'pair'},
    'weights': {'dataset_weights': 'half:5,english:0', 'dataset_power': 0.0},
}


@pytest.mark.parametrize('name', COMPOSITIONS)
def test_every_composition_draws_only_what_groups_have_and_what_was_planned(stored, name):
    s = make(stored, **COMPOSITIONS[name])
    present = [
        {side: {x: t.hashes != 0 for x, t in getattr(d, side).items()} for side in SIDES}
        for d in stored.datasets
    ]
    counts = collections.Counter()
    for step in range(STEPS):
        for plan in s.plans(step):
            same = plan.query_languages == plan.passage_languages
            assert same.all() if plan.kind == 'mono' else not same.any()
            if s.config.sampler.mono == 'one' and plan.kind == 'mono':
                assert len(set(plan.query_languages)) == 1
            if s.config.sampler.datasets == 'one':
                assert len(set(plan.datasets)) == 1
            for d, g, (q, p) in zip(plan.datasets, plan.groups, pairs_of(s, plan), strict=True):
                assert present[d]['query'][q][g] and present[d]['passage'][p][g]
                assert plan.kind == 'mono' or stored.datasets[d].name != 'english'
                counts[plan.kind, stored.datasets[d].name, q, p] += 1
    pools = proportions.count_proportions(s, STEPS, STEPS)
    total = sum(counts.values())
    assert sum(x.planned for x in pools) == pytest.approx(1)
    for x in pools:
        assert counts[x[:4]] == x.drawn, 'the table counts what the plans hold'
        # Pairs of a batch share a language or a dataset: a batch is one draw.
        assert abs(x.drawn / total - x.planned) <= 5 * np.sqrt(x.planned / STEPS) + 1e-3
    assert counts.keys() == {x[:4] for x in pools if x.drawn}


def test_alpha_is_the_proportion_of_monolingual_batches(stored):
    for alpha in (0.3, 0.5, 0.9):
        s = make(stored, alpha=alpha)
        kinds = collections.Counter(p.kind for i in range(STEPS) for p in s.plans(i))
        assert near(kinds['mono'], STEPS, alpha)


@pytest.mark.parametrize(
    'curve, expected', [('linear', 0.5), ('cosine', 0.5), ('stairs', 1.0)], ids=str
)
def test_alpha_follows_its_points(stored, curve, expected):
    s = make(stored, alpha_points='1000:1,3000:0,5000:0.6', alpha_curve=curve)
    c, steps = s.config.sampler, np.arange(0, 8000)
    values = schedule.alpha_at(c, steps)
    assert (values[:1001] == 1).all() and np.allclose(values[5000:], 0.6)
    assert values[2000] == pytest.approx(expected) and values[3000] == pytest.approx(0)
    traced = schedule.alpha_at(c, jnp.arange(8000, dtype=jnp.int32), jnp)
    np.testing.assert_allclose(traced, values, atol=1e-6)
    mono = np.array([s.plans(i)[0].kind == 'mono' for i in range(8000)])
    for start in range(0, 8000, 1000):
        part = values[start : start + 1000].mean()
        assert near(mono[start : start + 1000].sum(), 1000, min(max(part, 1e-9), 1 - 1e-9))


def test_a_scheduled_batch_is_a_function_of_the_step_alone(stored):
    settings = {'alpha_points': '0:0.9,6000:0.2', 'datasets': 'mixed', 'mono': 'mixed'}
    forwards = make(stored, **settings)
    plans = [forwards.plans(step) for step in range(6000)]
    for step in (5999, 17, 4100):
        (plan,), (expected,) = make(stored, **settings).plans(step), plans[step]
        assert plan.kind == expected.kind
        for a, b in zip(plan[2:], expected[2:], strict=True):
            np.testing.assert_array_equal(a, b)


def test_languages_of_monolingual_batches_follow_their_size_to_the_power(stored):
    sizes = {'en': 1000, 'de': 588, 'ja': 400, 'th': 200}
    for power in (0.0, 0.5, 1.0):
        s = make(stored, alpha=1.0, language_power=power)
        counts = count(s, lambda plan: [plan.query_languages[0]], 'mono')
        total = sum(n**power for n in sizes.values())
        for language, n in sizes.items():
            assert near(counts[s.languages.index(language)], STEPS, n**power / total)


def test_datasets_follow_their_size_and_weight(stored):
    s = make(stored, alpha=1.0, languages=('en',))
    counts = count(s, lambda plan: [plan.datasets[0]], 'mono')
    for i, proportion in enumerate((0.6, 0.2, 0.2)):
        assert near(counts[i], STEPS, proportion)
    s = make(stored, alpha=0.0, dataset_weights='half:2')
    counts = count(s, lambda plan: [plan.datasets[0]], 'cross')
    total = 2 * 200 + cross_groups()
    assert near(counts[1], STEPS, 400 / total)


def cross_groups():
    """Groups of `big` with at least two languages."""
    return sum((i % 3 > 0) + (i % 50 > 0) + 1 >= 2 for i in range(600))


def test_pairs_follow_size_table_and_floor(stored):
    total = STEPS * BATCH_SIZE

    def count_pairs(**settings):
        s = make(stored, alpha=0.0, datasets='mixed', cross_first='pair', **settings)
        pairs = count(s, lambda plan: pairs_of(s, plan), 'cross')
        return pairs, sum(pairs.values())

    pairs, n = count_pairs()
    assert n == total and len(pairs) == 8
    assert all(near(x, n, 1 / 8) for x in pairs.values())
    sizes = {('en', 'de'): 588, ('en', 'ja'): 400, ('de', 'ja'): 392, ('en', 'th'): 200}
    sizes |= {(b, a): n for (a, b), n in sizes.items()}
    pairs, n = count_pairs(pair_power=1.0)
    assert all(near(pairs[x], n, m / sum(sizes.values())) for x, m in sizes.items())
    pairs, n = count_pairs(pair_power=1.0, pair_floor=0.1)
    rest = sum(m for x, m in sizes.items() if 'th' not in x)
    for x, m in sizes.items():
        assert near(pairs[x], n, 0.1 if 'th' in x else 0.8 * m / rest)
    pairs, n = count_pairs(pairs='en:de:3,de:ja:1')
    assert pairs.keys() == {('en', 'de'), ('de', 'ja')} and near(pairs['en', 'de'], n, 0.75)


def test_a_floor_holds_over_batches_of_one_dataset(stored):
    s = make(stored, alpha=0.0, dataset_weights='half:0.02', pair_floor=0.1)
    pairs = count(s, lambda plan: [pairs_of(s, plan)[0]], 'cross')
    for pair in (('en', 'th'), ('th', 'en')):
        assert near(pairs[pair], STEPS, 0.1)


def test_a_multitask_step_has_a_batch_of_each_kind_in_one_array(stored):
    s = make(stored, kind='multitask', alpha=0.25)
    for step in range(20):
        plans, batch = s.batch(step)
        assert [plan.kind for plan in plans] == ['mono', 'cross']
        assert batch.query_ids.shape == (2, BATCH_SIZE)
        assert batch.passage_ids.shape == (2, BATCH_SIZE, 1)
    assert schedule.task_weights(s.config.sampler, 2, 0) == (0.25, 0.75)


def test_translations_of_a_group_are_never_negatives_of_each_other(stored):
    count = 0
    for settings in ({'alpha': 0.0}, {'alpha': 1.0, 'mono': 'mixed'}, {'datasets': 'mixed'}):
        s = make(stored, batch_size=256, **settings)
        for step in range(10):
            (plan,), batch = s.batch(step)
            queries, passages = batch.query_ids[0], batch.passage_ids[0, :, 0]
            groups = (plan.datasets * 10_000 + plan.groups)[batch.pair_indices[0]]
            same = groups[:, None] == groups[None]
            count += same.sum() - 256
            for ids in (queries, passages):  # equal ids: masked in the loss
                np.testing.assert_array_equal(ids[:, None] == ids[None], same)
    assert count > 100


def test_all_hosts_plan_the_same_pairs(stored):
    settings = {'datasets': 'mixed', 'mono': 'mixed', 'kind': 'multitask', 'batch_size': 16}
    single = make(stored, **settings)
    for hosts in (2, 8):
        each = 8 // hosts
        for i in range(hosts):
            host = make(stored, **settings)
            host.devices = 8
            for step in (0, 3, 2):
                plans, batch = host.batch(step, range(i * each, (i + 1) * each))
                assert batch.query_ids.shape == (2, 2 * each)
                for a, b in zip(single.plans(step), plans, strict=True):
                    np.testing.assert_array_equal(np.stack(a[2:]), np.stack(b[2:]))


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'pairs': 'en:xx:1'}, 'sampler.pairs: expected pairs that groups have .* got en:xx'),
        ({'pairs': 'en:de'}, "sampler.pairs: expected WORD:WORD:NUMBER .* got 'en:de'"),
        ({'pairs': 'en:de:1,en:de:2'}, 'sampler.pairs: expected en:de once'),
        ({'pair_floor': 0.2}, 'sampler.pair_floor: expected at most 0.125, 1 in 8'),
        ({'dataset_weights': 'hafl:1'}, "expected some of big, half, english, got 'hafl'"),
        ({'alpha_points': '9:0.5,5:1'}, 'alpha_points: expected STEP:ALPHA .* got 5:1'),
        ({'alpha_points': '0:1.5'}, 'alpha_points: expected STEP:ALPHA .* got 0:1.5'),
        ({'alpha_points': 'x:1'}, 'alpha_points: expected STEP:ALPHA .* got x:1'),
        ({'dataset_weights': 'big:0,half:0'}, 'asks for cross batches, but no group'),
    ],
)
def test_wrong_settings_are_named(stored, settings, message):
    with pytest.raises(ValueError, match=message):
        make(stored, **settings)


def test_a_batch_is_described_as_text(stored):
    lines = list(sampler.describe_batch(make(stored, alpha=0.0), 3))
    assert lines[0] == 'step 3: cross, 8 pairs' and len(lines) == 1 + 3 * BATCH_SIZE
    head, query, passage = lines[1:4]
    name, pair = head.split()[1:]
    query_language, passage_language = pair.split('>')
    dataset, number = name.split('/')
    assert query.strip() == f'? Query: q {number} of {dataset} {query_language}'
    assert passage.strip() == f'+ Passage: p {number} of {dataset} {passage_language}'


def test_proportions_are_a_table_and_files(stored, tmp_path):
    s = make(stored, alpha=0.5)
    planned = proportions.count_proportions(s, 100, 0)
    table = proportions.format_proportions(planned)
    assert 'kind cross' in table and '-' in table.split('\n')[1]
    proportions.write_proportions(planned, tmp_path)
    drawn = proportions.count_proportions(s, 100, 100)
    proportions.write_proportions(drawn, tmp_path)
    lines = (tmp_path / 'proportions.tsv').read_text().splitlines()
    assert len(lines) == 1 + len(drawn) and (tmp_path / 'proportions.png').stat().st_size > 1000
    rows = [dict(zip(lines[0].split('\t'), x.split('\t'), strict=True)) for x in lines[1:]]
    assert sum(int(row['pairs']) for row in rows) == 100 * BATCH_SIZE
    assert sum(float(row['planned']) for row in rows) == pytest.approx(1, abs=1e-6)
    *panels, _ = proportions.draw_proportions(drawn).axes
    limits = [panel.images[0].get_clim() for panel in panels]
    assert len(limits) == 2 and limits[0] == limits[1], 'a colour is one number in both'
