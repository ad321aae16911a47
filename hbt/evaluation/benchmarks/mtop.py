"""MTOP (arXiv 2008.09335) as retrieval: utterances of the test split ask for other utterances.

Hides the files `<language>/test.txt`. Two readings of relevance: `translation`, the same utterance
in another language (equal id); `intent`, every utterance of the same intent, in any language. The
utterance that asks is in the corpus and excluded from its own ranking. Called by `benchmarks`.
"""

import collections
import pathlib
import re

from hbt.data.readers import retrieval

COLUMNS = 8  # id, intent, slots, utterance, domain, locale, decoupled parse, tokens
READINGS = {'translation': 0, 'intent': 1}  # -> the column that relevant utterances share


def read(reading: str, languages: list[str], root: pathlib.Path) -> retrieval.Collection:
    """The test split of these languages, or of all that `root` or `root/mtop` has."""
    root = root / 'mtop' if (root / 'mtop').is_dir() else root
    paths = [root / x / 'test.txt' for x in languages] or sorted(root.glob('*/test.txt'))
    if not paths:
        raise ValueError(f'{root}: expected <language>/test.txt, got none')
    queries, documents, parallel, shared = [], [], {}, {}
    for path in paths:
        language = path.parent.name
        if not path.is_file() or not re.fullmatch('[a-z]{2,3}', language):
            raise ValueError(f'{path}: expected a file <language>/test.txt, got none')
        for place, row in retrieval.columns(path, COLUMNS, '\t'):
            key, text = row[0], row[3]
            query = f'q:{language}:{key}'
            if query in parallel:
                raise ValueError(f'{place}: expected each id once, got {key!r} again')
            queries.append((query, language, text))
            documents.append((f'd{query[1:]}', language, text))
            parallel[query], shared[query] = key, row[READINGS[reading]]
    alike = collections.defaultdict(dict)
    for query, value in shared.items():
        alike[value][f'd{query[1:]}'] = 1
    excluded = {query: f'd{query[1:]}' for query in shared}
    qrels = {
        query: {d: 1 for d in alike[value] if d != excluded[query]}
        for query, value in shared.items()
    }
    return retrieval.Collection(queries, documents, qrels, parallel, excluded, tuple(paths))
