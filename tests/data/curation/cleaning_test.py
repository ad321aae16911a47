"""Flaws of training texts are reported and dropped."""

import gzip
import itertools
import json
import random
import re
import unicodedata

import numpy as np
import pytest

from hbt import config
from hbt.data import build, store
from hbt.data.curation import checks, cleaning, decontamination, dedup
from hbt.data.readers import schema
from hbt.evaluation import benchmarks

DATA = config.Data(tokenizer='train:400', query_length=16, passage_length=64)
WORDS = 'river stone cloud paper silver garden window mountain letter candle forest bridge'.split()


def lines(*groups):
    return ''.join(json.dumps(group, ensure_ascii=False) + '\n' for group in groups)


def text(number, size=24):
    return ' '.join(random.Random(number).choices(WORDS, k=size)) + f' {number}'


def group(i, query=None, passage=None, **more):
    return {
        'id': f'row{i}',
        'query': {'en': query or f'{text(i, 6)}?'},
        'passage': {'en': passage or text(i + 1000)},
    } | more


def write(path, *groups):
    path.write_text(lines(*groups))
    return str(path)


def group_ids(opened):
    return [d.group_id(g) for d in opened.datasets for g in range(d.num_groups)]


def build_store(folder, inputs, processes=1, **settings):
    return build.build_store(
        DATA,
        folder / 's',
        inputs,
        processes,
        cleaning_config=checks.CleaningConfig(**settings),
        benchmark_texts=benchmarks.texts_to_decontaminate,
    )


def read_report(folder):
    header, *groups = (folder / 'cleaning.tsv').read_text().splitlines()
    assert header.split('\t') == list(cleaning.HEADER)
    return [line.split('\t') for line in groups]


def test_nothing_is_cleaned_by_default(tmp_path):
    path = write(tmp_path / 'a.jsonl', group(0), group(1), group(0) | {'id': 'again'})
    opened = build_store(tmp_path, [path])
    assert group_ids(opened) == ['row0', 'row1', 'again']
    assert 'cleaning' not in opened.manifest and not (tmp_path / 's' / 'cleaning.tsv').exists()


@pytest.mark.parametrize('processes', [1, 2])
def test_equal_groups_are_dropped_also_across_sources(tmp_path, processes):
    a = write(tmp_path / 'a.jsonl', group(0), group(1), group(0) | {'id': 'again'}, group(2))
    b = write(tmp_path / 'b.jsonl', group(3), group(1) | {'id': 'too'}, group(4, text(0, 6) + '?'))
    opened = build_store(tmp_path, [a, b], processes, exact='drop')
    assert group_ids(opened) == ['row0', 'row1', 'row2', 'row3', 'row4']
    assert [x['cleaning']['exact'] for x in opened.manifest['datasets']] == [1, 1]
    assert read_report(opened.path) == [
        ['a', 'again', f'{a}:3', 'exact', '', '', f'as {a}:1'],
        ['b', 'too', f'{b}:2', 'exact', '', '', f'as {a}:2'],
    ]
    again = build_store(tmp_path, [a, b], exact='drop')
    assert again.manifest == opened.manifest
    with pytest.raises(ValueError, match='made with other cleaning'):
        build_store(tmp_path, [a, b])


def test_flaws_that_are_only_counted_stay(tmp_path):
    path = write(tmp_path / 'a.jsonl', group(0), group(0) | {'id': 'again'})
    opened = build_store(tmp_path, [path], exact='count', near='count')
    assert group_ids(opened) == ['row0', 'again']
    counts = opened.manifest['datasets'][0]['cleaning']
    assert counts == {'groups': 2, 'exact': 1, 'near': 0, 'dropped': 0}
    assert '  exact  ' in cleaning.format_counts({'a': counts})


def test_near_duplicates_have_a_near_query_and_a_near_passage(tmp_path):
    long = text(7, 80)
    groups = [group(i) for i in range(40)] + [
        group(40, text(50, 20), long),
        group(41, text(51, 20), long),  # another question about the same passage
        group(42, text(50, 20).upper(), long + ' indeed'),  # near
    ]
    opened = build_store(tmp_path, [write(tmp_path / 'a.jsonl', *groups)], near='drop')
    assert group_ids(opened) == [f'row{i}' for i in range(42)]


