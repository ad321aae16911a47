"""Sources whose texts and links are in files of their own: MS MARCO, mMARCO, MIRACL, Mr. TyDi."""

import collections
import functools
import pathlib
from collections import abc

from hbt.data.readers import retrieval, schema, source_files, text_lines
from hbt.utils import files


def open_marco(options: dict[str, str], spec: str) -> schema.CollectionSource:
    """MS MARCO and mMARCO: `queries` and `collection` (id TAB text) and `triples` of ids.

    The ids are the same in all languages; {lang} in a path stands for a code or, as in mMARCO's
    files, an English name. A line of `triples` is a query, its passage and one negative or more.
    """
    paths = {
        (side, language): paths
        for side, option in (('query', 'queries'), ('passage', 'collection'))
        for language, paths in source_files.find_files_by_language(options, option).items()
    }
    triples = source_files.find_files(options, 'triples')
    checksum = source_files.digest_files([*triples, *(x for part in paths.values() for x in part)])
    parse = functools.partial(_parse_texts, retrieval.iter_tsv_texts, '')
    texts = {key: _line_reader(part, parse) for key, part in paths.items()}
    links = _line_reader(triples, _parse_triples)
    return schema.CollectionSource(options.get('name', 'marco'), spec, *checksum, texts, links)


def open_trec(options: dict[str, str], spec: str) -> schema.CollectionSource:
    """MIRACL and Mr. TyDi: `topics` (id TAB query), `qrels` of TREC, a `corpus` in JSON lines.

    Every language has documents of its own. A group is a query and a relevant passage; passages
    judged not relevant (0) are its negatives. Only judged passages of the corpus are kept.
    """
    topics, qrels, corpus = (
        source_files.find_files_by_language(options, x) for x in ('topics', 'qrels', 'corpus')
    )
    texts, paths = {}, []
    for language in qrels:
        for side, option, by_language, iter_texts in (
            ('query', 'topics', topics, retrieval.iter_tsv_texts),
            ('passage', 'corpus', corpus, retrieval.iter_documents),
        ):
            if language not in by_language:
                raise ValueError(
                    f'{option}={options[option]}: expected files of {language}, as of qrels'
                )
            parse = functools.partial(_parse_texts, iter_texts, f'{language}/')
            texts[side, language] = _line_reader(by_language[language], parse)
            paths += by_language[language]
    checksum = source_files.digest_files([*paths, *(x for part in qrels.values() for x in part)])
    blocks = functools.partial(_judgement_blocks, qrels)
    links = schema.BlockReader(blocks, _parse_judgements)
    return schema.CollectionSource(options.get('name', 'trec'), spec, *checksum, texts, links)


def _line_reader(paths: list[pathlib.Path], parse: abc.Callable) -> schema.BlockReader:
    return schema.BlockReader(functools.partial(text_lines.iter_blocks, paths), parse)


def _parse_texts(
    iter_texts: abc.Callable, prefix: str, block: text_lines.LineBlock
) -> list[schema.Text]:
    return [x._replace(key=prefix + x.key) for x in iter_texts(block.iter_rows())]


def _parse_triples(block: text_lines.LineBlock) -> list[schema.Link]:
    links = []
    for where, line in block.iter_rows():
        fields = line.split('\t')
        if len(fields) < 3 or not all(fields):
            raise ValueError(
                f'{where}: expected ids of a query, a passage and negatives, '
                f'got {files.shorten(line)}'
            )
        links.append(schema.Link(where, fields[0], fields[1], tuple(fields[2:])))
    return links


def _judgement_blocks(
    paths: dict[str, list[pathlib.Path]],
) -> abc.Iterator[tuple[str, list[text_lines.LineBlock]]]:
    """Each language with all its judgements, as those of one query need not be together."""
    for language, part in paths.items():
        yield language, list(text_lines.iter_blocks(part))


def _parse_judgements(block: tuple[str, list[text_lines.LineBlock]]) -> list[schema.Link]:
    language, parts = block
    relevant, negatives = collections.defaultdict(list), collections.defaultdict(list)
    for judgement in retrieval.iter_judgements(row for part in parts for row in part.iter_rows()):
        if judgement.grade > 0:
            relevant[judgement.query].append(judgement)
        else:
            negatives[judgement.query].append(f'{language}/{judgement.document}')
    return [
        schema.Link(
            judgement.where,
            f'{language}/{query}',
            f'{language}/{judgement.document}',
            tuple(negatives[query]),
        )
        for query, judgements in relevant.items()
        for judgement in judgements
    ]
