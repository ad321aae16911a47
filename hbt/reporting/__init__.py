"""From evaluated training runs to tables, significance tests, figures and a page."""
