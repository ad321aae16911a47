"""Rows from records with named fields: tables, SQuAD, Hugging Face datasets, TFDS.

Hides the libraries and how fields become a query, a passage and negatives. Called by `sources`.
"""

import functools
import itertools
import pathlib
from collections import abc

from hbt.data.readers import records, schema, text_lines
from hbt.utils import files, languages


def squad(options: dict[str, str], spec: str) -> schema.GroupSource:
    """SQuAD's JSON, one file a language ({lang} in `files`), joined by the id of the question.

    The passage is the paragraph. A question that has no answer (SQuAD 2.0) is left out.
    """
    found = text_lines.find_files(options['files'], 'files')
    if '' in found:
        code = options.get('language', '')
        languages.check_language(code, f'{spec}: language')
        found = {code: found['']}
    sha256, size = text_lines.digest_files([x for files in found.values() for x in files])
    blocks = functools.partial(join, found)
    name = options.get('name', 'squad')
    return schema.GroupSource(
        name, spec, sha256, size, blocks, list, lambda n: f'{spec}: question {n + 1}'
    )


def join(files: dict[str, list[pathlib.Path]]) -> abc.Iterator[list[schema.Group]]:
    """All questions, those with one id as one row."""
    joined: dict[str, schema.Group] = {}
    for language, found in files.items():
        seen = set()
        for file in found:
            for place, name, question, passage in questions(file):
                if name in seen:
                    raise ValueError(f'{place}: id: expected a new one, got {name!r} again')
                seen.add(name)
                row = joined.setdefault(name, schema.Group(name, {}, {}, {}))
                row.query[language], row.passage[language] = question, passage
    whole = iter(joined.values())
    while block := list(itertools.islice(whole, records.ROWS)):
        yield block


def questions(file: pathlib.Path) -> abc.Iterator[tuple[str, str, str, str]]:
    """(place, id, question, paragraph) of a file."""
    data = schema.parse_json(text_lines.read_text(file), str(file))
    for i, article in enumerate(listed(data, 'data', str(file))):
        for j, paragraph in enumerate(listed(article, 'paragraphs', f'{file}: data[{i}]')):
            place = f'{file}: data[{i}].paragraphs[{j}]'
            for item in listed(paragraph, 'qas', place):
                if not isinstance(item, dict) or not isinstance(item.get('id'), str):
                    raise ValueError(
                        f'{place}: expected a question with an id, got {files.shorten(item)}'
                    )
                where = f'{place}: {item["id"]}'
                schema.check_text(item['id'], f'{place}: id')
                schema.check_text(item.get('question'), f'{where}: question')
                schema.check_text(paragraph.get('context'), f'{where}: context')
                if not item.get('is_impossible'):
                    yield where, item['id'], item['question'], paragraph['context']


def listed(data, name: str, place: str) -> list:
    if not isinstance(data, dict) or not isinstance(data.get(name), list):
        raise ValueError(f'{place}: expected a list {name!r}, got {files.shorten(data)}')
    return data[name]
