"""Texts of evaluation benchmarks inside training texts.

Hides how texts are compared: by their letters and digits alone, in any language. A text leaks if it
is a benchmark's text, or contains a long sentence of one. Called by `hygiene`.
"""

import functools
import json
import pathlib
import typing
import unicodedata
from collections import abc

import regex

LONG = 24  # letters of a long sentence
LONG_DENSE = 12  # of one in Chinese, Japanese or Korean
APART = regex.compile(r'[\W_]+')
DENSE = regex.compile(r'[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]')
SENTENCE = regex.compile(r'(?<=[.!?]\s)|(?<=[。！？।॥])|\n')


class Index(typing.NamedTuple):
    """What is looked for, as letters."""

    whole: dict[str, str]  # text -> its id
    parts: dict[str, list[tuple[str, str]]]  # beginning of a long sentence -> (sentence, id)


def letters(text: str) -> str:
    """Letters, marks and digits of a text, without case and without forms of compatibility."""
    return APART.sub('', unicodedata.normalize('NFKC', text).casefold())


def long(found: str) -> int:
    """How many letters make such a text long."""
    return LONG_DENSE if 2 * len(DENSE.findall(found)) > len(found) else LONG


def save_texts(file: pathlib.Path, texts: abc.Iterable[tuple[str, str]]) -> None:
    """Writes (id, text) of the texts to look for, to be read by `load` in any process."""
    file.write_text(json.dumps(list(texts), ensure_ascii=False))


@functools.cache
def load_index(file: str) -> Index:
    return index(map(tuple, json.loads(pathlib.Path(file).read_text())))


def index(texts: abc.Iterable[tuple[str, str]]) -> Index:
    """An index of (id, text). Too short to tell anything, and left out: under half of `LONG`."""
    made = Index({}, {})
    for name, text in texts:
        whole = letters(text)
        if 2 * len(whole) >= long(whole):
            made.whole.setdefault(whole, name)
        for sentence in SENTENCE.split(text):
            part = letters(sentence)
            if len(part) >= long(part):
                known = made.parts.setdefault(part[: long(part)], [])
                if all(part != other for other, _ in known):
                    known.append((part, name))
    return made


def find_leak(made: Index, text: str) -> str:
    """The id of the benchmark's text that is or is in `text`; '' where there is none."""
    whole = letters(text)
    if whole in made.whole:
        return made.whole[whole]
    for width in (LONG, LONG_DENSE):
        for at in range(len(whole) - width + 1):
            for part, name in made.parts.get(whole[at : at + width], ()):
                if whole.startswith(part, at):
                    return name
    return ''
