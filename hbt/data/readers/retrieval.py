"""Files of retrieval collections, for training and evaluation: texts, documents, judgements.

Each function turns numbered lines, as `text_lines` yields them, into what they say. The formats are
those of MS MARCO, TREC, MIRACL (arXiv 2210.09984), Mr. TyDi (arXiv 2108.08787) and BEIR.
"""

import typing
from collections import abc

from hbt.data.readers import schema, text_lines
from hbt.utils import files

Lines = abc.Iterable[tuple[str, str]]  # (where, line)


class Judgement(typing.NamedTuple):
    """A line of TREC's qrels."""

    where: str
    query: str
    document: str
    grade: int  # 0 and less: not relevant


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


def iter_judgements(lines: Lines) -> abc.Iterator[Judgement]:
    """Yields the judgements of TREC's qrels: `query Q0 document grade`."""
    names = ('query', 'Q0', 'document', 'relevance')
    for where, line in lines:
        query, _, document, grade = text_lines.split_columns(where, line, names, None)
        yield Judgement(where, query, document, parse_grade(grade, where))


def join_title(title: str, text: str) -> str:
    """The text of a document that may have a title."""
    return f'{title} {text}' if title else text


def parse_grade(text: str, where: str) -> int:
    """The grade of a judgement; ValueError unless it is a whole number."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f'{where}: expected a whole number as grade, got {text!r}') from None
