"""MIRACL (arXiv 2210.09984) and Mr. TyDi (arXiv 2108.08787): questions and Wikipedia passages.

The files are as the hub and the authors lay them out: topics, judgements and a corpus of gzipped
shards for every language. Each question is asked of the corpus of its own language; the union of
several languages is the multilingual setting.
"""

import pathlib
import re
from collections.abc import Iterator

from hbt.data.readers import retrieval, schema, text_lines
from hbt.evaluation.benchmarks import collection
from hbt.utils import hub

HUB = 'hub'  # as root: the data sets of HUB_FILES, from the Hugging Face hub or its cache
HUB_FILES = {  # benchmark -> data sets of the hub, and the files of a language
    'miracl': (
        ('miracl/miracl', 'miracl-v1.0-{}/*-dev.tsv'),
        ('miracl/miracl-corpus', 'miracl-corpus-v1.0-{}/docs-*'),
    ),
    'mr_tydi': (
        ('castorini/mr-tydi', 'mrtydi-v1.1-{}/test.jsonl*'),
        ('castorini/mr-tydi-corpus', 'mrtydi-v1.1-{}/corpus.jsonl*'),
    ),
}
LANGUAGES = {  # benchmark -> language -> its name in the files
    'miracl': {x: x for x in 'ar bn de en es fa fi fr hi id ja ko ru sw te th yo zh'.split()},
    'mr_tydi': {
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
    },
}
Roots = tuple[pathlib.Path, ...]


def read_miracl(name: str, argument: str, root: pathlib.Path) -> collection.Collection:
    """MIRACL's development queries of some languages, or of all that there are topics of.

    Somewhere under the root: `topics.miracl-v1.0-<language>-dev.tsv` (id, query), `qrels...` of
    the same ending (id, Q0, document, grade) and `miracl-corpus-v1.0-<language>/docs-<n>.jsonl.gz`
    (docid, title, text): the layout of `miracl/miracl` and `miracl/miracl-corpus` on the hub.
    """
    form, parts = 'topics.miracl-v1.0-{}-dev.tsv', []
    roots, languages = _locate(name, argument, root, form)
    for language in languages:
        topics = _find_one(roots, form.format(language))
        qrels = _find_one(roots, f'qrels.miracl-v1.0-{language}-dev.tsv')
        shards = _find_shards(roots, f'miracl-corpus-v1.0-{language}/docs-*.jsonl*')
        queries = {}
        for where, key, text in retrieval.iter_tsv_texts(text_lines.iter_rows(topics)):
            _check_new(key, queries, where)
            queries[key] = text
        grades = {key: {} for key in queries}
        for judgement in retrieval.iter_judgements(text_lines.iter_rows(qrels)):
            if judgement.query not in queries:
                raise ValueError(
                    f'{judgement.where}: expected a query of {topics}, got {judgement.query!r}'
                )
            grades[judgement.query][judgement.document] = judgement.grade
        parts.append(_make_collection(language, queries, grades, shards, (topics, qrels)))
    return collection.join_collections(parts)


def read_mr_tydi(name: str, argument: str, root: pathlib.Path) -> collection.Collection:
    """Mr. TyDi's test queries of some languages, or of all that there are.

    Somewhere under the root: `mrtydi-v1.1-<language's name>/test.jsonl.gz` (query_id, query,
    positive_passages) and `.../corpus.jsonl.gz` (docid, title, text): the layout of
    `castorini/mr-tydi` and `castorini/mr-tydi-corpus` on the hub.
    """
    form, parts = 'mrtydi-v1.1-{}/test.jsonl*', []
    roots, languages = _locate(name, argument, root, form)
    for language in languages:
        folder = LANGUAGES[name][language]
        path = _find_one(roots, form.format(folder))
        shards = _find_shards(roots, f'mrtydi-v1.1-{folder}/corpus.jsonl*')
        queries, grades = {}, {}
        for where, row in schema.iter_objects(text_lines.iter_rows(path)):
            key = schema.get_field(row, 'query_id', str, where)
            _check_new(key, queries, where)
            queries[key] = schema.get_field(row, 'query', str, where)
            passages = schema.get_field(row, 'positive_passages', list, where)
            grades[key] = {schema.get_field(x, 'docid', str, where): 1 for x in passages}
        parts.append(_make_collection(language, queries, grades, shards, (path,)))
    return collection.join_collections(parts)


def _locate(name: str, argument: str, root: pathlib.Path, form: str) -> tuple[Roots, list[str]]:
    """The folders that hold the files, and the languages to read: all with a file of this form."""
    known, languages = LANGUAGES[name], collection.split_languages(argument)
    for language in languages:
        if language not in known:
            raise ValueError(f'language: expected one of {", ".join(known)}, got {language!r}')
    if str(root) == HUB:
        folders = [known[x] for x in languages or known]
        roots = tuple(
            hub.dataset_snapshot(repository, tuple(pattern.format(x) for x in folders))
            for repository, pattern in HUB_FILES[name]
        )
    else:
        roots = (collection.find_folder(root, name),)
    languages = languages or [x for x in known if _find(roots, form.format(known[x]))]
    if not languages:
        path = form.format('<language>')
        raise ValueError(f'{roots[0]}: {path}: expected at least one, got none')
    return roots, languages


def _find(roots: Roots, pattern: str) -> list[pathlib.Path]:
    return sorted(path for root in roots for path in root.rglob(pattern))


def _find_one(roots: Roots, pattern: str) -> pathlib.Path:
    paths = _find(roots, pattern)
    if len(paths) != 1:
        shown = ', '.join(map(str, paths)) or 'none'
        raise ValueError(f'{roots[0]}: expected one file {pattern} somewhere in it, got {shown}')
    return paths[0]


def _find_shards(roots: Roots, pattern: str) -> list[pathlib.Path]:
    """The files of a corpus, by number."""
    paths = _find(roots, pattern)
    if not paths:
        raise ValueError(f'{roots[0]}: expected the corpus {pattern} somewhere in it, got none')
    if len({path.parent for path in paths}) > 1:
        raise ValueError(f'{roots[0]}: expected one folder {pattern}, got {paths[0]}, {paths[-1]}')
    return sorted(paths, key=lambda path: int(''.join(re.findall(r'\d+', path.name)) or 0))


def _check_new(key: str, queries: dict[str, str], where: str) -> None:
    if key in queries:
        raise ValueError(f'{where}: expected each query once, got {key!r} again')


def _make_collection(
    language: str,
    queries: dict[str, str],
    grades: dict[str, dict[str, int]],
    shards: list[pathlib.Path],
    paths: Roots,
) -> collection.Collection:
    """The collection of a language, which is put before the ids: each language numbers its own."""
    return collection.Collection(
        [collection.Entry(f'q:{language}:{x}', language, text) for x, text in queries.items()],
        _iter_passages(language, shards),
        {
            f'q:{language}:{query}': {f'd:{language}:{x}': grade for x, grade in judged.items()}
            for query, judged in grades.items()
        },
        files=(*paths, *shards),
    )


def _iter_passages(language: str, shards: list[pathlib.Path]) -> Iterator[collection.Entry]:
    count = 0
    for text in retrieval.iter_documents(text_lines.iter_rows(*shards)):
        yield collection.Entry(f'd:{language}:{text.key}', language, text.text)
        count += 1
    if not count:
        raise ValueError(f'{shards[0]}: expected passages of {language}, got an empty corpus')
