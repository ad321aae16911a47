"""Hybrid batch training of multilingual dual encoders, in JAX."""
