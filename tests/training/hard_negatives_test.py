"""Hard negatives of the current model, against every score computed one by one."""

import dataclasses
import json
import os
import subprocess
import sys

import jax
import pytest

from hbt import config
from hbt.data import build, ragged, store, tokenizer_files
from hbt.evaluation import search
from hbt.models import embedder, encoder, model_dir
from hbt.sampling import sampler
from hbt.training import hard_negatives, loop
from hbt.utils import log
from tests import ROOT, tiny

DATA = config.Data(tokenizer='train:400', query_length=16, passage_length=24)
SETTING = hard_negatives.Settings(count=3, depth=9, margin=0.01)


def rows():
    """Groups in two languages. Some lack one, repeat a query, or have a passage of another."""
    groups = []
    for i in range(24):
        row = {'id': str(i), 'query': {}, 'passage': {}}
        for code in ('en', 'de')[: 1 if i % 5 == 4 else 2]:
            row['query'][code] = f'what {code} {i * 37 % 101}'
            row['passage'][code] = f'that {code} {i * 53 % 97} of {i}'
        groups.append(row)
    groups[3]['query'] = dict(groups[0]['query'])  # two answers of one query
    groups[7]['query']['de'] = groups[8]['query']['de']  # one translation for two queries
    groups[9]['passage'] = dict(groups[10]['passage'])  # one answer of two queries
    del groups[11]['query']['de']
    del groups[12]['passage']['en']
    groups[13]['negatives'] = {'en': ['given en 1', 'given en 2'], 'fr': ['given fr']}
    return groups


@pytest.fixture(scope='session')
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp('mine')
    lines = ''.join(json.dumps(row) + '\n' for row in rows())
    (folder / 'a.jsonl').write_text(lines)
    return build.build_store(DATA, folder / 'store', [str(folder / 'a.jsonl')])


@pytest.fixture(scope='session')
def model(stored):
    c = tiny.make(data=DATA)
    c.encoder.vocab_size = stored.manifest['tokenizer']['vocab_size']
    c.encoder.init_std = 0.3  # texts are far apart
    return c, encoder.init_params(c.encoder, jax.random.key(0))


def embedded(model, stored):
    """(side, text) -> vector of every text of the rows."""
    tokenizer = tokenizer_files.load_tokenizer(stored.path / 'tokenizer.json')
    run = embedder.make_embedder(model_dir.Model(*model, tokenizer), 64, 'float32')
    vectors = {}
    for side in ('query', 'passage'):
        texts = sorted({x for row in rows() for x in row[side].values()})
        texts += ['given en 1', 'given en 2'] * (side == 'passage')
        vectors |= {(side, x): v for x, v in zip(texts, run(texts, side), strict=True)}
    return vectors


def expected(model, stored, setting):
    """(group, language) -> texts of its negatives, by sorting all scores in plain Python."""
    vectors, groups = embedded(model, stored), rows()
    copies = ({0, 3}, {7, 8}), ({9, 10},)  # groups of one query, of one passage
    texts_by_key = {}
    for language in ('en', 'de'):
        sources = {
            row['passage'][language]: {i}
            for i, row in enumerate(groups)
            if language in row['passage']
        }
        if language == 'en':
            sources |= {'given en 1': set(), 'given en 2': set()}
        for i, row in enumerate(groups):
            if language not in row['passage']:
                continue
            same = set.union({i}, *(x for x in copies[0] if i in x))
            same = set.union(same, *(x for x in copies[1] if x & same))
            banned = {groups[j]['passage'].get(language) for j in same}
            question = row['query'].get(language, row['query'].get('en'))
            query = vectors['query', question]
            scores = {x: float(query @ vectors['passage', x]) for x in sources}
            top = sorted((x for x in sources if x not in banned), key=lambda x: -scores[x])
            limit = scores[row['passage'][language]] - setting.margin
            allowed = [x for x in top[: setting.depth] if scores[x] <= limit]
            if setting.max_positive_share is not None:
                positive = scores[row['passage'][language]]
                limit = positive - (1 - setting.max_positive_share) * abs(positive)
                allowed = [x for x in allowed if scores[x] <= limit]
            texts_by_key[i, language] = allowed[: setting.count]
    return texts_by_key


