"""Retrieval benchmarks: queries, documents, and which documents are relevant to which query.

`load_benchmark` reads one by name. Each format has a module; `assembly` puts what a reader gives
into the order in which trec_eval breaks ties.
"""

from hbt.evaluation.benchmarks.assembly import Benchmark, TextColumns, assemble
from hbt.evaluation.benchmarks.registry import (
    BENCHMARKS,
    load_benchmark,
    texts_to_decontaminate,
)

__all__ = [
    'BENCHMARKS',
    'Benchmark',
    'TextColumns',
    'assemble',
    'load_benchmark',
    'texts_to_decontaminate',
]
