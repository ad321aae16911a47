"""Groups of the training format as a benchmark: of a file, or the embedded test groups."""

import pathlib
import unicodedata

from hbt.data.readers import registry, synthetic
from hbt.evaluation.benchmarks import assembly


def read_groups(_name: str, argument: str, root: pathlib.Path) -> assembly.Collection:
    """Groups of a JSONL file: a query is answered by the passages of its group.

    Equal texts of a language are one query, or one document, of all the groups that have it, also
    if they differ in white space or in the composition of characters. A query's ranking excludes
    the document of its own text, as a translation pair has it.
    """
    path = root / argument
    if not path.is_file():
        raise ValueError(f'{path}: expected a JSONL file (plain or .gz), got no such file')
    queries, documents, qrels, parallel, numbers = {}, {}, {}, {}, {}
    source = registry.open_groups(str(path))
    for number, group in enumerate(source.iter_groups()):
        if (first := numbers.setdefault(group.id, number)) != number:
            where, other = source.where(number), source.where(first)
            raise ValueError(f'{where}: id: expected a new one, got that of {other}')
        grades = {}
        for item in group.passage.items():
            grades[_add(documents, 'd', *item)] = 1
        for item in group.query.items():
            query = _add(queries, 'q', *item)
            qrels.setdefault(query, {}).update(grades)
            parallel.setdefault(query, group.id)
    excluded = {x.id: documents[key].id for key, x in queries.items() if key in documents}
    for query, document in excluded.items():
        qrels[query].pop(document, None)
    entries = [*queries.values()], [*documents.values()]
    return assembly.Collection(*entries, qrels, parallel, excluded, (path,))


def _add(
    entries: dict[tuple[str, str], assembly.Entry], kind: str, language: str, text: str
) -> str:
    """Adds a text unless an equal one is there; returns the id."""
    key = language, ' '.join(unicodedata.normalize('NFC', text).split())
    if key not in entries:
        entries[key] = assembly.Entry(f'{kind}:{language}:{len(entries):09}', language, text)
    return entries[key].id


def read_cldr(_name: str, _argument: str, _root: pathlib.Path) -> assembly.Collection:
    """The embedded test groups, 400 questions a language."""
    queries, documents, qrels, parallel = [], [], {}, {}
    for group in synthetic.groups('test', 400):
        grades = {f'd:{language}:{group["id"]}': 1 for language in synthetic.LANGUAGES}
        for language, document in zip(synthetic.LANGUAGES, grades, strict=True):
            query = f'q{document[1:]}'
            queries.append(assembly.Entry(query, language, group['query'][language]))
            documents.append(assembly.Entry(document, language, group['passage'][language]))
            qrels[query], parallel[query] = grades, group['id']
    return assembly.Collection(queries, documents, qrels, parallel)
