"""Unlimited parallel groups without a download, in words of the Unicode CLDR and of num2words."""

import datetime
import functools
import hashlib
import itertools
import json
from collections import abc
from importlib import resources

import babel
import num2words
from babel import dates, lists, numbers, units

LANGUAGES = ('ar', 'de', 'el', 'en', 'es', 'hi', 'ru', 'th', 'tr', 'vi', 'zh')  # XQuAD-R's
DIGITS_ONLY = ('el', 'hi', 'zh')  # num2words has no number words for these

_CODES = json.loads(resources.files('hbt.data.readers').joinpath('synthetic.json').read_text())
PLACES = _CODES['places']  # territory -> the time zone whose exemplar city stands for it in a query
CURRENCIES, TONGUES, UNITS = (tuple(_CODES[x]) for x in ('currencies', 'tongues', 'units'))
NUMBERS = (12, 15, 18, 20, 25, 30, 36, 40, 45, 50, 60, 75, 80, 90, 100, 200)
HOURS = tuple(range(6, 22))

# The four facts of a record that its query always names, and the rest; with their number of values.
KEY = {'place': len(PLACES), 'weekday': 7, 'month': 12, 'currency': len(CURRENCIES)}
EXTRA = {'hour': len(HOURS), 'quantity': len(UNITS) * len(NUMBERS), 'tongue': len(TONGUES)}
TEST_SHARE = 8  # one combination of the key in 8 is for testing


def groups(split: str, count: int, languages=LANGUAGES, seed: int = 0) -> abc.Iterator[dict]:
    """Yields `count` groups {'id': ..., 'query': {language: text}, 'passage': {language: text}}.

    Each is a record of seven facts. A passage states all of them in long forms; its query names the
    four of KEY in other forms, and one more. No combination of these four is in both splits,
    whatever the seed, or twice in 'test'. Equal arguments give equal groups on any machine.
    """
    if split not in ('train', 'test'):
        raise ValueError(f"split: expected 'train' or 'test', got {split!r}")
    if not languages or {*languages} - {*LANGUAGES}:
        raise ValueError(f'languages: expected some of {LANGUAGES}, got {tuple(languages)}')
    if count < 1:
        raise ValueError(f'count: expected at least 1, got {count}')
    keys = _keys(split, seed)
    if split == 'test' and count > len(keys):
        raise ValueError(f'count: expected at most {len(keys)} test groups, got {count}')
    return (_group(split, seed, i, keys[i % len(keys)], tuple(languages)) for i in range(count))


@functools.lru_cache(maxsize=8)
def _keys(split: str, seed: int) -> list[tuple]:
    """The key combinations of a split, in an order drawn by the seed."""
    cells = itertools.product(*(range(size) for size in KEY.values()))
    keys = [c for c in cells if (_draw('split', *c) % TEST_SHARE == 0) == (split == 'test')]
    return sorted(keys, key=lambda cell: _draw('order', seed, *cell))


def _draw(*parts) -> int:
    """A large random integer that is a function of the parts, the same on every machine."""
    text = '/'.join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode()).digest(), 'big')


def _shuffled(items, draw: int) -> tuple[list, int]:
    """The items in an order drawn from the integer, and the rest of the integer."""
    items = list(items)
    for last in range(len(items) - 1, 0, -1):
        draw, other = divmod(draw, last + 1)
        items[last], items[other] = items[other], items[last]
    return items, draw


def _group(split: str, seed: int, index: int, key: tuple, languages: tuple) -> dict:
    """One order and one choice of facts and forms, said in every language."""
    draw = _draw(split, seed, index)
    facts = dict(zip(KEY, key, strict=True))
    for field, size in EXTRA.items():
        draw, facts[field] = divmod(draw, size)
    draw, amount = divmod(draw, len(NUMBERS))
    facts |= {'money': facts['currency'] * len(NUMBERS) + amount, 'code': facts['currency']}
    passage, draw = _shuffled(['place', 'weekday', 'month', 'money', *EXTRA], draw)
    draw, extra = divmod(draw, len(EXTRA))
    draw, is_named = divmod(draw, 2)
    money = 'currency' if is_named else 'code'
    query, _ = _shuffled(['place', 'weekday', 'month', money, list(EXTRA)[extra]], draw)

    group = {'id': f'{split}-{seed}-{index:06d}', 'query': {}, 'passage': {}}
    for language in languages:
        short, long = _atoms(language)
        group['query'][language] = ' '.join(short[field][facts[field]] for field in query)
        clauses = [long[field][facts[field]] for field in passage]
        group['passage'][language] = lists.format_list(clauses, locale=language)
    return group


@functools.cache
def _atoms(language: str) -> tuple[dict, dict]:
    """Field -> text of each of its values, as a query says it and as a passage says it."""
    locale = babel.Locale.parse(language)
    times = [datetime.time(hour) for hour in HOURS]
    quantities = [_quantity(unit, n, locale) for unit in UNITS for n in NUMBERS]
    tongues = [locale.languages[code] for code in TONGUES]
    # CLDR leaves out the exemplar city where it is spelled as in the name of the zone.
    cities = {zone: locale.time_zones.get(zone, {}).get('city') for zone in PLACES.values()}
    short = {
        'place': [city or zone.split('/')[-1] for zone, city in cities.items()],
        'weekday': [locale.days['stand-alone']['abbreviated'][day] for day in range(7)],
        'month': [locale.months['format']['abbreviated'][month] for month in range(1, 13)],
        'currency': [numbers.get_currency_name(c, locale=locale) for c in CURRENCIES],
        'code': CURRENCIES,
        'hour': [dates.format_time(time, 'short', locale=locale) for time in times],
        'quantity': [short for short, _ in quantities],
        'tongue': tongues,
    }
    long = {
        'place': [locale.territories[code] for code in PLACES],
        'weekday': [locale.days['stand-alone']['wide'][day] for day in range(7)],
        'month': [locale.months['stand-alone']['wide'][month] for month in range(1, 13)],
        'money': [_money(code, n, locale) for code in CURRENCIES for n in NUMBERS],
        'hour': [dates.format_skeleton('Bh', time, locale=locale) for time in times],
        'quantity': [long for _, long in quantities],
        'tongue': tongues,
    }
    for atoms in (short, long):  # plain spaces for the narrow and no-break ones of CLDR
        for field, texts in atoms.items():
            atoms[field] = [' '.join(text.split()) for text in texts]
    return short, long


def _money(code: str, number: int, locale: babel.Locale) -> str:
    text = numbers.format_currency(
        number, code, '#,##0', locale, currency_digits=False, format_type='name'
    )
    return _spell(text, number, locale)


def _quantity(unit: str, number: int, locale: babel.Locale) -> tuple[str, str]:
    """Short and long; where CLDR inherits the long form, babel answers with the unit's code."""
    short = units.format_unit(number, unit, 'short', locale=locale)
    long = units.format_unit(number, unit, 'long', locale=locale)
    return short, _spell(short if unit in long else long, number, locale)


def _spell(text: str, number: int, locale: babel.Locale) -> str:
    """The text with its digits replaced by number words, where num2words has the language."""
    if locale.language in DIGITS_ONLY:
        return text
    return text.replace(str(number), num2words.num2words(number, lang=locale.language))
