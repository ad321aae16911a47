"""SQuAD's JSON as a source of groups, and the iteration over its paragraphs that LAReQA shares."""

import functools
import itertools
import pathlib
from collections import abc

from hbt.data.readers import records, schema, source_files, text_lines
from hbt.utils import files


def open_squad(options: dict[str, str], spec: str) -> schema.GroupSource:
    """SQuAD's JSON, one file a language ({lang} in `files`), joined by the id of the question.

    The passage is the paragraph. A question that has no answer (SQuAD 2.0) is left out.
    """
    paths = source_files.find_files_by_language(options, 'files')
    checksum = source_files.digest_files(itertools.chain(*paths.values()))
    blocks, name = functools.partial(_joined_blocks, paths), options.get('name', 'squad')
    return schema.GroupSource(
        name, spec, *checksum, blocks, list, lambda n: f'{spec}: question {n + 1}'
    )


def iter_paragraphs(path: pathlib.Path) -> abc.Iterator[tuple[str, dict]]:
    """Yields (where, paragraph) of a file, plain or gzip."""
    content = schema.parse_json(text_lines.read_text(path), str(path))
    for i, article in enumerate(schema.get_field(content, 'data', list, str(path))):
        where = f'{path}: data[{i}]'
        for j, paragraph in enumerate(schema.get_field(article, 'paragraphs', list, where)):
            paragraph_where = f'{where}.paragraphs[{j}]'
            if not isinstance(paragraph, dict):
                shown = files.shorten(paragraph)
                raise ValueError(f'{paragraph_where}: expected a JSON object, got {shown}')
            yield paragraph_where, paragraph


def iter_questions(paragraph: dict, where: str) -> abc.Iterator[tuple[str, str, str, dict]]:
    """Yields (where, id, question, entry with the answers) of a paragraph."""
    for i, entry in enumerate(schema.get_field(paragraph, 'qas', list, where)):
        entry_where = f'{where}.qas[{i}]'
        key = schema.get_field(entry, 'id', str, entry_where)
        question = schema.get_field(entry, 'question', str, entry_where)
        schema.check_text(key, f'{entry_where}: id')
        schema.check_unicode(question, f'{entry_where}: question')
        yield entry_where, key, question, entry


def _joined_blocks(paths: dict[str, list[pathlib.Path]]) -> abc.Iterator[list[schema.Group]]:
    """Yields all questions that have an answer, those of one id as one group."""
    groups: dict[str, schema.Group] = {}
    for language, path in ((language, path) for language, part in paths.items() for path in part):
        for where, paragraph in iter_paragraphs(path):
            for entry_where, key, question, entry in iter_questions(paragraph, where):
                schema.check_text(question, f'{entry_where}: question')
                schema.check_text(paragraph.get('context'), f'{where}: context')
                if entry.get('is_impossible'):
                    continue
                group = groups.setdefault(key, schema.Group(key, {}, {}, {}))
                if language in group.query:
                    raise ValueError(f'{entry_where}: id: expected a new one, got {key!r} again')
                group.query[language], group.passage[language] = question, paragraph['context']
    yield from records.iter_blocks(groups.values())
