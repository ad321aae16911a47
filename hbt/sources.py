"""Rows of parallel text from files: translation groups of a query, a passage and negatives.

Hides file formats and their checks: every bad row is refused with file, line, what was expected
and what came. Used by `prepare`.
"""

import functools
import gzip
import hashlib
import json
import pathlib
import typing
import zlib
from collections import abc

import babel

from hbt import cldr


class Row(typing.NamedTuple):
    """One translation group. Texts are keyed by language code."""

    id: str
    query: dict[str, str]
    passage: dict[str, str]
    negatives: dict[str, list[str]]


class Source(typing.NamedTuple):
    """A named stream of rows that can be read more than once."""

    name: str
    origin: str
    sha256: str
    rows: abc.Callable[[], abc.Iterator[Row]]


def open_all(inputs: abc.Sequence[str]) -> list[Source]:
    """Opens `FILE` (JSONL, plain or gzip) or `cldr:GROUPS` inputs, without reading rows yet.

    Raises ValueError for a missing file, an unknown scheme, or two inputs of one name.
    """
    if not inputs:
        raise ValueError('--input: expected at least one source, got none')
    found = [cldr_source(x) if x.startswith('cldr:') else jsonl_source(x) for x in inputs]
    names = [source.name for source in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f'--input: expected inputs of different names, got {name!r} twice')
    return found


def jsonl_source(path: str) -> Source:
    file = pathlib.Path(path)
    if not file.is_file():
        raise ValueError(f'{path}: expected a JSONL file (plain or .gz), found no such file')
    with file.open('rb') as raw:
        digest = hashlib.file_digest(raw, 'sha256').hexdigest()
    name = file.name.removesuffix('.gz').removesuffix('.jsonl').removesuffix('.json')
    return Source(name, file.name, digest, functools.partial(read_jsonl, file))


def read_jsonl(file: pathlib.Path) -> abc.Iterator[Row]:
    """Yields the rows of a file; line n holds row n."""
    with file.open('rb') as raw:
        lines = gzip.open(raw) if raw.read(2) == b'\x1f\x8b' else raw
        raw.seek(0)
        number, blank = 0, 0
        try:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    blank = blank or number
                    continue
                if blank:
                    raise ValueError(f'{file}:{blank}: expected a JSON object, got an empty line')
                yield parse(line, f'{file}:{number}')
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(
                f'{file}:{number + 1}: expected a whole gzip file, got {error}'
            ) from None


def parse(line: bytes, place: str) -> Row:
    """One row from one line of JSON; `place` names it in errors."""
    try:
        fields = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f'{place}: expected UTF-8, got {error}') from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{place}: expected a JSON object, got {error}') from None
    if not isinstance(fields, dict):
        raise ValueError(f'{place}: expected a JSON object, got {type(fields).__name__}')
    unknown = fields.keys() - set(Row._fields)
    if unknown:
        raise ValueError(f'{place}: expected {", ".join(Row._fields)}, got {min(unknown)!r} too')
    name = fields.get('id')
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f'{place}: id: expected a non-empty string, got {shown(name)}')
    query = check_texts(fields.get('query'), f'{place}: query')
    passage = check_texts(fields.get('passage'), f'{place}: passage')
    negatives = fields.get('negatives', {})
    if not isinstance(negatives, dict):
        raise ValueError(
            f'{place}: negatives: expected {{language: [text]}}, got {shown(negatives)}'
        )
    for language, texts in negatives.items():
        where = f'{place}: negatives'
        check_language(language, where)
        if not isinstance(texts, list):
            raise ValueError(f'{where}: {language}: expected a list of texts, got {shown(texts)}')
        for text in texts:
            check_text(text, f'{where}: {language}')
    return Row(name, query, passage, {x: texts for x, texts in negatives.items() if texts})


def check_texts(texts, place: str) -> dict[str, str]:
    if not isinstance(texts, dict) or not texts:
        raise ValueError(f'{place}: expected {{language: text}}, got {shown(texts)}')
    for language, text in texts.items():
        check_language(language, place)
        check_text(text, f'{place}: {language}')
    return texts


def check_text(text, place: str) -> None:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f'{place}: expected a non-empty text, got {shown(text)}')
    if any('\ud800' <= c <= '\udfff' for c in text):
        raise ValueError(f'{place}: expected Unicode text, got a lone surrogate')


@functools.cache
def known_languages() -> frozenset[str]:
    return frozenset(babel.Locale('en').languages)


def check_language(language: str, place: str) -> None:
    """Accepts codes whose language the Unicode CLDR names, such as en, zh-Hant or pt_BR."""
    code = language.replace('-', '_')
    if code.split('_')[0] not in known_languages() or not code.isidentifier():
        raise ValueError(f'{place}: expected a language code such as en, got {language!r}')


def shown(value) -> str:
    """A value as it appears in a message, cut to one short line."""
    text = json.dumps(value, ensure_ascii=False) if value is not None else 'nothing'
    return text if len(text) <= 60 else text[:57] + '...'


def cldr_source(spec: str) -> Source:
    count = spec.removeprefix('cldr:')
    if not count.isdigit() or not int(count):
        raise ValueError(f'{spec}: expected cldr:GROUPS with a whole number, got {count!r}')

    def rows():
        for row in cldr.groups('train', int(count)):
            yield Row(row['id'], row['query'], row['passage'], {})

    return Source('cldr', spec, f'babel {babel.__version__}', rows)
