import json

import pytest

from hbt.data.curation import dictionaries, translation
from hbt.data.readers import registry

ROWS = [
    {'en': 'forest', 'de': 'Wald', 'zh': '森林', 'th': 'ป่า'},
    {'en': 'forest', 'de': 'Forst'},
    {'en': 'Forest', 'de': 'Forst'},
    {'en': 'New York', 'de': 'New York', 'zh': '纽约', 'th': 'นิวยอร์ก'},
    {'en': 'york', 'zh': '约克'},
    {'en': 'a', 'de': 'ein', 'zh': '一个'},
    {'en': 'one two three four five six', 'de': 'eins'},
]


@pytest.fixture
def words(tmp_path):
    file = tmp_path / 'words.jsonl'
    rows = ({'id': str(i), 'query': x, 'passage': x} for i, x in enumerate(ROWS))
    file.write_text('\n'.join(map(json.dumps, rows)) + '\n')
    return str(file)


@pytest.mark.parametrize(
    ('source', 'target', 'text', 'expected'),
    [
        ('en', 'de', 'A Forest, in new york!', 'ein Forst, in New York!'),
        ('en', 'de', 'Forests; forestation, for', 'Forst; forestation, for'),
        ('en', 'zh', 'A forest in New York (York)', '一个森林 in 纽约 (约克)'),
        ('en', 'zh', 'in the city', 'in the city'),
        ('zh', 'en', '一个森林在纽约。', 'a forest 在 New York 。'),
        ('zh', 'th', '森林纽约', 'ป่านิวยอร์ก'),
        ('en', 'de', '', ''),
    ],
)
def test_phrases_are_replaced_the_longest_first(words, source, target, text, expected):
    dictionary = dictionaries.find_dictionary(words, source, target)
    assert dictionaries.translate_words(text, dictionary) == expected


def test_pairs_are_translated_by_a_dictionary_into_parallel_groups(words, tmp_path):
    pair = {'id': '1', 'query': {'en': 'a forest'}, 'passage': {'en': 'New York'}}
    (tmp_path / 'en.jsonl').write_text(json.dumps(pair))
    (source,) = registry.open_sources([str(tmp_path / 'en.jsonl')])
    c = translation.TranslationConfig('en', ('de', 'zh'), (f'dictionary:{words}',), 10, 3.0, ())
    translation.translate_source(source, tmp_path / 'out.jsonl.gz', c)
    (result,) = registry.open_sources([str(tmp_path / 'out.jsonl.gz')])
    (group,) = result.iter_groups()
    assert group.query == {'en': 'a forest', 'de': 'ein Forst', 'zh': '一个森林'}
    assert group.passage['zh'] == '纽约'


def test_a_dictionary_without_the_languages_is_refused(words, tmp_path):
    with pytest.raises(ValueError, match='words.jsonl: expected entries in en and ru, got none'):
        dictionaries.find_dictionary(words, 'en', 'ru')
    with pytest.raises(ValueError, match='none.jsonl: expected a JSONL file'):
        dictionaries.find_dictionary('none.jsonl', 'en', 'ru')
    for name, text in (('queries.en', '1\tq\n'), ('collection.en', '1\tp\n'), ('ids', '1\t1\t1\n')):
        (tmp_path / f'{name}.tsv').write_text(text)
    marco = 'marco:queries={0}/queries.{{lang}}.tsv,collection={0}/collection.{{lang}}.tsv,'
    marco = (marco + 'triples={0}/ids.tsv').format(tmp_path)
    with pytest.raises(ValueError, match='expected a source of groups, got marco:'):
        dictionaries.find_dictionary(marco, 'en', 'ru')
