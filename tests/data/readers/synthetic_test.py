"""The embedded data: parallel, deterministic, split by combination, and free of library gaps."""

import itertools
import json
import re
import subprocess
import sys
import unicodedata

import pytest

from hbt.data.readers import synthetic

COUNT = 600
COGNATES = {'place': 0.4, 'weekday': 0, 'month': 0.4, 'money': 0, 'tongue': 0.1}  # allowed share
SCRIPTS = {'ar': 'ARABIC', 'el': 'GREEK', 'hi': 'DEVANAGARI', 'ru': 'CYRILLIC', 'th': 'THAI'}
SCRIPTS |= {'zh': 'CJK'} | dict.fromkeys(('de', 'en', 'es', 'tr', 'vi'), 'LATIN')
DIGEST = (
    'import hashlib, json; from hbt.data.readers import synthetic; '
    "rows = json.dumps(list(synthetic.groups('train', 50, seed=3))); "
    'print(hashlib.sha256(rows.encode()).hexdigest(), len(rows))'
)
FIELDS = ('place', 'weekday', 'month')
NAMES = {
    code: synthetic._atoms('en')[1]['money'][
        i * len(synthetic.NUMBERS) : (i + 1) * len(synthetic.NUMBERS)
    ]
    for i, code in enumerate(synthetic.CURRENCIES)
}


def rows(split, count=COUNT, **options):
    return list(synthetic.groups(split, count, **options))


def key(row):
    """The key's facts in English, read back from the passage."""
    _, long = synthetic._atoms('en')
    text = row['passage']['en']
    facts = [[v for v in long[f] if re.search(rf'\b{v}\b', text)] for f in FIELDS]
    currency = [c for c, names in NAMES.items() if any(name in text for name in names)]
    assert [len(values) for values in [*facts, currency]] == [1, 1, 1, 1], text
    return (*itertools.chain(*facts), *currency)


def test_a_call_repeats_itself_and_a_smaller_count_is_its_beginning():
    assert rows('train') == rows('train')
    assert rows('train', 7) == rows('train')[:7]
    assert rows('test', 7, seed=1) != rows('test', 7, seed=2)


def test_another_process_gives_the_same_rows_whatever_its_hash_seed():
    outputs = {
        subprocess.run(
            [sys.executable, '-c', DIGEST],
            env={'PYTHONHASHSEED': seed, 'PYTHONPATH': ':'.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ('1', '2')
    }
    assert len(outputs) == 1


def test_fewer_languages_give_the_same_groups():
    for full, pair in zip(
        rows('train', 20), rows('train', 20, languages=('vi', 'el')), strict=True
    ):
        assert pair['id'] == full['id'] and list(pair['query']) == ['vi', 'el']
        assert all(
            pair[side][la] == full[side][la]
            for side in ('query', 'passage')
            for la in 'vi el'.split()
        )


def test_no_key_of_test_occurs_in_train_under_any_seed():
    train, test = set(synthetic._keys('train', 0)), set(synthetic._keys('test', 5))
    assert not train & test and len(train) + len(test) == 32 * 7 * 12 * 16
    assert {key(row) for row in rows('train', seed=1)}.isdisjoint(key(row) for row in rows('test'))


def test_every_atom_of_test_keys_occurs_in_train():
    train, test = rows('train', 2000, languages=('en',)), rows('test', languages=('en',))
    for values in zip(*(key(row) for row in test), strict=True):
        assert set(values) <= set(itertools.chain(*map(key, train)))


def test_every_row_speaks_every_language_and_query_differs_from_passage():
    for row in rows('train'):
        assert set(row) == {'id', 'query', 'passage'}
        for side, most in (('query', 14), ('passage', 30)):
            assert tuple(row[side]) == synthetic.LANGUAGES
            assert len(set(row[side].values())) == len(synthetic.LANGUAGES)
            assert all(text and len(text.split()) <= most for text in row[side].values())
        assert all(row['query'][la] != row['passage'][la] for la in synthetic.LANGUAGES)
        assert json.loads(json.dumps(row)) == row


def test_ids_are_unique_over_splits_and_seeds():
    ids = [
        row['id'] for split in ('train', 'test') for s in (0, 1) for row in rows(split, 50, seed=s)
    ]
    assert len(set(ids)) == 200


def test_a_query_of_test_has_exactly_one_passage_in_each_language():
    test = rows('test')
    assert len({key(row) for row in test}) == COUNT
    for language in synthetic.LANGUAGES:
        for side in ('query', 'passage'):
            assert len({row[side][language] for row in test}) == COUNT
        for field in ('place', 'weekday', 'month', 'currency', 'tongue'):
            short = synthetic._atoms(language)[0][field]
            assert len(set(short)) == len(short), (language, field, short)
        for field, texts in synthetic._atoms(language)[1].items():
            assert field == 'hour' or len(set(texts)) == len(texts), (language, field, texts)


def test_no_word_of_a_passage_is_in_a_foreign_script():
    for language in synthetic.LANGUAGES:
        _, long = synthetic._atoms(language)
        for text in itertools.chain(*long.values()):
            letters = [c for c in text if c.isalpha()]
            assert letters, (language, text)
            assert all(unicodedata.name(c).startswith(SCRIPTS[language]) for c in letters), text


def test_no_code_of_the_library_stands_where_a_name_is_expected():
    codes = re.compile(
        '|'.join([*(rf'\b{c}\b' for c in synthetic.CURRENCIES), *synthetic.UNITS, 'None', '{'])
    )
    for language in synthetic.LANGUAGES:
        short, long = synthetic._atoms(language)
        names = [text for field, texts in short.items() if field != 'code' for text in texts]
        for text in itertools.chain(names, *long.values()):
            assert not codes.search(text), (language, text)


def test_numbers_are_words_wherever_num2words_has_the_language():
    for language in synthetic.LANGUAGES:
        _, long = synthetic._atoms(language)
        digits = [any(map(str.isdigit, text)) for text in long['money'] + long['quantity']]
        assert all(digits) if language in synthetic.DIGITS_ONLY else not any(digits), language


def test_no_latin_language_says_its_days_months_and_places_in_english():
    english = synthetic._atoms('en')[1]
    for language in ('de', 'es', 'tr', 'vi'):
        _, long = synthetic._atoms(language)
        for field, most in COGNATES.items():
            same = set(long[field]) & set(english[field])
            assert len(same) <= most * len(english[field]), (language, field, same)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (('valid', 1), "expected 'train' or 'test', got 'valid'"),
        (('train', 0), 'expected at least 1, got 0'),
        (('train', 1, ('en', 'xx')), "'zh'.*got .*'xx'"),
        (('train', 1, ()), 'languages: expected'),
        (('test', 10**6), 'at most 5371 test groups, got 1000000'),
    ],
)
def test_a_bad_argument_is_refused_before_the_first_group(arguments, message):
    with pytest.raises(ValueError, match=message):
        synthetic.groups(*arguments)
