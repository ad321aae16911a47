"""What a search found: as lines for a terminal, and as a TREC run."""

import pathlib
from collections import abc

import numpy as np

from hbt.evaluation import trec
from hbt.serving import dual_encoder
from hbt.utils import text_table


def format_hits(hits: abc.Sequence[dual_encoder.Hit], width: int) -> str:
    """A line for every hit, at most `width` wide: rank, score, language and text."""
    rows = [(i, f'{hit.score:.4f}', hit.language, hit.text) for i, hit in enumerate(hits, 1)]
    lines = text_table.format_table((), [(*x[:3], ' '.join(x[3].split())) for x in rows], None)
    return '\n'.join(text_table.cut_text(line, width) for line in lines.splitlines())


def write_run(
    path: pathlib.Path,
    query_ids: abc.Sequence[str],
    hits_of_queries: abc.Sequence[abc.Sequence[dual_encoder.Hit]],
) -> None:
    """Writes the hits of queries as a TREC run; see `trec.write_run`."""
    ids = list({hit.index: hit.id for hits in hits_of_queries for hit in hits}.items())
    place = {index: i for i, (index, _) in enumerate(ids)}
    top_k = np.full((len(hits_of_queries), max(map(len, hits_of_queries), default=0)), -1, np.int32)
    for row, hits in zip(top_k, hits_of_queries, strict=True):
        row[: len(hits)] = [place[hit.index] for hit in hits]
    trec.write_run(path, query_ids, [id for _, id in ids], top_k, 'hbt')
