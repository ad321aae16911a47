"""The layout of BEIR (arXiv 2104.08663): corpus.jsonl, queries.jsonl and qrels/, also gzipped.

A line's language is its field `language` or `lang`, the name of a folder by language, or `und`.
"""

import pathlib
import re
from collections.abc import Iterator

from hbt.data.readers import retrieval, schema, text_lines
from hbt.evaluation.benchmarks import assembly
from hbt.utils import hub

QRELS = [f'{x}{split}.tsv' for split in ('test', 'dev', 'validation') for x in ('qrels/', '')]
HUB_FILES = ('corpus.jsonl*', 'queries.jsonl*', '*.tsv')


def read_beir(_name: str, argument: str, root: pathlib.Path) -> assembly.Collection:
    """A folder under `root`, or a data set of the hub, whose judgements may be in a second one.

    Queries without a judgement are left out. A query's ranking excludes the document of its id, as
    in BEIR itself, unless that is judged relevant.
    """
    folder = root / argument
    if not folder.exists() and re.fullmatch(r'[\w.-]+/[\w.-]+', argument):
        folder = hub.dataset_snapshot(argument, HUB_FILES)
        if not any(folder.rglob('*.tsv')):
            return _read_folder(folder, hub.dataset_snapshot(f'{argument}-qrels', HUB_FILES))
    if _find(folder, 'corpus.jsonl'):
        return _read_folder(folder, folder)
    folders = [x for x in sorted(folder.glob('*')) if x.is_dir() and _find(x, 'corpus.jsonl')]
    if not folders:
        expected = 'corpus.jsonl, queries.jsonl and qrels/test.tsv, or such folders by language'
        raise ValueError(f'{folder}: expected {expected}, got none')
    return assembly.join_collections([_read_folder(x, x, x.name) for x in folders])


def _read_folder(
    folder: pathlib.Path, qrels_folder: pathlib.Path, language: str = ''
) -> assembly.Collection:
    """A collection of lines of this language unless they have one; ids begin with it, too."""
    prefix, language = f'{language}:' * bool(language), language or 'und'
    paths = {x: _find(folder, x) for x in ('corpus.jsonl', 'queries.jsonl')}
    paths['qrels/test.tsv'] = next(filter(None, (_find(qrels_folder, x) for x in QRELS)), None)
    for name, path in paths.items():
        if path is None:
            raise ValueError(f'{folder}: expected {name}, got none')
    corpus_file, queries_file, qrels_file = files = tuple(paths.values())
    documents = assembly.Entries(_iter_entries, corpus_file, f'd:{prefix}', language)
    queries = [*_iter_entries(queries_file, f'q:{prefix}', language)]
    qrels = {}
    rows = _iter_judgements(qrels_file, {query.id[2 + len(prefix) :] for query in queries})
    for _, query, document, grade in retrieval.parse_judgements(rows):
        qrels.setdefault(f'q:{prefix}{query}', {})[f'd:{prefix}{document}'] = grade
    queries = [query for query in queries if query.id in qrels]
    unknown = qrels.keys() - {query.id for query in queries}
    if unknown:
        message = f'{len(unknown)} others, such as {min(unknown)[2 + len(prefix) :]!r}'
        raise ValueError(f'{qrels_file}: expected queries of {queries_file}, got {message}')
    own = {query: f'd{query[1:]}' for query in qrels}
    excluded = {query: x for query, x in own.items() if qrels[query].get(x, 0) <= 0}
    return assembly.Collection(queries, documents, qrels, excluded=excluded, files=files)


def _iter_judgements(path: pathlib.Path, queries: set[str]) -> Iterator[tuple[str, ...]]:
    """Yields (where, query, document, grade) as text; the first line may be a header.

    A header has no number for a grade, and no query's id: `query-id`, `corpus-id`, `score`.
    """
    names = 'query-id', 'corpus-id', 'score'
    for number, (where, line) in enumerate(text_lines.iter_rows(path)):
        query, document, grade = text_lines.split_columns(where, line, names)
        is_header = not number and not re.search('[0-9]', grade) and query not in queries
        if not is_header:
            yield where, query, document, grade


def _find(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    return next((x for x in (folder / name, folder / f'{name}.gz') if x.is_file()), None)


def _iter_entries(path: pathlib.Path, prefix: str, language: str) -> Iterator[assembly.Entry]:
    for where, row in schema.iter_objects(text_lines.iter_rows(path)):
        key, title = row.get('_id'), schema.get_optional(row, 'title', '', where)
        schema.check_text(key, f'{where}: _id')
        code = schema.get_language(row, language, where)
        text = schema.get_text(row, ('text',), where)
        yield assembly.Entry(prefix + key, code, retrieval.join_title(title, text), where)
