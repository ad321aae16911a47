"""Retrieval benchmarks: queries, documents, and which documents are relevant to which query.

`load_benchmark` reads one by name: the module of its format reads its files into a `Collection`,
of which `assemble` makes a `Benchmark`.
"""

from hbt.evaluation.benchmarks.assembly import (
    MISSING,
    Benchmark,
    Collection,
    Entry,
    TextColumns,
    assemble,
)
from hbt.evaluation.benchmarks.registry import load_benchmark, texts_to_decontaminate

__all__ = [
    'MISSING',
    'Benchmark',
    'Collection',
    'Entry',
    'TextColumns',
    'assemble',
    'load_benchmark',
    'texts_to_decontaminate',
]
