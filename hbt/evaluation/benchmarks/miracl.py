"""MIRACL (arXiv 2210.09984) and Mr. TyDi (arXiv 2108.08787): questions and Wikipedia passages.

The relevant passages of a question are in its own language, also in a union of languages.
"""

import pathlib
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from hbt.data.readers import retrieval, schema, text_lines
from hbt.evaluation.benchmarks import assembly
from hbt.utils import hub

Roots = list[pathlib.Path]
# Queries, query -> document -> grade, and the files; ids are as in the files.
Queries = tuple[list[schema.Text], dict[str, dict[str, int]], list[pathlib.Path]]


class Layout(NamedTuple):
    """The files, as the hub and the authors lay them out; {} is the name of a language."""

    languages: dict[str, str]  # code -> name in the files
    repositories: dict[str, str]  # data set of the hub -> pattern of the files of a language
    queries: str  # pattern, somewhere under the root
    corpus: str
    read_queries: Callable[[pathlib.Path, Roots], Queries]


def read_wikipedia(name: str, argument: str, root: pathlib.Path) -> assembly.Collection:
    """MIRACL's development or Mr. TyDi's test queries of some languages, or of all that are there.

    The files, named as on the hub, are anywhere under the root or its folder `miracl` or `mr-tydi`.
    """
    layout, languages = LAYOUTS[name], re.findall('[^+]+', argument)
    for language in languages:
        if language not in layout.languages:
            names = ', '.join(layout.languages)
            raise ValueError(f'language: expected one of {names}, got {language!r}')
    roots = [assembly.find_folder(root, name)]
    if str(root) == 'hub':  # of Hugging Face, or its cache
        names = [layout.languages[x] for x in languages or layout.languages]
        roots = [
            hub.dataset_snapshot(repository, tuple(map(pattern.format, names)))
            for repository, pattern in layout.repositories.items()
        ]
    languages = languages or [
        code for code, x in layout.languages.items() if _find(roots, layout.queries.format(x))
    ]
    if not languages:
        path = layout.queries.format('<language>')
        raise ValueError(f'{roots[0]}: {path}: expected at least one, got none')
    return assembly.join_collections([_read_language(layout, roots, x) for x in languages])


def _read_language(layout: Layout, roots: Roots, language: str) -> assembly.Collection:
    """A language's collection; the language is put before ids, as each language numbers its own."""
    name, queries = layout.languages[language], {}
    path = _find_one(roots, layout.queries.format(name))
    texts, qrels, files = layout.read_queries(path, roots)
    for where, key, text in texts:
        if key in queries:
            raise ValueError(f'{where}: expected each query once, got {key!r} again')
        queries[key] = assembly.Entry(f'q:{language}:{key}', language, text, where)
    qrels = {
        f'q:{language}:{key}': {f'd:{language}:{x}': grade for x, grade in grades.items()}
        for key, grades in qrels.items()
    }
    shards = _find_shards(roots, layout.corpus.format(name))
    documents = assembly.Entries(_iter_passages, language, shards)
    return assembly.Collection([*queries.values()], documents, qrels, files=(*files, *shards))


def _read_topics(topics: pathlib.Path, roots: Roots) -> Queries:
    """MIRACL's queries, as `id TAB query`, and their qrels, in a file named alike."""
    path = _find_one(roots, topics.name.replace('topics', 'qrels', 1))
    texts = list(retrieval.iter_tsv_texts(text_lines.iter_rows(topics)))
    qrels = {text.key: {} for text in texts}
    for where, key, document, grade in retrieval.iter_judgements(text_lines.iter_rows(path)):
        if key not in qrels:
            raise ValueError(f'{where}: expected a query of {topics}, got {key!r}')
        qrels[key][document] = grade
    return texts, qrels, [topics, path]


def _read_json_queries(path: pathlib.Path, _roots: Roots) -> Queries:
    """Mr. TyDi's queries, as JSON lines with query_id, query and positive_passages."""
    texts, qrels = [], {}
    for where, row in schema.iter_objects(text_lines.iter_rows(path)):
        key, text = row.get('query_id'), schema.get_text(row, ('query',), where)
        schema.check_text(key, f'{where}: query_id')
        texts.append(schema.Text(where, key, text))
        passages = schema.get_field(row, 'positive_passages', list, where)
        qrels[key] = {schema.get_field(x, 'docid', str, where): 1 for x in passages}
    return texts, qrels, [path]


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


def _iter_passages(language: str, shards: list[pathlib.Path]) -> Iterator[assembly.Entry]:
    text = None
    for text in retrieval.iter_documents(text_lines.iter_rows(*shards)):
        yield assembly.Entry(f'd:{language}:{text.key}', language, text.text, text.where)
    if text is None:
        raise ValueError(f'{shards[0]}: expected passages of {language}, got an empty corpus')


LAYOUTS = {
    'miracl': Layout(
        {x: x for x in 'ar bn de en es fa fi fr hi id ja ko ru sw te th yo zh'.split()},
        {
            'miracl/miracl': 'miracl-v1.0-{}/*-dev.tsv',
            'miracl/miracl-corpus': 'miracl-corpus-v1.0-{}/docs-*',
        },
        'topics.miracl-v1.0-{}-dev.tsv',
        'miracl-corpus-v1.0-{}/docs-*.jsonl*',
        _read_topics,
    ),
    'mr_tydi': Layout(
        dict(ar='arabic', bn='bengali', en='english', fi='finnish', id='indonesian')
        | dict(ja='japanese', ko='korean', ru='russian', sw='swahili', te='telugu', th='thai'),
        {
            'castorini/mr-tydi': 'mrtydi-v1.1-{}/test.jsonl*',
            'castorini/mr-tydi-corpus': 'mrtydi-v1.1-{}/corpus.jsonl*',
        },
        'mrtydi-v1.1-{}/test.jsonl*',
        'mrtydi-v1.1-{}/corpus.jsonl*',
        _read_json_queries,
    ),
}
