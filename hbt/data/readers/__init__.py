"""Readers of the formats of training data, some shared with the benchmarks; `schema` has the types.

`registry.open_sources` opens inputs such as `faq.jsonl` or `squad:files=xquad.{lang}.json`.
"""

__all__ = ['registry', 'retrieval', 'schema', 'squad', 'synthetic', 'text_lines']
