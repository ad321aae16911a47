"""From evaluated training runs to a report of tables, significance tests and figures.

`experiments` loads runs as systems, which `comparison` compares; `compose` puts the tables and
figures of the other modules into sections, and `render` writes these in every notation.
"""

__all__ = ['comparison', 'compose', 'experiments', 'render']
