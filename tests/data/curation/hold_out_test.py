"""Groups are held out of a store, and nothing of them is left in it."""

import gzip
import json
import subprocess
import sys
import unicodedata

import numpy as np
import pytest

from hbt import config
from hbt.data import build, ragged
from hbt.data.curation import checks, hold_out
from tests import ROOT

DATA = config.Data(tokenizer='train:400', query_length=16, passage_length=24)


def group(i, query=None, passage=None, **more):
    texts = {'en': passage or f'answer {i} of all', 'de': f'Antwort für {i}'}
    return {'id': f'row{i}', 'query': {'en': query or f'which is {i}?'}, 'passage': texts} | more


def write(path, *groups):
    path.write_text(''.join(json.dumps(x, ensure_ascii=False) + '\n' for x in groups))
    return str(path)


def prepare(folder, inputs, groups=5, seed=0, processes=1, **cleaning):
    return build.build_store(
        DATA,
        folder / 's',
        inputs,
        processes,
        cleaning_config=checks.CleaningConfig(**cleaning),
        held_out=hold_out.Settings(groups, seed),
    )


def held_out(folder):
    with gzip.open(folder / 's.held_out.jsonl.gz', 'rt', encoding='utf-8') as file:
        return [json.loads(line) for line in file]


def stored_ids(opened):
    return [d.group_id(g) for d in opened.datasets for g in range(d.num_groups)]


@pytest.mark.parametrize('processes', [1, 2])
def test_held_out_groups_are_written_and_the_others_are_stored(tmp_path, processes):
    groups = [group(i, negatives={'en': [f'no {i}']}) for i in range(40)]
    opened = prepare(tmp_path, [write(tmp_path / 'a.jsonl', *groups)], processes=processes)
    out = held_out(tmp_path)
    assert len(out) == 5 and all(x in groups for x in out)
    assert stored_ids(opened) == [x['id'] for x in groups if x not in out]
    assert opened.manifest['hold_out'] == {
        'groups': 5,
        'seed': 0,
        'counts': {'held_out': 5, 'same_text': 0},
    }
    assert not list(opened.path.rglob('progress.*'))
    again = build.build_store(DATA, tmp_path / 'again', [str(tmp_path / 's.held_out.jsonl.gz')])
    assert stored_ids(again) == [x['id'] for x in out]


def test_the_seed_and_the_ids_decide_which_groups_are_held_out(tmp_path):
    groups, drawn = [group(i) for i in range(40)], {}
    for name, seed, order in (('a', 0, 1), ('b', 0, -1), ('c', 1, 1)):
        folder = tmp_path / name
        folder.mkdir()
        prepare(folder, [write(folder / 'faq.jsonl', *groups[::order])], seed=seed)
        drawn[name] = {x['id'] for x in held_out(folder)}
    assert drawn['a'] == drawn['b'] != drawn['c']


def test_no_text_of_a_held_out_group_is_left_in_the_store(tmp_path):
    first = write(tmp_path / 'a.jsonl', *(group(i) for i in range(30)))
    prepare(tmp_path, [first], groups=3)
    one, two, three = held_out(tmp_path)
    (tmp_path / 's.held_out.jsonl.gz').unlink()
    copies = [
        group(50, query=one['query']['en'].replace(' ', '  ')),
        group(51, passage=unicodedata.normalize('NFD', two['passage']['de'])),
        group(52, negatives={'en': [three['passage']['en']]}),
        group(53),
    ]
    other = tmp_path / 'more'
    other.mkdir()
    rows = [group(i) for i in range(30)] + copies
    opened = prepare(other, [write(other / 'a.jsonl', *rows)], groups=3)
    out = held_out(other)
    assert out == [one, two, three]  # the copies have other ids
    assert {'row50', 'row51', 'row52'}.isdisjoint(stored_ids(opened))
    texts = {t for x in out for side in ('query', 'passage') for t in x[side].values()}
    known = ragged.hash_texts(sorted(texts))
    for dataset in opened.datasets:
        for side in ('query', 'passage'):
            for table in getattr(dataset, side).values():
                assert not np.isin(table.hashes, known).any()
    left_out = len(rows) - 3 - len(stored_ids(opened))
    assert left_out == opened.manifest['hold_out']['counts']['same_text'] == 3


