"""Groups of the training format as a benchmark: of a file, or the embedded test groups."""

import pathlib

from hbt.data.readers import registry, synthetic
from hbt.evaluation.benchmarks import assembly


def read_groups(_name: str, argument: str, root: pathlib.Path) -> assembly.Collection:
    """Groups of a JSONL file: a query is answered by the passages of its group.

    Equal texts of a language are one query, or one document, of all the groups that have it. A
    query's ranking excludes the document of its own text, as a translation pair has it.
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
        for key in group.passage.items():
            grades[documents.setdefault(key, f'd:{key[0]}:{len(documents):09}')] = 1
        for key in group.query.items():
            query = queries.setdefault(key, f'q:{key[0]}:{len(queries):09}')
            qrels.setdefault(query, {}).update(grades)
            parallel.setdefault(query, group.id)
    excluded = {query: documents[key] for key, query in queries.items() if key in documents}
    for query, document in excluded.items():
        qrels[query].pop(document, None)
    entries = ([assembly.Entry(id, *key) for key, id in x.items()] for x in (queries, documents))
    return assembly.Collection(*entries, qrels, parallel, excluded, (path,))


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
