"""Texts of evaluation benchmarks inside training texts, compared by letters and digits alone.

A text leaks if it is a text of a benchmark, or contains a long sentence of one.
"""

import functools
import pathlib
import unicodedata

import regex

from hbt.utils import files

_LONG = 24  # letters of a long sentence
_LONG_DENSE = 12  # of one in a dense script
_NO_LETTER = regex.compile(r'[\W_]+')
_DENSE = regex.compile(r'[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}]')
_SENTENCE_END = regex.compile(r'(?<=[.!?]\s)|(?<=[。！？।॥])|\n')


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
def _load_index(file: str) -> tuple[dict[str, str], dict[str, list[tuple[str, str]]]]:
    """Letters of texts -> id, and of starts of long sentences -> [(sentence, id)]."""
    texts, by_start = {}, {}
    for name, text in files.read_json(pathlib.Path(file), list):
        content = letters(text)
        if 2 * len(content) >= min_long(content):  # shorter ones tell nothing
            texts.setdefault(content, name)
        for sentence in map(letters, _SENTENCE_END.split(text)):
            if len(sentence) >= min_long(sentence):
                same_start = by_start.setdefault(sentence[: min_long(sentence)], [])
                if all(sentence != other for other, _ in same_start):
                    same_start.append((sentence, name))
    return texts, by_start


def find_leak(file: str, text: str) -> str:
    """The id of a text, of those [id, text] in a JSON file, that `text` is or contains; or ''."""
    texts, by_start = _load_index(file)
    content = letters(text)
    if content in texts:
        return texts[content]
    for width in (_LONG, _LONG_DENSE):
        for start in range(len(content) - width + 1):
            for sentence, name in by_start.get(content[start : start + width], ()):
                if content.startswith(sentence, start):
                    return name
    return ''
