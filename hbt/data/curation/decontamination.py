"""Texts of evaluation benchmarks inside training texts, compared by letters and digits alone.

A text leaks if it is a text of a benchmark, or contains a long sentence of one.
"""

import functools
import json
import pathlib
import typing
import unicodedata

import regex

_LONG = 24  # letters of a long sentence
_LONG_DENSE = 12  # of one in a dense script
_NO_LETTER = regex.compile(r'[\W_]+')
_DENSE = regex.compile(r'[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]')
_SENTENCE_END = regex.compile(r'(?<=[.!?]\s)|(?<=[。！？।॥])|\n')


class LeakIndex(typing.NamedTuple):
    """The texts to look for, as letters."""

    texts: dict[str, str]  # text -> its id
    sentences: dict[str, list[tuple[str, str]]]  # start of a long sentence -> [(sentence, id)]


def letters(text: str) -> str:
    """Letters, marks and digits of a text, without case and in compatibility form."""
    return _NO_LETTER.sub('', unicodedata.normalize('NFKC', text).casefold())


def count_dense(text: str) -> int:
    """Number of characters in Chinese, Japanese and Korean scripts."""
    return len(_DENSE.findall(text))


def min_long(text: str) -> int:
    """The number of letters from which a text in the script of this one is long."""
    return _LONG_DENSE if 2 * count_dense(text) > len(text) else _LONG


@functools.cache
def load_index(file: str) -> LeakIndex:
    """Indexes a file of [id, text]; texts of less than half of a long sentence tell nothing."""
    index = LeakIndex({}, {})
    for name, text in json.loads(pathlib.Path(file).read_text()):
        content = letters(text)
        if 2 * len(content) >= min_long(content):
            index.texts.setdefault(content, name)
        for sentence in map(letters, _SENTENCE_END.split(text)):
            if len(sentence) >= min_long(sentence):
                same_start = index.sentences.setdefault(sentence[: min_long(sentence)], [])
                if all(sentence != other for other, _ in same_start):
                    same_start.append((sentence, name))
    return index


def find_leak(index: LeakIndex, text: str) -> str:
    """The id of a benchmark's text that equals or is part of `text`; '' if there is none."""
    content = letters(text)
    if content in index.texts:
        return index.texts[content]
    for width in (_LONG, _LONG_DENSE):
        for start in range(len(content) - width + 1):
            for sentence, name in index.sentences.get(content[start : start + width], ()):
                if content.startswith(sentence, start):
                    return name
    return ''