def texts_of(opened):
    """(group, language) -> its negatives as text."""
    (dataset,) = opened.datasets
    tokenizer = tokenizer_files.load_tokenizer(opened.path / 'tokenizer.json')
    return {
        (g, language): [
            tokenizer.decode(ragged.token_ids(dataset.passage[language], x)).removeprefix(
                'Passage: '
            )
            for x in links.passages[links.offsets[g] : links.offsets[g + 1]]
        ]
        for language, links in dataset.negatives.items()
        for g in range(dataset.num_groups)
    }


@pytest.mark.parametrize('setting', [SETTING, hard_negatives.Settings(100, 100, -2.0)])
def test_negatives_are_the_best_passages_that_answer_no_copy_of_the_query(
    stored, model, tmp_path, monkeypatch, setting
):
    monkeypatch.setattr(hard_negatives, 'CHUNK', 7)
    mined_store = hard_negatives.mine_negatives(*model, stored, tmp_path / 'mined', setting)
    actual, reference = texts_of(mined_store), expected(model, stored, setting)
    assert {key: actual[key] for key in reference} == reference
    assert not any(actual[key] for key in actual.keys() - reference.keys())
    if setting.count == 100:  # all that is not banned
        assert len(reference[0, 'en']) == 24 - 2 and len(reference[9, 'de']) == 20 - 1
    else:
        assert 20 < sum(map(len, reference.values())) < 3 * len(reference)
    counts = mined_store.manifest['datasets'][0]['mined']
    assert counts['fr'] == {'groups': 0, 'without': 0, 'negatives': 0}
    assert counts['en']['groups'] == 23 and 'without %' in hard_negatives.format_counts(
        mined_store.manifest
    )


def test_negatives_above_a_share_of_the_score_of_the_positive_are_left_out_and_counted(
    stored, model, tmp_path
):
    setting = hard_negatives.Settings(3, 9, 0.01, 0.9)
    mined_store = hard_negatives.mine_negatives(*model, stored, tmp_path / 'mined', setting)
    actual, reference = texts_of(mined_store), expected(model, stored, setting)
    assert {key: actual[key] for key in reference} == reference
    without, shared = (
        expected(model, stored, dataclasses.replace(x, count=9)) for x in (SETTING, setting)
    )
    counts = mined_store.manifest['datasets'][0]['mined']
    for language in ('en', 'de'):
        lost = sum(len(without[x]) - len(shared[x]) for x in shared if x[1] == language)
        assert counts[language]['above_share'] == lost > 10
    header, *rows = hard_negatives.format_counts(mined_store.manifest).splitlines()
    assert header.endswith('above share') and rows[-1].split()[-1] == '0'  # of French


def test_the_mined_store_is_the_store_but_for_its_negatives(stored, model, tmp_path):
    made = hard_negatives.mine_negatives(*model, stored, tmp_path / 'mined', SETTING)
    store.verify_store(made)
    same = {x for x in stored.manifest['files'] if '/negatives.' not in x}
    for name in same:
        assert (made.path / name).samefile(stored.path / name)
    assert {p.name for p in made.path.iterdir()} == {p.name for p in stored.path.iterdir()}
    again = hard_negatives.mine_negatives(*model, made, tmp_path / 'again', SETTING)
    assert texts_of(again) == texts_of(made)
    c = tiny.make(data=DATA, batch_size=8, sampler=config.Sampler(negatives=2))
    drawn = sampler.Sampler(config.check(c), made)
    assert sum((drawn.batch(step)[1].passage_ids[:, :, 1:] >= 0).sum() for step in range(9)) > 20