def test_groups_that_share_nothing_have_no_near_duplicates(tmp_path):
    path = write(tmp_path / 'a.jsonl', group(0, 'aaaa', 'bbbb'), group(1, 'cccc', 'dddd'))
    assert group_ids(build_store(tmp_path, [path], near='drop')) == ['row0', 'row1']


def test_similarities_are_those_of_the_sets_of_shingles():
    pairs = []
    for n in range(60):
        words = [random.Random(n).choice(WORDS) + str(i) for i in range(40)]
        changed = [w if i % 20 >= n % 10 else w[::-1] for i, w in enumerate(words)]
        pairs += [(' '.join(words), 'same text'), (' '.join(changed), 'same text')]
    low, _ = dedup.signatures(pairs)
    same = low[0::2, : dedup.HASHES] == low[1::2, : dedup.HASHES]
    estimate = (same.mean(1) - 1 / 256) / (1 - 1 / 256)
    sets = [set(dedup.shingles(q)) for q, _ in pairs]
    exact = [len(a & b) / len(a | b) for a, b in zip(sets[::2], sets[1::2], strict=True)]
    spread = np.sqrt(np.multiply(exact, np.subtract(1, exact)) / dedup.HASHES) + 1e-9
    assert (np.abs(estimate - exact) < 5 * spread).all() and min(exact) < 0.6 and max(exact) == 1


def test_texts_in_another_language_are_dropped_and_groups_that_lose_a_side(tmp_path):
    german = 'Die Katze schläft am Nachmittag gerne auf dem warmen Dach des alten Hauses.'
    english = 'The cat likes to sleep on the warm roof of the old house in the afternoon.'
    both = {'en': english, 'de': german}
    groups = [
        {'id': 'good', 'query': both, 'passage': both},
        {'id': 'swapped', 'query': both, 'passage': {'de': english, 'en': english}},
        {'id': 'lost', 'query': {'de': english}, 'passage': {'de': german}},
        {'id': 'short', 'query': {'de': 'Yes, I do'}, 'passage': {'de': german}},
        {'id': 'unknown', 'query': {'chr': english}, 'passage': {'de': german}},
    ]
    opened = build_store(tmp_path, [write(tmp_path / 'a.jsonl', *groups)], languages='drop')
    assert group_ids(opened) == ['good', 'swapped', 'short', 'unknown']
    assert list(opened.datasets[0].passage['de'].lengths > 0) == [True, False, True, True]
    flaws = [(x[1], x[3], x[4], x[5], x[6]) for x in read_report(opened.path)]
    assert flaws == [
        ('swapped', 'language', 'passage', 'de', 'en'),
        ('lost', 'language', 'query', 'de', 'en'),
    ]


def test_short_and_long_texts_are_dropped(tmp_path):
    groups = [group(0), group(1, 'a'), group(2, passage='long ' * 100), group(3)]
    path = write(tmp_path / 'a.jsonl', *groups)
    opened = build_store(
        tmp_path, [path], lengths='drop', query_chars='2:90', passage_chars='5:400'
    )
    assert group_ids(opened) == ['row0', 'row3']
    assert [x[6] for x in read_report(opened.path)] == ['1', '500']


def test_texts_are_stored_in_the_chosen_unicode_form(tmp_path):
    accents, wide = 'café ' * 4, 'ＡＢＣ ' * 4
    forms = [unicodedata.normalize(form, accents) for form in ('NFC', 'NFD')]
    groups = [group(i, q, wide) for i, q in enumerate(forms)]
    path = write(tmp_path / 'a.jsonl', *groups, group(2, accents, 'ABC ' * 4))
    for number, (form, classes) in enumerate((('', 3), ('NFC', 2), ('NFKC', 1))):
        folder = tmp_path / str(number)
        folder.mkdir()
        opened = build_store(folder, [path], normalise=form, exact='count')
        assert 3 - opened.manifest['datasets'][0]['cleaning']['exact'] == classes
        dataset = opened.datasets[0]
        assert len(set(dataset.query['en'].hashes[:2])) == (1 if form else 2)


