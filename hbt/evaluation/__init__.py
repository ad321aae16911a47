"""Benchmarks, exact search, metrics, language bias, and results on disk."""
