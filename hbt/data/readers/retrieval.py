"""The formats of MS MARCO, TREC, MIRACL and Mr. TyDi: texts, links and judgements."""

import collections
import functools
import itertools
import pathlib
from collections import abc

from hbt.data.readers import schema, source_files, text_lines
from hbt.utils import files

Lines = abc.Iterable[tuple[str, str]]  # (where, line), as `text_lines` yields them


def open_marco(options: dict[str, str], spec: str) -> schema.CollectionSource:
    """MS MARCO and mMARCO: `queries` and `collection` (id TAB text) and `triples` of ids.

    The ids are the same in all languages; {lang} in a path stands for a code or, as in mMARCO's
    files, an English name. A line of `triples` is a query, its passage and one negative or more.
    """
    paths = {
        (side, language): part
        for side, option in (('query', 'queries'), ('passage', 'collection'))
        for language, part in source_files.find_files_by_language(options, option).items()
    }
    triples = source_files.find_files(options, 'triples')
    checksum = source_files.digest_files([*triples, *itertools.chain(*paths.values())])
    texts = {key: _text_reader(part, iter_tsv_texts, '') for key, part in paths.items()}
    blocks = functools.partial(text_lines.iter_blocks, triples)
    links = schema.BlockReader(blocks, _parse_triples)
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
        for option, by_language in (('topics', topics), ('corpus', corpus)):
            if language not in by_language:
                expected = f'files of {language}, as of qrels'
                raise ValueError(f'{option}={options[option]}: expected {expected}')
            paths += by_language[language]
        texts['query', language] = _text_reader(topics[language], iter_tsv_texts, f'{language}/')
        texts['passage', language] = _text_reader(corpus[language], iter_documents, f'{language}/')
    checksum = source_files.digest_files([*paths, *itertools.chain(*qrels.values())])
    links = schema.BlockReader(functools.partial(_judgement_blocks, qrels), _parse_judgements)
    return schema.CollectionSource(options.get('name', 'trec'), spec, *checksum, texts, links)


def iter_tsv_texts(lines: Lines) -> abc.Iterator[schema.Text]:
    """Yields texts of `id TAB text`: topics of MIRACL and Mr. TyDi, all texts of MS MARCO."""
    for where, line in lines:
        key, text = text_lines.split_columns(where, line, ('id', 'text'))
        schema.check_text(key, f'{where}: id')
        schema.check_text(text, where)
        yield schema.Text(where, key, text)


def iter_documents(lines: Lines) -> abc.Iterator[schema.Text]:
    """Yields passages, with their title, of MIRACL or Mr. TyDi, also as Pyserini has them."""
    for where, row in schema.iter_objects(lines):
        key = row.get('docid', row.get('id', row.get('_id')))
        text, title = row.get('text', row.get('contents')), row.get('title') or ''
        if not all(isinstance(x, str) for x in (key, text, title)):
            raise ValueError(f'{where}: expected docid, title and text, got {files.shorten(row)}')
        text = join_title(title, text).strip()
        schema.check_text(key, f'{where}: docid')
        schema.check_text(text, where)
        yield schema.Text(where, key, text)


def iter_judgements(lines: Lines) -> abc.Iterator[tuple[str, str, str, int]]:
    """Yields (where, query, document, grade) of TREC's qrels; 0 and less is not relevant."""
    names = ('query', 'Q0', 'document', 'relevance')
    for where, line in lines:
        query, _, document, grade = text_lines.split_columns(where, line, names, None)
        yield where, query, document, parse_grade(grade, where)


def join_title(title: str, text: str) -> str:
    """The text of a document that may have a title."""
    return f'{title} {text}' if title else text


def parse_grade(text: str, where: str) -> int:
    """The grade of a judgement; ValueError unless it is a whole number."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f'{where}: expected a whole number as grade, got {text!r}') from None


def _text_reader(paths: list, iter_texts: abc.Callable, prefix: str) -> schema.BlockReader:
    """The texts of files, with `prefix` before their keys."""
    blocks = functools.partial(text_lines.iter_blocks, paths)
    return schema.BlockReader(blocks, functools.partial(_parse_texts, iter_texts, prefix))


def _parse_texts(iter_texts: abc.Callable, prefix: str, block) -> list[schema.Text]:
    return [x._replace(key=prefix + x.key) for x in iter_texts(block.iter_rows())]


def _parse_triples(block: text_lines.LineBlock) -> list[schema.Link]:
    links = []
    for where, line in block.iter_rows():
        query, *passages = line.split('\t')
        if len(passages) < 2 or not all((query, *passages)):
            expected = 'ids of a query, a passage and negatives'
            raise ValueError(f'{where}: expected {expected}, got {files.shorten(line)}')
        links.append(schema.Link(where, query, passages[0], tuple(passages[1:])))
    return links


def _judgement_blocks(paths: dict[str, list[pathlib.Path]]) -> abc.Iterator[tuple[str, list]]:
    """Each language with all its judgements, as those of one query need not be together."""
    for language, part in paths.items():
        yield language, list(text_lines.iter_blocks(part))


def _parse_judgements(block: tuple[str, list[text_lines.LineBlock]]) -> list[schema.Link]:
    language, parts = block
    links, negatives = collections.defaultdict(list), collections.defaultdict(tuple)
    lines = (line for part in parts for line in part.iter_rows())
    for where, query, document, grade in iter_judgements(lines):
        key = f'{language}/{document}'
        if grade > 0:
            links[query].append(schema.Link(where, f'{language}/{query}', key, ()))
        else:
            negatives[query] += (key,)
    return [x._replace(negative_keys=negatives[query]) for query in links for x in links[query]]