def test_a_language_that_was_searched_before_a_kill_is_not_searched_again(
    stored, model, tmp_path, monkeypatch
):
    whole = hard_negatives.mine_negatives(*model, stored, tmp_path / 'whole', SETTING)
    real, calls = search.search, []

    def dies(*args):
        calls.append(args)
        if len(calls) == 3:  # two are of the first language: of one answer, and of two
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(search, 'search', dies)
    with pytest.raises(KeyboardInterrupt):
        hard_negatives.mine_negatives(*model, stored, tmp_path / 'killed', SETTING)
    assert not (tmp_path / 'killed').exists()
    with pytest.raises(
        ValueError, match='margin: expected 0.01, with which this output began, got 0.5'
    ):
        hard_negatives.mine_negatives(
            *model, stored, tmp_path / 'killed', hard_negatives.Settings(3, 9, 0.5)
        )
    killed = hard_negatives.mine_negatives(*model, stored, tmp_path / 'killed', SETTING)
    assert len(calls) == 5 and killed.manifest == whole.manifest


@pytest.mark.slow
def test_negatives_are_refreshed_between_stages_by_the_same_command(stored, tmp_path):
    def train(steps, root):
        c = tiny.make(
            steps=steps,
            batch_size=8,
            data=config.Data(root=str(root), query_length=16, passage_length=24),
            sampler=config.Sampler(negatives=2),
        )
        loop.train_config(config.check(c), tmp_path / 'run')

    def refreshed(name):
        out = tmp_path / name
        command = [sys.executable, '-m', 'hbt.mine', f'--workdir={tmp_path}/run', f'--out={out}']
        environment = os.environ | {'JAX_PLATFORMS': 'cpu'}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert not done.returncode, done.stderr
        return store.open_store(out)

    train(2, stored.path)
    first = refreshed('first')
    train(4, first.path)
    second = refreshed('second')
    assert 'run at step 2,' in first.manifest['mined']['model']
    assert 'run at step 4,' in second.manifest['mined']['model']
    assert second.manifest['mined']['store'] == first.manifest['checksum']
    train(6, second.path)
    lines = [line for line in log.read_metrics(tmp_path / 'run/metrics.jsonl') if 'loss' in line]
    assert [line['step'] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_wrong_settings_and_stores_are_refused(stored, model, tmp_path):
    c, params = model
    for setting, message in (
        (hard_negatives.Settings(0, 9, 0.0), '--count: expected 1 or more, got 0'),
        (hard_negatives.Settings(9, 3, 0.0), '--depth: expected 9 or more, got 3'),
        (hard_negatives.Settings(3, 9, -3.0), '--margin: expected -2 or more, got -3.0'),
        (hard_negatives.Settings(3, 9, 0.0, 95.0), '--max_positive_share: .* up to 1, got 95.0'),
    ):
        with pytest.raises(ValueError, match=message):
            hard_negatives.mine_negatives(c, params, stored, tmp_path / 'no', setting)
    other = tiny.make(data=config.Data(query_prefix='query: '))
    with pytest.raises(ValueError, match="data.query_prefix: expected 'Query: ', .* got 'query: '"):
        hard_negatives.mine_negatives(other, params, stored, tmp_path / 'no', SETTING)
    with pytest.raises(ValueError, match='expected nothing there yet'):
        hard_negatives.mine_negatives(c, params, stored, stored.path, SETTING)


def test_answers_that_another_dataset_gives_to_a_query_are_no_negatives(tmp_path):
    def row(i, query, passage):
        return json.dumps({'id': str(i), 'query': {'en': query}, 'passage': {'en': passage}}) + '\n'

    first = [('who is it', 'one'), ('what is it', 'two'), ('where is it', 'three')]
    (tmp_path / 'a.jsonl').write_text(''.join(row(i, *x) for i, x in enumerate(first)))
    (tmp_path / 'b.jsonl').write_text(row(0, 'who is it', 'three'))
    opened = build.build_store(DATA, tmp_path / 's', [str(tmp_path / f'{x}.jsonl') for x in 'ab'])
    dataset = opened.datasets[0]
    queries = dataset.clusters('query', dataset.query_indices)
    passages = dataset.clusters('passage', dataset.passage_indices)
    answers = hard_negatives._find_answers(opened, queries, passages).toarray()
    assert answers.tolist() == [[True, False, True], [False, True, False], [False, False, True]]
