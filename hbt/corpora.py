"""Collections in the formats of retrieval: MS MARCO, mMARCO, MIRACL, Mr. TyDi.

Hides the files: texts by key in one set of them, which text answers which query in another.
Called by `sources`.
"""

import collections
import functools
import pathlib
from collections import abc

from hbt import collection, rows


def marco(options: dict[str, str], spec: str) -> rows.Collection:
    """MS MARCO and mMARCO: `queries` and `collection` (id TAB text) and `triples` of ids.

    The ids are the same in all languages; {lang} in a path stands for a code or, as in mMARCO's
    files, an English name. A line of `triples` is a query, its passage and one negative or more.
    """
    files = {
        (side, language): found
        for side, option in (('query', 'queries'), ('passage', 'collection'))
        for language, found in languages(options, option).items()
    }
    triples = rows.find(options['triples'], 'triples')['']
    sha256, size = rows.digest([*triples, *(x for found in files.values() for x in found)])
    texts = {
        key: rows.Part(functools.partial(rows.lines, found), read_table)
        for key, found in files.items()
    }
    links = rows.Part(functools.partial(rows.lines, triples), read_triples)
    return rows.Collection(options.get('name', 'marco'), spec, sha256, size, texts, links)


def languages(options: dict[str, str], option: str) -> dict[str, list[pathlib.Path]]:
    """Language -> files of a pattern; without {lang} in it they are in `options['language']`."""
    found = rows.find(options[option], option)
    if '' in found:
        code = options.get('language', '')
        if not code:
            raise ValueError(
                f'{option}={options[option]}: expected {{lang}} in it, or language=CODE'
            )
        rows.check_language(code, 'language')
        return {code: found['']}
    return found


def read_table(block: rows.Lines) -> list[rows.Text]:
    texts = []
    for place, line in block.numbered():
        key, text = rows.columns(place, line, ('id', 'text'))
        rows.check_text(key, f'{place}: id')
        rows.check_text(text, place)
        texts.append(rows.Text(place, key, text))
    return texts


def read_triples(block: rows.Lines) -> list[rows.Link]:
    links = []
    for place, line in block.numbered():
        fields = line.split('\t')
        if len(fields) < 3 or not all(fields):
            raise ValueError(
                f'{place}: expected ids of a query, a passage and negatives, got {rows.shown(line)}'
            )
        links.append(rows.Link(place, fields[0], fields[1], tuple(fields[2:])))
    return links


def trec(options: dict[str, str], spec: str) -> rows.Collection:
    """MIRACL and Mr. TyDi: `topics` (id TAB query), `qrels` of TREC, a `corpus` in JSON lines.

    Every language has documents of its own. A row is a query and a relevant passage; passages
    judged not relevant (0) are its negatives. Only judged passages of the corpus are kept.
    """
    found = {name: languages(options, name) for name in ('topics', 'qrels', 'corpus')}
    for name in ('topics', 'corpus'):
        for language in found['qrels']:
            if language not in found[name]:
                raise ValueError(
                    f'{name}={options[name]}: expected files of {language}, as of qrels'
                )
    texts, size, digests = {}, 0, []
    for language in found['qrels']:
        for side, name, read in (
            ('query', 'topics', read_topics),
            ('passage', 'corpus', read_corpus),
        ):
            files = found[name][language]
            blocks = functools.partial(rows.lines, files)
            texts[side, language] = rows.Part(blocks, functools.partial(read, language))
            digests += files
    digests += [file for files in found['qrels'].values() for file in files]
    sha256, size = rows.digest(digests)
    links = rows.Part(functools.partial(judged, found['qrels']), read_judged)
    return rows.Collection(options.get('name', 'trec'), spec, sha256, size, texts, links)


def read_topics(language: str, block: rows.Lines) -> list[rows.Text]:
    return [x._replace(key=f'{language}/{x.key}') for x in read_table(block)]


def read_corpus(language: str, block: rows.Lines) -> list[rows.Text]:
    texts = []
    for place, line in block.numbered():
        key, text = collection.document(rows.parse_json(line, place), place)
        rows.check_text(text, place)
        texts.append(rows.Text(place, f'{language}/{key}', text))
    return texts


def judged(files: dict[str, list[pathlib.Path]]) -> abc.Iterator[tuple[str, list[rows.Lines]]]:
    """Each language with all its judgments, as those of one query need not be together."""
    for language, found in files.items():
        yield language, list(rows.lines(found))


def read_judged(block: tuple[str, list[rows.Lines]]) -> list[rows.Link]:
    language, blocks = block
    good, bad = collections.defaultdict(list), collections.defaultdict(list)
    for place, line in (x for lines in blocks for x in lines.numbered()):
        query, passage, grade = collection.judgement(line, place)
        (good if grade > 0 else bad)[query].append((place, f'{language}/{passage}'))
    return [
        rows.Link(place, f'{language}/{query}', passage, tuple(x for _, x in bad[query]))
        for query, passages in good.items()
        for place, passage in passages
    ]
