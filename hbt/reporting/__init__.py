"""From evaluated training runs to a report of tables, significance tests and figures.

`experiments` loads runs and groups those that differ in the seed alone into systems; `comparison`
and `significance` compare systems; `tables`, `breakdowns`, `scaling`, `paper` and `figures` make
the parts of a report, `compose` puts them into sections, and `render` writes these as one page,
Markdown, LaTeX and CSV.
"""

__all__ = ['comparison', 'compose', 'experiments', 'render']
