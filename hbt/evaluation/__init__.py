"""From a model and a benchmark to metrics, and to results on disk.

`evaluator` embeds the texts of `benchmarks`; `search` ranks the documents, counting on the devices
by `rank_counts`; `metrics` and `bias` score the ranks of every query, which `aggregate` averages;
`results` writes, reads and compares the results, `samples` some embeddings; `result_plots` draws
them by `plots`. `debias` removes language from embeddings, `trec` reads and writes qrels and runs.
"""

__all__ = [
    'benchmarks',
    'bias',
    'debias',
    'evaluator',
    'metrics',
    'plots',
    'result_plots',
    'results',
    'samples',
    'search',
    'trec',
]
