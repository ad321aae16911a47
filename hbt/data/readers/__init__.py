"""Readers of the formats that training data comes in; each yields groups, or texts and links.

`registry.open_sources` opens inputs such as `faq.jsonl` or `squad:files=xquad.{lang}.json`;
`schema` has the types. Benchmarks are read with `retrieval`, `squad` and `text_lines`, too.
"""

__all__ = ['registry', 'retrieval', 'schema', 'squad', 'synthetic', 'text_lines']