def test_groups_of_several_sources_are_held_out_with_the_names_of_these(tmp_path):
    a = write(tmp_path / 'a.jsonl', *(group(i) for i in range(20)))
    b = write(tmp_path / 'b.jsonl', *(group(i, query=f'{i} else?') for i in range(20, 40)))
    opened = prepare(tmp_path, [a, b], groups=12)
    names = [x['id'] for x in held_out(tmp_path)]
    assert {x.partition('/')[0] for x in names} == {'a', 'b'} and len({*names}) == 12
    assert len(stored_ids(opened)) == 28


def test_what_is_dropped_is_not_held_out(tmp_path):
    rows = [group(i) for i in range(10)] + [group(i) | {'id': f'again{i}'} for i in range(10)]
    opened = prepare(tmp_path, [write(tmp_path / 'a.jsonl', *rows)], groups=4, exact='drop')
    assert all(x['id'].startswith('row') for x in held_out(tmp_path))
    assert len(stored_ids(opened)) == 6
    assert opened.manifest['hold_out']['counts']['same_text'] == 0


def test_a_wrong_place_in_the_remaining_groups_is_named_by_its_line(tmp_path):
    path = write(tmp_path / 'a.jsonl', *(group(i) for i in range(20)), group(19, query='again?'))
    with pytest.raises(ValueError, match=r'a.jsonl:21: id: expected a new one, .*a.jsonl:20'):
        prepare(tmp_path, [path], groups=1)


def test_what_cannot_be_held_out_is_refused(tmp_path):
    path = write(tmp_path / 'a.jsonl', *(group(i) for i in range(20)))
    with pytest.raises(ValueError, match='--hold_out: expected fewer than the 20 groups, got 20'):
        prepare(tmp_path, [path], groups=20)
    for name in ('queries', 'collection'):
        (tmp_path / f'{name}.en.tsv').write_text('1\ta text\n2\tanother\n')
    (tmp_path / 'triples.tsv').write_text('1\t1\t2\n')
    names = {x: f'{tmp_path}/{x}.{{lang}}.tsv' for x in ('queries', 'collection')}
    spec = 'marco:queries={queries},collection={collection}'.format_map(names)
    with pytest.raises(ValueError, match='--hold_out: expected sources of groups, got marco:'):
        prepare(tmp_path, [f'{spec},triples={tmp_path}/triples.tsv'], groups=1)
    (tmp_path / 's.held_out.jsonl.gz').write_text('mine')
    with pytest.raises(ValueError, match='s.held_out.jsonl.gz: expected no file, or the groups'):
        prepare(tmp_path, [path])
    (tmp_path / 's.held_out.jsonl.gz').unlink()
    prepare(tmp_path, [path])
    with pytest.raises(ValueError, match='this store was made with other hold_out'):
        prepare(tmp_path, [path], seed=1)
    with pytest.raises(ValueError, match='this store was made with other hold_out'):
        build.build_store(DATA, tmp_path / 's', [path])
    assert prepare(tmp_path, [path]).manifest['hold_out']['groups'] == 5


@pytest.mark.slow
def test_the_program_says_what_it_held_out(tmp_path):
    path = write(
        tmp_path / 'a.jsonl', *(group(i) for i in range(20)), group(21, query='which is 3?')
    )
    command = [sys.executable, '-m', 'hbt.prepare', f'--input={path}', '--tokenizer=train:400']
    command += [f'--out={tmp_path}/s', '--hold_out=15']
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert f'15 groups held out: {tmp_path}/s.held_out.jsonl.gz' in process.stdout, process.stderr
    (tmp_path / 's.held_out.jsonl.gz').unlink()
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 2 and 'expected the 15 groups that are held out' in process.stderr
