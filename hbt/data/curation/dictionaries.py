"""Word-by-word translation by dictionaries, for encoders of words rather than of word order.

A dictionary is any input of `hbt.prepare` whose groups are words or short phrases with their
translations.
"""

import collections
import functools
import typing
from collections import abc

import regex

from hbt.data.readers import registry, schema
from hbt.utils import languages

_WORD = regex.compile(r'[\p{L}\p{M}\p{N}]+')
_LETTER = regex.compile(r'[\p{L}\p{M}\p{N}]')
_LONGEST = 5  # words of an entry
_LONGEST_UNSPACED = 8  # letters of an entry, where words are not spaced
_ENDING, _STEM = 3, 4  # letters of an unknown word: at most so many are cut off, so many are left


class Dictionary(typing.NamedTuple):
    """Translations from one language to another."""

    entries: dict[tuple[str, ...], str]  # words, or letters, casefolded -> translation
    source: str
    target: str


def find_dictionary(inputs: str, source: str, target: str) -> Dictionary:
    """The dictionary that inputs of `hbt.prepare`, joined by `+`, give for two languages.

    Of several translations of a phrase the most frequent is taken, of these the first. Raises
    ValueError for an input that cannot be read, or without entries in these languages.
    """
    entries = _read_dictionaries(inputs, source).get(target)
    if not entries:
        raise ValueError(
            f'dictionary:{inputs}: expected entries in {source} and {target}, got none'
        )
    return Dictionary(entries, source, target)


@functools.lru_cache(1)
def _read_dictionaries(inputs: str, source: str) -> dict[str, dict[tuple[str, ...], str]]:
    """Target -> phrase -> translation."""
    pattern, longest = _units_of(source)
    counts = collections.defaultdict(lambda: collections.defaultdict(collections.Counter))
    for texts in _iter_entries(inputs):
        units = tuple(pattern.findall(texts.get(source, '').casefold()))
        if 0 < len(units) <= longest:
            for target in texts.keys() - {source}:
                counts[target][units][texts[target]] += 1
    return {
        target: {units: max(x, key=x.get) for units, x in phrases.items()}
        for target, phrases in counts.items()
    }


def _iter_entries(inputs: str) -> abc.Iterator[dict[str, str]]:
    """Yields language -> text of every group."""
    for source in registry.open_sources(inputs.split('+')):
        if isinstance(source, schema.CollectionSource):
            raise ValueError(f'dictionary: expected a source of groups, got {source.spec}')
        for group in source.iter_groups():
            yield group.query


def _units_of(language: str) -> tuple[regex.Pattern, int]:
    """What a text of the language is looked up by, words or letters, and how many at most."""
    if languages.script(language) in languages.UNSPACED:
        return _LETTER, _LONGEST_UNSPACED
    return _WORD, _LONGEST


def translate_words(text: str, dictionary: Dictionary) -> str:
    """The text with every phrase of the dictionary replaced; the rest stays as it is.

    Of the phrases that begin at a word, the longest is taken. A word without a translation, such as
    an inflected one, is looked up without its ending: `forests` as `forest`.
    """
    pattern, longest = _units_of(dictionary.source)
    spaced, spaced_target = (
        languages.script(x) not in languages.UNSPACED
        for x in (dictionary.source, dictionary.target)
    )
    spans = [x.span() for x in pattern.finditer(text)]
    units = [text[start:end].casefold() for start, end in spans]
    parts, at, place, known = [], 0, 0, ()  # `place`: up to where the text is translated
    while at < len(units):
        phrases = (tuple(units[at : at + n]) for n in range(longest, 0, -1))
        phrase = next((x for x in phrases if x in dictionary.entries), ())
        before, known = known, phrase or (_find_stem(units[at], dictionary) if spaced else ())
        start, end = spans[at][0], spans[at + max(len(phrase), 1) - 1][1]
        gap, piece = text[place:start], dictionary.entries.get(known, text[start:end])
        parts.append('' if before and known and gap == ' ' and not spaced_target else gap)
        parts.append(f' {piece} ' if known and spaced_target and not spaced else piece)
        at, place = at + max(len(phrase), 1), end
    return ' '.join(''.join([*parts, text[place:]]).split())


def _find_stem(word: str, dictionary: Dictionary) -> tuple[str, ...]:
    """The longest beginning of a word that is an entry; empty if none is."""
    stems = (word[:-n] for n in range(1, _ENDING + 1))
    return next(((x,) for x in stems if len(x) >= _STEM and (x,) in dictionary.entries), ())
