"""The formats of MS MARCO, TREC, MIRACL and Mr. TyDi: texts, links and judgements."""

import collections
import functools
import itertools
import pathlib
import re
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
    """Yields texts of `id TAB text`: topics of MIRACL and Mr. TyDi, all texts of MS MARCO.

    A text may be empty, here and in `iter_documents`.
    """
    for where, line in lines:
        key, text = text_lines.split_columns(where, line, ('id', 'text'))
        schema.check_text(key, f'{where}: id')
        yield schema.Text(where, key, text)


def iter_documents(lines: Lines) -> abc.Iterator[schema.Text]:
    """Yields passages, with their title, of MIRACL or Mr. TyDi, also as Pyserini has them."""
    for where, row in schema.iter_objects(lines):
        key, text = parse_document(where, row)
        yield schema.Text(where, key, text)


def parse_document(where: str, row: dict) -> tuple[str, str]:
    """Id and text, with its title, of a passage in a JSON line; the text may be empty."""
    key = row.get('docid', row.get('id', row.get('_id')))
    if key is None or not {'text', 'contents'} & row.keys():
        raise ValueError(f'{where}: expected docid, title and text, got {files.shorten(row)}')
    schema.check_text(key, f'{where}: docid')
    title = schema.get_optional(row, 'title', '', where)
    text = join_title(title, schema.get_text(row, ('text', 'contents'), where)).strip()
    schema.check_unicode(text, where)
    return key, text


def iter_judgements(lines: Lines) -> abc.Iterator[tuple[str, str, str, int]]:
    """Yields (where, query, document, grade) of TREC's qrels, as `parse_judgements`."""
    names = ('query', 'Q0', 'document', 'relevance')
    rows = ((where, *text_lines.split_columns(where, line, names, ' ')) for where, line in lines)
    return parse_judgements((where, query, id, grade) for where, query, _, id, grade in rows)


def parse_judgements(
    rows: abc.Iterable[tuple[str, str, str, str]],
) -> abc.Iterator[tuple[str, str, str, int]]:
    """Yields each (where, query, document, grade) once; a grade of 0 and less is not relevant.

    ValueError for a grade that is no whole number, and where two of a document disagree.
    """
    judged = collections.defaultdict(dict)
    for where, query, document, text in rows:
        grade, first = parse_grade(text, where), judged[query].get(document)
        if first is None:
            judged[query][document] = grade
            yield where, query, document, grade
        elif grade != first:
            expected = f'one grade of {document!r} for the query {query!r}'
            raise ValueError(f'{where}: expected {expected}, got {first} and {grade}')


def join_title(title: str, text: str) -> str:
    """The text of a document that may have a title."""
    return f'{title} {text}' if title else text


def parse_grade(text: str, where: str) -> int:
    """The grade of a judgement, such as 1 or 1.0; ValueError unless it is a whole number."""
    match = re.fullmatch(r'([+-]?[0-9]{1,9})(\.0*)?', text.strip())
    if not match:
        raise ValueError(f'{where}: expected a whole number as grade, got {text[:40]!r}')
    return int(match[1])


def _text_reader(paths: list, iter_texts: abc.Callable, prefix: str) -> schema.BlockReader:
    """The texts of files, with `prefix` before their keys."""
    blocks = functools.partial(text_lines.iter_blocks, paths)
    return schema.BlockReader(blocks, functools.partial(_parse_texts, iter_texts, prefix))


def _parse_texts(iter_texts: abc.Callable, prefix: str, block) -> list[schema.Text]:
    """The texts of a block; nothing can be learnt from empty ones, whose links are left out."""
    texts = iter_texts(block.iter_rows())
    return [x._replace(key=prefix + x.key) for x in texts if x.text.strip()]


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
