"""A benchmark as its files hold it, before documents are ordered and numbered."""

import pathlib
from collections.abc import Iterable
from typing import NamedTuple


class Entry(NamedTuple):
    """A query or a document; ids are unique among each."""

    id: str
    language: str
    text: str


class Collection(NamedTuple):
    """Queries, documents, and which of these are relevant.

    Documents are iterated over once, as they may be more than memory holds.
    """

    queries: list[Entry]
    documents: Iterable[Entry]
    qrels: dict[str, dict[str, int]]  # query -> document -> grade; 0 and less: not relevant
    parallel: dict[str, str] = {}  # query -> a key that its translations share
    excluded: dict[str, str] = {}  # query -> the document that is the query itself
    files: tuple[pathlib.Path, ...] = ()


def join_collections(parts: list[Collection]) -> Collection:
    """The queries of all parts, asked of the documents of all parts."""
    return Collection(
        [query for part in parts for query in part.queries],
        (document for part in parts for document in part.documents),
        {query: grades for part in parts for query, grades in part.qrels.items()},
        {query: key for part in parts for query, key in part.parallel.items()},
        {query: document for part in parts for query, document in part.excluded.items()},
        tuple(file for part in parts for file in part.files),
    )


def find_folder(root: pathlib.Path, name: str) -> pathlib.Path:
    """`root/NAME`, with - for _, where that is a folder, else `root`."""
    folder = root / name.replace('_', '-')
    return folder if folder.is_dir() else root


def split_languages(argument: str) -> list[str]:
    """The languages of an argument such as `sw+yo`; none of an empty one."""
    return [x for x in argument.split('+') if x]