def xquad(folder, language, sentences, questions):
    context = ' '.join(sentences)
    starts = [context.index(x) for x in sentences]
    paragraph = {
        'context': context,
        'sentences': sentences,
        'sentence_breaks': [[a, a + len(x)] for a, x in zip(starts, sentences, strict=True)],
        'qas': [
            {'id': f'q{i}', 'question': q, 'answers': [{'answer_start': starts[i], 'text': 'x'}]}
            for i, q in enumerate(questions)
        ],
    }
    folder.mkdir(exist_ok=True)
    content = {'data': [{'paragraphs': [paragraph]}]}
    (folder / f'{language}.json').write_text(json.dumps(content, ensure_ascii=False))


@pytest.fixture
def benchmark(tmp_path):
    folder = tmp_path / 'bench'
    xquad(
        folder,
        'en',
        ['The defence of the Panthers gave up just 308 points.', 'It ranked sixth.'],
        ['How many points did the defence surrender?', 'Which rank was it?'],
    )
    xquad(
        folder,
        'zh',
        ['黑豹队的防守只丢了308分，在联赛中排名第六。', '它排名第六。'],
        ['黑豹队的防守丢了多少分？', '它排名第几？'],
    )
    return f'xquad_r:{folder}'


LEAKS = [
    (group(5, 'how many points did the DEFENCE surrender'), 'q:en:q0'),
    (
        group(5, passage='Noted: the defence  of the Panthers gave up just 308 points, said he.'),
        'd:en',
    ),
    (group(5, passage='据报道，黑豹队的防守只丢了308分,在联赛中排名第六。完'), 'd:zh'),
    (group(5, negatives={'en': ['The defence of the Panthers gave up just 308 points.']}), 'd:en'),
]


@pytest.mark.parametrize('leak, name', LEAKS)
def test_a_benchmark_in_a_training_file_is_refused_with_ids_or_dropped(
    tmp_path, benchmark, leak, name
):
    clean = group(1, 'It ranked. How many points?')
    path = write(tmp_path / 'a.jsonl', group(0), clean, leak, group(2))
    with pytest.raises(ValueError, match=rf'got 1, such as {name}.* at .*a.jsonl:3 \(id row5\)'):
        build_store(tmp_path, [path], leakage=(benchmark,))
    assert not (tmp_path / 's').exists() and len(read_report(tmp_path / 's.partial')) == 1
    opened = build_store(tmp_path, [path], leakage=(benchmark,), leaks='drop')
    assert group_ids(opened) == ['row0', 'row1', 'row2']
    (flaw,) = read_report(opened.path)
    assert flaw[1] == 'row5' and flaw[3] == 'leak' and flaw[6].startswith(name)


def test_a_leak_in_a_collection_is_dropped_with_its_links(tmp_path, benchmark):
    question = 'How many points did the defence surrender?'
    answer = 'The defence of the Panthers gave up just 308 points.'
    queries, passages = [text(0), question, text(1)], [text(2), text(3), answer, text(4)]
    (tmp_path / 'q.en.tsv').write_text(''.join(f'{i}\t{x}\n' for i, x in enumerate(queries)))
    (tmp_path / 'c.en.tsv').write_text(''.join(f'{i}\t{x}\n' for i, x in enumerate(passages)))
    (tmp_path / 't.tsv').write_text('0\t0\t1\n1\t1\t3\n2\t3\t2\t1\n0\t2\t1\n')
    spec = (
        f'marco:queries={tmp_path}/q.{{lang}}.tsv,collection={tmp_path}/c.{{lang}}.tsv,'
        f'triples={tmp_path}/t.tsv'
    )
    opened = build_store(tmp_path, [spec], leakage=(benchmark,), leaks='drop', languages='count')
    (dataset,) = opened.datasets
    assert [dataset.group_id(g) for g in range(dataset.num_groups)] == ['0/0', '2/3']
    negatives = dataset.negatives['en'].passages
    assert [store.decode_id(dataset.passage_ids, x) for x in negatives] == ['1', '1']
    assert opened.manifest['datasets'][0]['cleaning'] == {
        'texts': 7, 'language': 0, 'leak': 2, 'dropped': 2,
    }  # fmt: skip


