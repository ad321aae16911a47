"""Training texts before tokenisation. `cleaning` reports flaws (`checks`: wrong language or length,
texts of benchmarks by `decontamination`) and duplicates (`dedup`), or drops them.
`translation` turns pairs of one language into parallel groups, with the engines of `translators`.
"""

__all__ = ['checks', 'cleaning', 'decontamination', 'dedup', 'translation', 'translators']
