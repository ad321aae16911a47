"""Tables and figures as LaTeX, for packages booktabs, graphicx and adjustbox.

Hides escapes and floats. Called by `report`.
"""

import re

from hbt import document

PREAMBLE = r"""\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage[margin=2cm]{geometry}
\usepackage{booktabs,graphicx}
\usepackage[export]{adjustbox}
\begin{document}
"""
END_DOCUMENT = '\\end{document}\n'
FIT = r'max width=\textwidth,max totalheight=0.85\textheight'
END = r'\end{adjustbox}'
TEX = {
    **{x: '\\' + x for x in '&%$#_{}'},
    '\\': r'\textbackslash{}',
    '~': r'\textasciitilde{}',
    '^': r'\textasciicircum{}',
    '<': r'$<$',
    '>': r'$>$',
    '±': r'$\pm$',
    'α': r'$\alpha$',
    '×': r'$\times$',
    '−': r'$-$',
}


def table(part: document.Table) -> str:
    """A float, as wide as the text at most."""
    kinds = ''.join('l' if c.form == 'text' else 'r' for c in part.columns)
    lines = [*_headings(part), _row(_tex(c.name) for c in part.columns) + r' \midrule']
    for i, row in enumerate(document.texts(part)):
        cells = [_tex(x) for x in row]
        lines.append(
            _row(rf'\textbf{{{x}}}' if (i, j) in part.strong else x for j, x in enumerate(cells))
        )
    tabular = '\n'.join(
        [rf'\begin{{tabular}}{{{kinds}}}', r'\toprule', *lines, r'\bottomrule', r'\end{tabular}']
    )
    return _float('table', rf'\begin{{adjustbox}}{{{FIT}}}' + f'\n{tabular}\n' + END, part)


def figure(part: document.Figure) -> str:
    """A float with figures/NAME.pdf."""
    return _float('figure', rf'\includegraphics[{FIT}]{{figures/{part.name}.pdf}}', part)


def section(title: str, text: str) -> str:
    return rf'\section{{{_tex(title)}}}' + f'\n{_tex(text)}\n'


def _headings(part: document.Table) -> list[str]:
    """The line of the headings that columns share, and the rules under them; none: nothing."""
    spans = document.spans(part)
    if not any(heading for heading, _ in spans):
        return []
    rules, first = '', 1
    for heading, count in spans:
        rules += rf'\cmidrule(lr){{{first}-{first + count - 1}}}' if heading else ''
        first += count
    return [_row(rf'\multicolumn{{{n}}}{{c}}{{{_tex(heading)}}}' for heading, n in spans) + rules]


def _row(cells) -> str:
    return ' & '.join(cells) + r' \\'


def _float(kind: str, body: str, part: document.Table | document.Figure) -> str:
    caption = _tex(f'{part.title}. {part.note}'.strip())
    return (
        f'\\begin{{{kind}}}[htbp]\n\\centering\n{body}\n\\caption{{{caption}}}\n'
        f'\\label{{{kind}:{part.name}}}\n\\end{{{kind}}}\n'
    )


def _tex(text: str) -> str:
    return re.sub('|'.join(map(re.escape, TEX)), lambda found: TEX[found[0]], text)
