"""MTOP (arXiv 2008.09335) as retrieval: each utterance of the test split searches for the others.

Relevant are its translations (equal id), or all utterances of its intent in any language.
"""

import collections
import pathlib
import re

from hbt.data.readers import schema, text_lines
from hbt.evaluation.benchmarks import assembly

COLUMNS = 'id', 'intent', 'slots', 'utterance', 'domain', 'locale', 'decoupled parse', 'tokens'
SHARED_COLUMN = {'mtop_translation': 'id', 'mtop_intent': 'intent'}  # of relevant utterances


def read_mtop(name: str, argument: str, root: pathlib.Path) -> assembly.Collection:
    """The `<language>/test.txt` of some languages, or of all that `root` or `root/mtop` has."""
    root, languages = assembly.find_folder(root, 'mtop'), re.findall('[^+]+', argument)
    paths = [root / x / 'test.txt' for x in languages] or sorted(root.glob('*/test.txt'))
    if not paths:
        raise ValueError(f'{root}: expected <language>/test.txt, got none')
    queries, documents, parallel, excluded, relevant = [], [], {}, {}, {}
    by_value = collections.defaultdict(list)  # value of the shared column -> documents
    for path in paths:
        language = path.parent.name
        if not path.is_file() or not re.fullmatch('[a-z]{2,3}', language):
            raise ValueError(f'{path}: expected a file <language>/test.txt, got none')
        for where, line in text_lines.iter_rows(path):
            row = dict(zip(COLUMNS, text_lines.split_columns(where, line, COLUMNS), strict=True))
            schema.check_text(row['id'], f'{where}: id')
            query, document = (f'{kind}:{language}:{row["id"]}' for kind in 'qd')
            if query in parallel:
                raise ValueError(f'{where}: expected each id once, got {row["id"]!r} again')
            queries.append(assembly.Entry(query, language, row['utterance'], where))
            documents.append(assembly.Entry(document, language, row['utterance'], where))
            parallel[query], excluded[query] = row['id'], document
            relevant[query] = by_value[row[SHARED_COLUMN[name]]]
            relevant[query].append(document)
    qrels = {query: {x: 1 for x in relevant[query] if x != excluded[query]} for query in relevant}
    return assembly.Collection(queries, documents, qrels, parallel, excluded, tuple(paths))
