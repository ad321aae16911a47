"""A benchmark in the layout of BEIR (arXiv 2104.08663): corpus.jsonl, queries.jsonl, qrels/.

Hides the files, plain or gzip. The language of a line is its field `language` or `lang`; else that
of the folder, where the root holds one such folder a language. Called by `benchmarks`.
"""

import pathlib
from collections.abc import Iterator

from hbt.data.readers import retrieval

SPLITS = ('test', 'dev', 'validation')


def read(roots: tuple[pathlib.Path, ...]) -> retrieval.Collection:
    """The folder, or its folders by language. Only judged queries are asked.

    The hub keeps the judgements of a set in another one, whose folder is then the second root.

    As in BEIR, a document whose id is the query's is excluded from that query's ranking.
    """
    root = roots[0]
    if _find(root, 'corpus.jsonl'):
        return _read(roots, 'und', '')
    folders = [x for x in sorted(root.glob('*')) if x.is_dir() and _find(x, 'corpus.jsonl')]
    if not folders:
        raise ValueError(
            f'{root}: expected corpus.jsonl, queries.jsonl and qrels/test.tsv, '
            'or folders by language that hold them, got none'
        )
    parts = [_read((folder,), folder.name, f'{folder.name}:') for folder in folders]
    return retrieval.Collection(
        [row for part in parts for row in part.queries],
        (row for part in parts for row in part.documents),
        {key: value for part in parts for key, value in part.qrels.items()},
        excluded={key: value for part in parts for key, value in part.excluded.items()},
        files=tuple(file for part in parts for file in part.files),
    )


def _read(roots, language: str, prefix: str) -> retrieval.Collection:
    root = roots[0]
    names = {x: _find(root, f'{x}.jsonl') for x in ('corpus', 'queries')}
    places = [(roots[-1], form.format(s)) for s in SPLITS for form in ('qrels/{}.tsv', '{}.tsv')]
    names['qrels'] = next((x for place in places if (x := _find(*place))), None)
    for name, path in names.items():
        if path is None:
            form = 'qrels/test.tsv' if name == 'qrels' else f'{name}.jsonl'
            raise ValueError(f'{root}: expected {form}, got none')
    qrels = {}
    for number, (place, (query, document, grade)) in enumerate(
        retrieval.columns(names['qrels'], 3, '\t')
    ):
        if number or grade.lstrip('-').isdigit():  # the first line is a header, or is not
            found = qrels.setdefault(f'q:{prefix}{query}', {})
            found[f'd:{prefix}{document}'] = retrieval.grade(grade, place)
    documents = _texts(names['corpus'], f'd:{prefix}', language)
    every = _texts(names['queries'], f'q:{prefix}', language)
    queries = [row for row in every if row[0] in qrels]
    strange = qrels.keys() - {row[0] for row in queries}
    if strange:
        raise ValueError(
            f'{names["qrels"]}: expected queries of {names["queries"]}, '
            f'got {len(strange)} others, such as {min(strange)[2 + len(prefix) :]!r}'
        )
    same = {query: f'd{query[1:]}' for query in qrels}
    for query, document in same.items():
        qrels[query].pop(document, None)
    return retrieval.Collection(
        queries, documents, qrels, excluded=same, files=tuple(names.values())
    )


def _find(root: pathlib.Path, name: str) -> pathlib.Path | None:
    return next((x for x in (root / name, root / f'{name}.gz') if x.is_file()), None)


def _texts(path: pathlib.Path, prefix: str, language: str) -> Iterator[retrieval.Row]:
    for place, row in retrieval.objects(path):
        text = retrieval.field(row, 'text', str, place)
        own = row.get('language') or row.get('lang') or language
        key = f'{prefix}{retrieval.field(row, "_id", str, place)}'
        yield key, own, retrieval.passage(row.get('title') or '', text)
