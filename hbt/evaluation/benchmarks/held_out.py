"""Retrieval benchmarks as three things: queries, documents, and which documents are relevant.

Hides the order of the ids: documents come by id, descending, so that "the smaller index first" is
trec_eval's rule for equal scores, wherever ties are broken. The formats of the files are in the
modules that it names. Called by `evaluate`, and by whoever wants the TREC files.
"""

import pathlib

from hbt.data.readers import registry, retrieval


def _held_out(kind: str, argument: str, root: pathlib.Path) -> retrieval.Collection:
    """Groups in the training format: a query is answered by the passages of its group.

    Equal texts of a language are one query, or one document, of all the groups that have it.
    """
    del kind
    path = root / argument
    if not path.is_file():
        raise ValueError(f'{path}: expected a JSONL file (plain or .gz), found no such file')
    queries, documents, answers, parallel = {}, {}, {}, {}
    for row in registry.jsonl(str(path)).iter_groups():
        found = {}
        for language, text in row.passage.items():
            key = (language, text)
            found[documents.setdefault(key, f'd:{language}:{len(documents):09}')] = 1
        for language, text in row.query.items():
            query = queries.setdefault((language, text), f'q:{language}:{len(queries):09}')
            answers.setdefault(query, {}).update(found)
            parallel.setdefault(query, row.id)

    def listed(texts: dict[tuple[str, str], str]) -> list[retrieval.Row]:
        return [(id, language, text) for (language, text), id in texts.items()]

    return retrieval.Collection(
        listed(queries), listed(documents), answers, parallel, files=(path,)
    )
