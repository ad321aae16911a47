"""Questions that the paper leaves open: a sweep and a report each."""
