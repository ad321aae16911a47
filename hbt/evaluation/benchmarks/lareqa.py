"""XQuAD-R and MLQA-R (LAReQA, arXiv 2004.05484): every sentence of every paragraph is a document.

A query is answered by one sentence in each language that has a question of the same id.
"""

import pathlib
import re
from collections.abc import Iterator

from hbt.data.readers import schema, squad
from hbt.evaluation.benchmarks import assembly


def read_lareqa(name: str, _argument: str, root: pathlib.Path) -> assembly.Collection:
    """All `<language>.json`, as SQuAD's with sentences, of `root` or `root/xquad-r` (xquad_r)."""
    paths = sorted(assembly.find_folder(root, name).glob('*.json'))
    if not paths:
        folder = name.replace('_', '-')
        raise ValueError(f'{root}: expected <lang>.json files, or {folder}/ with them, got none')
    queries, documents, sentences, parallel = [], [], {}, {}
    for path in paths:
        language = path.stem
        if not re.fullmatch('[a-z]{2,3}', language):
            raise ValueError(f'{path}: expected a language code of 2 or 3 letters as the name')
        documents_of_language, questions = _read_language(path)
        documents += documents_of_language
        for key, (where, text, document) in questions.items():
            query = f'q:{language}:{key}'
            queries.append(assembly.Entry(query, language, text, where))
            parallel[query] = key
            sentences.setdefault(key, {})[document] = 1
    qrels = {query: sentences[key] for query, key in parallel.items()}
    return assembly.Collection(queries, documents, qrels, parallel, files=tuple(paths))


def _read_language(path: pathlib.Path) -> tuple[list[assembly.Entry], dict]:
    """The sentences, and id of a question -> (where, question, id of the answering sentence)."""
    documents, questions = [], {}
    for number, (where, paragraph) in enumerate(squad.iter_paragraphs(path)):
        sentences = schema.get_field(paragraph, 'sentences', list, where)
        stem = f'd:{path.stem}:{number:05}'
        for i, text in enumerate(sentences):
            place = f'{where}.sentences[{i}]'
            schema.check_unicode(text, place)
            documents.append(assembly.Entry(f'{stem}:{i:04}', path.stem, text, place))
        for key, text, sentence in _iter_questions(paragraph, len(sentences), where):
            if key in questions:
                raise ValueError(f'{where}: expected each question id once, got {key!r} again')
            questions[key] = where, text, f'{stem}:{sentence:04}'
    if not documents or not questions:
        message = f'{len(documents)} and {len(questions)} of them'
        raise ValueError(f'{path}: expected sentences and questions, got {message}')
    return documents, questions


def _iter_questions(paragraph: dict, num_sentences: int, where: str) -> Iterator[tuple]:
    """Yields (id shared by the languages, question, number of the answering sentence)."""
    breaks = schema.get_field(paragraph, 'sentence_breaks', list, where)
    if len(breaks) != num_sentences:
        raise ValueError(f'{where}: expected {num_sentences} sentence_breaks, got {len(breaks)}')
    for i, pair in enumerate(breaks):
        if not isinstance(pair, list) or [type(x) for x in pair] != [int, int]:
            raise ValueError(f'{where}.sentence_breaks[{i}]: expected [start, end], got {pair!r}')
    for entry_where, key, question, entry in squad.iter_questions(paragraph, where):
        if not re.fullmatch('[!-~]+', key):
            raise ValueError(f'{entry_where}: expected an ASCII id without whitespace, got {key!r}')
        answers = schema.get_field(entry, 'answers', list, entry_where)
        if not answers:
            raise ValueError(f'{entry_where}: expected an answer, got none')
        offset = schema.get_field(answers[0], 'answer_start', int, f'{entry_where}.answers[0]')
        inside = [n for n, (start, end) in enumerate(breaks) if start <= offset < end]
        if len(inside) != 1:
            message = f'answer_start inside one sentence, got {offset} inside {len(inside)}'
            raise ValueError(f'{entry_where}: expected {message}')
        yield key, question, inside[0]
