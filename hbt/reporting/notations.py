"""Tables and figures in every notation: Markdown, CSV, LaTeX, and one HTML page.

Hides escapes, floats, and the looks of the page, which has no script and needs no other file.
LaTeX needs booktabs, graphicx, adjustbox and placeins. Called by `report`.
"""

import base64
import csv
import html
import io
import re

from hbt.reporting import document

LONG = 24  # rows; longer tables are folded
BROAD = 14  # columns; tables of more are set smaller
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1b1b1b;max-width:1240px;margin:0 auto;
padding:1.5rem}
h1{font-size:1.7rem;margin:.2rem 0}
h2{font-size:1.35rem;margin:2.6rem 0 .6rem;padding-top:.6rem;border-top:2px solid #ddd}
h3{font-size:1.02rem;margin:1.6rem 0 .3rem}
p{margin:.3rem 0 .7rem;color:#444;max-width:62rem}
nav{columns:3 16rem;margin:1rem 0}
nav a{display:block;color:#0b5a8a}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.86rem;margin:.4rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.22rem .5rem;text-align:right;white-space:nowrap}
th{font-weight:600;vertical-align:bottom;border-bottom:1px solid #999;background:#f6f6f6}
th.group{text-align:center;border-left:1px solid #ccc}
td:first-child,th:first-child{text-align:left;position:sticky;left:0}
td:first-child{background:#fff}
td.text,th.text{text-align:left}
tr:nth-child(even) td{background:#fafafa}
.tight table{font-size:.72rem}
.tight th,.tight td{padding:.2rem .28rem}
.range{color:#777;font-size:.92em}
b{color:#0b5a8a}
img{max-width:100%;height:auto;display:block;margin:.4rem 0}
details>summary{cursor:pointer;color:#0b5a8a}
@media print{.wide{overflow:visible}}
"""


PREAMBLE = r"""\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage[margin=2cm]{geometry}
\usepackage{booktabs,graphicx,placeins}
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


def markdown(table: document.Table) -> str:
    """A pipe table; the shared heading goes before the name of each of its columns."""
    names = [f'{c.group} {c.name}'.strip() for c in table.columns]
    marks = ['---' if c.form == 'text' else '---:' for c in table.columns]
    rows = [
        [f'**{x}**' if (i, j) in table.strong else x for j, x in enumerate(row)]
        for i, row in enumerate(document.texts(table))
    ]
    escaped = [[x.replace('|', '\\|').replace('\n', ' ') for x in row] for row in [names, *rows]]
    lines = [escaped[0], marks, *escaped[1:]]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def comma_separated(table: document.Table) -> str:
    """CSV; a number with an interval or a spread takes columns of its own for them."""
    extras = ('low', 'high', 'spread')
    kept = [
        [x for x in extras if any(getattr(row[j], x, None) is not None for row in table.rows)]
        for j in range(len(table.columns))
    ]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    names = [f'{c.group} {c.name}'.strip() for c in table.columns]
    writer.writerow(
        [
            text
            for name, more in zip(names, kept, strict=True)
            for text in (name, *(f'{name} {x}' for x in more))
        ]
    )
    for row in table.rows:
        cells = []
        for cell, more in zip(row, kept, strict=True):
            cells.append(cell.mean if isinstance(cell, document.Value) else cell)
            cells += [getattr(cell, x, None) for x in more]
        writer.writerow(['' if x is None or x != x else x for x in cells])
    return out.getvalue()


def latex_table(part: document.Table) -> str:
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


def latex_figure(part: document.Figure) -> str:
    """A float with figures/NAME.pdf."""
    return _float('figure', rf'\includegraphics[{FIT}]{{figures/{part.name}.pdf}}', part)


def latex_section(title: str, text: str) -> str:
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


def page(title: str, sections: list[document.Section]) -> str:
    """One HTML page with everything in it: no script, no other file."""
    links = ''.join(
        f'<a href="#s{i}">{html.escape(section.title)}</a>' for i, section in enumerate(sections)
    )
    body = []
    for i, section in enumerate(sections):
        body.append(f'<h2 id="s{i}">{html.escape(section.title)}</h2>')
        body.append(_paragraph(section.text))
        for part in section.parts:
            body.append(f'<h3 id="{html.escape(part.name)}">{html.escape(part.title)}</h3>')
            body.append(_table(part) if isinstance(part, document.Table) else _image(part))
            body.append(_paragraph(part.note))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n<body>'
        f'<h1>{html.escape(title)}</h1><nav>{links}</nav>\n'
        + '\n'.join(body)
        + '\n</body></html>\n'
    )


def _paragraph(text: str) -> str:
    return f'<p>{html.escape(text)}</p>' if text else ''


def _image(part: document.Figure) -> str:
    data = base64.b64encode(document.image(part, 'svg')).decode()
    return f'<img alt="{html.escape(part.title)}" src="data:image/svg+xml;base64,{data}">'


def _table(table: document.Table) -> str:
    heads = ''
    if any(c.group for c in table.columns):
        cells = (
            f'<th class="group" colspan="{n}">{html.escape(g)}</th>' if g else '<th></th>' * n
            for g, n in document.spans(table)
        )
        heads = f'<tr>{"".join(cells)}</tr>'
    names = ''.join(f'<th{_kind(c)}>{html.escape(c.name)}</th>' for c in table.columns)
    heads += f'<tr>{names}</tr>'
    rows = []
    for i, row in enumerate(document.texts(table)):
        cells = []
        for j, text in enumerate(row):
            main, mark, rest = text.partition(' [')
            inner = html.escape(main)
            inner = f'<b>{inner}</b>' if (i, j) in table.strong else inner
            if mark and table.columns[j].form != 'text':
                inner += f'<span class="range"> [{html.escape(rest)}</span>'
            else:
                inner += html.escape(mark + rest)
            cells.append(f'<td{_kind(table.columns[j])}>{inner}</td>')
        rows.append(f'<tr>{"".join(cells)}</tr>')
    content = f'<thead>{heads}</thead><tbody>{"".join(rows)}</tbody>'
    kind = 'wide tight' if len(table.columns) > BROAD else 'wide'
    whole = f'<div class="{kind}"><table>{content}</table></div>'
    if len(rows) <= LONG:
        return whole
    return f'<details><summary>{len(rows)} rows</summary>{whole}</details>'


def _kind(column: document.Column) -> str:
    return ' class="text"' if column.form == 'text' else ''
