"""Collections in the formats of retrieval: MS MARCO, mMARCO, MIRACL, Mr. TyDi.

Hides the files: texts by key in one set of them, which text answers which query in another.
Called by `sources`.
"""

import collections
import functools
import pathlib
from collections import abc

from hbt.data.readers import retrieval, schema, text_lines
from hbt.utils import files, languages


def marco(options: dict[str, str], spec: str) -> schema.CollectionSource:
    """MS MARCO and mMARCO: `queries` and `collection` (id TAB text) and `triples` of ids.

    The ids are the same in all languages; {lang} in a path stands for a code or, as in mMARCO's
    files, an English name. A line of `triples` is a query, its passage and one negative or more.
    """
    files = {
        (side, language): found
        for side, option in (('query', 'queries'), ('passage', 'collection'))
        for language, found in files_by_language(options, option).items()
    }
    triples = text_lines.find_files(options['triples'], 'triples')['']
    sha256, size = text_lines.digest_files(
        [*triples, *(x for found in files.values() for x in found)]
    )
    texts = {
        key: schema.BlockReader(functools.partial(text_lines.iter_blocks, found), read_table)
        for key, found in files.items()
    }
    links = schema.BlockReader(functools.partial(text_lines.iter_blocks, triples), read_triples)
    return schema.CollectionSource(options.get('name', 'marco'), spec, sha256, size, texts, links)


def files_by_language(options: dict[str, str], option: str) -> dict[str, list[pathlib.Path]]:
    """Language -> files of a pattern; without {lang} in it they are in `options['language']`."""
    found = text_lines.find_files(options[option], option)
    if '' in found:
        code = options.get('language', '')
        if not code:
            raise ValueError(
                f'{option}={options[option]}: expected {{lang}} in it, or language=CODE'
            )
        languages.check_language(code, 'language')
        return {code: found['']}
    return found


def read_table(block: text_lines.LineBlock) -> list[schema.Text]:
    texts = []
    for place, line in block.numbered():
        key, text = text_lines.split_columns(place, line, ('id', 'text'))
        schema.check_text(key, f'{place}: id')
        schema.check_text(text, place)
        texts.append(schema.Text(place, key, text))
    return texts


def read_triples(block: text_lines.LineBlock) -> list[schema.Link]:
    links = []
    for place, line in block.numbered():
        fields = line.split('\t')
        if len(fields) < 3 or not all(fields):
            raise ValueError(
                f'{place}: expected ids of a query, a passage and negatives, '
                f'got {files.shorten(line)}'
            )
        links.append(schema.Link(place, fields[0], fields[1], tuple(fields[2:])))
    return links


def trec(options: dict[str, str], spec: str) -> schema.CollectionSource:
    """MIRACL and Mr. TyDi: `topics` (id TAB query), `qrels` of TREC, a `corpus` in JSON lines.

    Every language has documents of its own. A row is a query and a relevant passage; passages
    judged not relevant (0) are its negatives. Only judged passages of the corpus are kept.
    """
    found = {name: files_by_language(options, name) for name in ('topics', 'qrels', 'corpus')}
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
            blocks = functools.partial(text_lines.iter_blocks, files)
            texts[side, language] = schema.BlockReader(blocks, functools.partial(read, language))
            digests += files
    digests += [file for files in found['qrels'].values() for file in files]
    sha256, size = text_lines.digest_files(digests)
    links = schema.BlockReader(functools.partial(judged, found['qrels']), read_judged)
    return schema.CollectionSource(options.get('name', 'trec'), spec, sha256, size, texts, links)


def read_topics(language: str, block: text_lines.LineBlock) -> list[schema.Text]:
    return [x._replace(key=f'{language}/{x.key}') for x in read_table(block)]


def read_corpus(language: str, block: text_lines.LineBlock) -> list[schema.Text]:
    texts = []
    for place, line in block.numbered():
        key, text = retrieval.document(schema.parse_json(line, place), place)
        schema.check_text(text, place)
        texts.append(schema.Text(place, f'{language}/{key}', text))
    return texts


def judged(
    files: dict[str, list[pathlib.Path]],
) -> abc.Iterator[tuple[str, list[text_lines.LineBlock]]]:
    """Each language with all its judgments, as those of one query need not be together."""
    for language, found in files.items():
        yield language, list(text_lines.iter_blocks(found))


def read_judged(block: tuple[str, list[text_lines.LineBlock]]) -> list[schema.Link]:
    language, blocks = block
    good, bad = collections.defaultdict(list), collections.defaultdict(list)
    for place, line in (x for lines in blocks for x in lines.numbered()):
        query, passage, grade = retrieval.judgement(line, place)
        (good if grade > 0 else bad)[query].append((place, f'{language}/{passage}'))
    return [
        schema.Link(place, f'{language}/{query}', passage, tuple(x for _, x in bad[query]))
        for query, passages in good.items()
        for place, passage in passages
    ]
