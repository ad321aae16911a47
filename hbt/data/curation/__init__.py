"""What happens to training texts before tokenisation.

`cleaning` passes over the sources: it reports flaws (`checks`: wrong language or length, texts of
benchmarks by `decontamination`) and duplicates (`dedup`), and drops them if the settings say so.
`translation` turns pairs of one language into parallel groups, with the engines of `translators`.
"""

__all__ = ['checks', 'cleaning', 'decontamination', 'dedup', 'translation', 'translators']
