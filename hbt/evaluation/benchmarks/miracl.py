"""MIRACL (arXiv 2210.09984) and Mr. TyDi (arXiv 2108.08787): questions and Wikipedia passages.

Hides their files, as the hub and the authors lay them out: topics, judgements and a corpus of
gzipped shards for every language. Each question is asked of the corpus of its own language; the
pool of several languages is the multilingual setting. Called by `benchmarks`.
"""

import pathlib
import re
from collections.abc import Iterator

from hbt.data.readers import retrieval

Roots = tuple[pathlib.Path, ...]
LANGUAGES = 'ar bn de en es fa fi fr hi id ja ko ru sw te th yo zh'.split()
TYDI = {
    'ar': 'arabic',
    'bn': 'bengali',
    'en': 'english',
    'fi': 'finnish',
    'id': 'indonesian',
    'ja': 'japanese',
    'ko': 'korean',
    'ru': 'russian',
    'sw': 'swahili',
    'te': 'telugu',
    'th': 'thai',
}


def read(languages: list[str], roots: Roots) -> retrieval.Collection:
    """MIRACL's development queries of these languages, or of all that there are topics of.

    Somewhere under the roots: `topics.miracl-v1.0-<language>-dev.tsv` (id, query), `qrels...` of
    the same ending (id, Q0, document, grade) and `miracl-corpus-v1.0-<language>/docs-<n>.jsonl.gz`
    (docid, title, text): the layout of `miracl/miracl` and `miracl/miracl-corpus` on the hub.
    """
    languages = languages or [
        x for x in LANGUAGES if _find(roots, f'topics.miracl-v1.0-{x}-dev.tsv')
    ]
    check(languages, LANGUAGES, f'{roots[0]}: topics.miracl-v1.0-<language>-dev.tsv')
    parts = []
    for language in languages:
        ending = f'miracl-v1.0-{language}-dev.tsv'
        topics, qrels = (_one(roots, f'{kind}.{ending}') for kind in ('topics', 'qrels'))
        shards = _corpus(roots, f'miracl-corpus-v1.0-{language}/docs-*.jsonl*')
        queries = {}
        for place, (key, text) in retrieval.columns(topics, 2, '\t'):
            if key in queries:
                raise ValueError(f'{place}: expected each query once, got {key!r} again')
            queries[key] = text
        grades = {key: {} for key in queries}
        for place, line in retrieval.lines(qrels):
            key, document, grade = retrieval.judgement(line, place)
            if key not in queries:
                raise ValueError(f'{place}: expected a query of {topics}, got {key!r}')
            grades[key][document] = grade
        parts.append(_language(language, queries, grades, shards, (topics, qrels)))
    return _joined(parts)


def read_tydi(languages: list[str], roots: Roots) -> retrieval.Collection:
    """Mr. TyDi's test queries of these languages, or of all that there are.

    Somewhere under the roots: `mrtydi-v1.1-<language's name>/test.jsonl.gz` (query_id, query,
    positive_passages) and `.../corpus.jsonl.gz` (docid, title, text): the layout of
    `castorini/mr-tydi` and `castorini/mr-tydi-corpus` on the hub.
    """
    form = 'mrtydi-v1.1-{}/test.jsonl*'
    languages = languages or [x for x, name in TYDI.items() if _find(roots, form.format(name))]
    check(languages, TYDI, f'{roots[0]}: mrtydi-v1.1-<language>/test.jsonl.gz')
    parts = []
    for language in languages:
        file = _one(roots, form.format(TYDI[language]))
        queries, grades = {}, {}
        for place, row in retrieval.objects(file):
            key = retrieval.field(row, 'query_id', str, place)
            if key in queries:
                raise ValueError(f'{place}: expected each query once, got {key!r} again')
            queries[key] = retrieval.field(row, 'query', str, place)
            passages = retrieval.field(row, 'positive_passages', list, place)
            grades[key] = {retrieval.field(x, 'docid', str, place): 1 for x in passages}
        shards = _corpus(roots, f'mrtydi-v1.1-{TYDI[language]}/corpus.jsonl*')
        parts.append(_language(language, queries, grades, shards, (file,)))
    return _joined(parts)


def _find(roots: Roots, pattern: str) -> list[pathlib.Path]:
    return sorted(path for root in roots for path in root.rglob(pattern))


def check(languages, known, wanted: str) -> None:
    """ValueError where no language is wanted, or one that is not known."""
    if not languages:
        raise ValueError(f'{wanted}: expected at least one, got none')
    for language in languages:
        if language not in known:
            raise ValueError(f'language: expected one of {", ".join(known)}, got {language!r}')


def _one(roots: Roots, pattern: str) -> pathlib.Path:
    found = _find(roots, pattern)
    if len(found) != 1:
        shown = ', '.join(map(str, found)) or 'none'
        raise ValueError(f'{roots[0]}: expected one file {pattern} somewhere in it, got {shown}')
    return found[0]


def _corpus(roots: Roots, pattern: str) -> list[pathlib.Path]:
    found = _find(roots, pattern)
    if not found:
        raise ValueError(f'{roots[0]}: expected the corpus {pattern} somewhere in it, got none')
    if len({path.parent for path in found}) > 1:
        raise ValueError(f'{roots[0]}: expected one folder {pattern}, got {found[0]}, {found[-1]}')
    return sorted(found, key=lambda path: int(''.join(re.findall(r'\d+', path.name)) or 0))


def _language(language, queries, grades, shards, files) -> retrieval.Collection:
    """Ids get the language in front, since each language numbers its own."""
    return retrieval.Collection(
        [(f'q:{language}:{key}', language, text) for key, text in queries.items()],
        _passages(language, shards),
        {
            f'q:{language}:{key}': {f'd:{language}:{d}': g for d, g in found.items()}
            for key, found in grades.items()
        },
        files=(*files, *shards),
    )


def _passages(language: str, shards: list[pathlib.Path]) -> Iterator[retrieval.Row]:
    found = False
    for shard in shards:
        for place, row in retrieval.objects(shard):
            key, text = retrieval.document(row, place)
            yield f'd:{language}:{key}', language, text
            found = True
    if not found:
        raise ValueError(f'{shards[0]}: expected passages of {language}, got an empty corpus')


def _joined(parts: list[retrieval.Collection]) -> retrieval.Collection:
    return retrieval.Collection(
        [row for part in parts for row in part.queries],
        (row for part in parts for row in part.documents),
        {query: found for part in parts for query, found in part.qrels.items()},
        files=tuple(file for part in parts for file in part.files),
    )