@pytest.mark.slow
def test_xquad_r_in_real_training_data_is_caught(shared_data, tmp_path):
    with gzip.open(shared_data / 'native_qa.jsonl.gz', 'rt') as file:
        groups = [json.loads(line) for line in itertools.islice(file, 300)]
    content = json.loads((shared_data / 'xquad-r' / 'th.json').read_text())
    paragraph = content['data'][3]['paragraphs'][1]
    question = paragraph['qas'][0]
    groups.insert(
        120,
        {
            'id': 'stolen',
            'query': {'th': 'ถาม'},
            'passage': {'th': 'ก่อน ' + paragraph['context'] + ' หลัง'},
        },
    )
    groups.append({'id': 'asked', 'query': {'th': question['question']}, 'passage': {'th': 'ตอบ'}})
    path = write(tmp_path / 'a.jsonl', *groups)
    choices = {'leakage': (f'xquad_r:{shared_data}',), 'leaks': 'drop'}
    opened = build_store(tmp_path, [path], **choices)
    leaks = {x[1]: x[6] for x in read_report(opened.path) if x[3] == 'leak'}
    assert leaks.keys() == {'stolen', 'asked'} and opened.datasets[0].num_groups == 300
    assert leaks['asked'] == f'q:th:{question["id"]}' and re.match('[dq]:th:', leaks['stolen'])


def test_invalid_settings_are_named(tmp_path):
    path = write(tmp_path / 'a.jsonl', group(0))
    for choices, message in (
        ({'exact': 'yes'}, '--exact: expected one of off, count, drop, got .yes'),
        ({'similarity': 0.2}, '--similarity: expected 0.5 to 1, got 0.2'),
        ({'query_chars': '5'}, '--query_chars: expected MIN:MAX'),
        ({'leakage': ('xquad_r',)}, '--leakage: expected BENCHMARK:FOLDER'),
        ({'leakage': (f'xquad_r:{tmp_path}/none',)}, 'none: expected <lang>.json'),
    ):
        with pytest.raises(ValueError, match=message):
            build_store(tmp_path, [path], **choices)


def test_a_killed_pass_is_repeated_and_a_finished_one_is_not(tmp_path, monkeypatch):
    path = write(tmp_path / 'a.jsonl', group(0), group(0) | {'id': 'again'}, group(1))
    decide, calls = cleaning._decide_groups, []

    def kill(*args):
        calls.append(decide(*args))
        if len(calls) == 1:
            raise KeyboardInterrupt
        return calls[-1]

    monkeypatch.setattr(cleaning, '_decide_groups', kill)
    with pytest.raises(KeyboardInterrupt):
        build_store(tmp_path, [path], exact='drop')
    monkeypatch.setitem(build._WRITERS, schema.GroupSource, lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build_store(tmp_path, [path], exact='drop')
    monkeypatch.undo()
    monkeypatch.setattr(cleaning, '_decide_groups', None)
    assert group_ids(build_store(tmp_path, [path], exact='drop')) == ['row0', 'row1']


def test_a_repeated_id_is_named_by_its_line_when_groups_before_it_were_dropped(tmp_path):
    path = write(
        tmp_path / 'a.jsonl', group(0), group(0) | {'id': 'x'}, group(1), group(2, None, 'one more')
    )
    (tmp_path / 'a.jsonl').write_text(
        (tmp_path / 'a.jsonl').read_text().replace('"row2"', '"row1"')
    )
    with pytest.raises(
        ValueError, match='a.jsonl:4: id: expected a new one, got that of .*jsonl:3'
    ):
        build_store(tmp_path, [path], exact='drop')


def test_letters_alone_are_compared():
    assert decontamination.letters('Ｗhat—is_ it?\u0301') == 'whatisit\u0301'
    assert decontamination.letters('हिन्दी में') == 'हिन्दीमें'
