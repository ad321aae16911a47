"""Tables, figures and sections of a report, and their notations: Markdown, LaTeX, CSV, HTML."""

import base64
import functools
import io
import itertools
import pathlib
import shutil
import typing
from collections.abc import Iterable, Mapping, Sequence

import jinja2
import matplotlib as mpl
import numpy as np
import pandas as pd
from jaxtyping import Bool, Int
from matplotlib import figure

PAGE = 'index.html'
LONG_TABLE = 24  # rows; longer tables are folded on the page
Label = str | tuple[str, str]  # name of a column, or (heading shared with its neighbours, name)


class Table(typing.NamedTuple):
    """Numbers, and how they are shown.

    Columns `X low` and `X high`, the bounds of an interval, and `X spread`, the deviation between
    seeds, have no format: the cells of X show them.
    """

    name: str  # of its files
    title: str
    frame: pd.DataFrame
    formats: Mapping[Label, str]  # column that is shown -> key of FORMATS
    note: str = ''
    bold: pd.DataFrame | None = None  # booleans of some of the columns: what stands out
    tone: pd.DataFrame | None = None  # of some of the columns: 1 is good, -1 is bad
    folded: bool = False  # on the page, as if it were long


class Figure(typing.NamedTuple):
    """A drawing with its title."""

    name: str  # of its files
    title: str
    drawing: figure.Figure
    note: str = ''


class Phrase(typing.NamedTuple):
    """A piece of a text, and whether it is good news."""

    text: str
    tone: int = 0  # 1: good, -1: bad


class Section(typing.NamedTuple):
    """A heading, an introduction, and what follows it."""

    title: str
    text: str | Sequence[Phrase]
    parts: list[Table | Figure]

    @property
    def phrases(self) -> Sequence[Phrase]:
        """The pieces of its text."""
        text = [Phrase(self.text)] if isinstance(self.text, str) else self.text
        return [x for x in text if x.text]

    @property
    def plain_text(self) -> str:
        """Its text without any tone."""
        return ''.join(x.text for x in self.phrases).strip()


def make_table(
    name: str, title: str, formats: Mapping[Label, str], rows: Sequence[Sequence], note: str = ''
) -> Table:
    """A table of rows that have a cell for every format."""
    frame = pd.DataFrame(rows, columns=pd.Index(list(formats)))
    counts = {label: 'Int64' for label, form in formats.items() if form == 'count'}
    return Table(name, title, frame.astype(counts), formats, note)


def best_cells(numbers: pd.DataFrame, axis: int = 0) -> pd.DataFrame:
    """Marks the largest number of each column (axis 0) or row (1) that has two or more."""
    numbers = numbers.astype(float)
    largest = numbers.max(axis=axis).where(numbers.count(axis=axis) > 1)
    return numbers.eq(largest, axis=1 - axis)


def to_markdown(table: Table) -> str:
    """A pipe table; the shared heading goes before the name of each of its columns."""
    escaped = str.maketrans({'|': r'\|', '\n': ' '})
    texts = _marked_texts(table, escaped, '**{}**').rename(columns=lambda x: x.translate(escaped))
    sides = ['left' if form == 'text' else 'right' for form in table.formats.values()]
    return texts.to_markdown(index=False, disable_numparse=True, colalign=sides)


def to_csv(table: Table) -> str:
    """All numbers with all their digits."""
    names = _flat_names(table.frame.columns)
    return table.frame.set_axis(names, axis=1).to_csv(index=False, lineterminator='\n')


def to_latex(table: Table) -> str:
    """A float, as wide as the text at most."""
    texts = _marked_texts(table, LATEX, r'\textbf{{{}}}')
    texts = texts.set_axis(pd.Index(list(table.formats)), axis=1)
    texts = texts.rename(columns=lambda x: x.translate(LATEX))
    sides = ''.join('l' if form == 'text' else 'r' for form in table.formats.values())
    tabular = texts.to_latex(index=False, escape=False, column_format=sides, multicolumn_format='c')
    rules, first = '', 1
    for heading, count in _shared_headings(table):
        rules += rf'\cmidrule(lr){{{first}-{first + count - 1}}}' * bool(heading)
        first += count
    tabular = tabular.replace('\\\\\n', f'\\\\{rules}\n', 1)
    body = f'\\begin{{adjustbox}}{{{FIT}}}\n{tabular}\\end{{adjustbox}}'
    return _latex_float('table', body, table)


def to_html(title: str, sections: Sequence[Section]) -> str:
    """One page with everything in it."""
    layout = {'autoescape': True, 'trim_blocks': True, 'lstrip_blocks': True}
    loader = jinja2.PackageLoader('hbt.reporting', '')
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, **layout)
    environment.globals |= {
        'cell_texts': _cell_texts,
        'bold_cells': _bold_cells,
        'tone_cells': _tone_cells,
        'shared_headings': _shared_headings,
        'image_base64': lambda part: base64.b64encode(draw_image(part, 'svg')).decode(),
        'long_table': LONG_TABLE,
    }
    return environment.get_template('report.html.jinja').render(title=title, sections=sections)


@functools.cache
def draw_image(part: Figure, kind: str) -> bytes:
    """The figure as svg, pdf or png; the same bytes for the same figure."""
    out = io.BytesIO()
    dates = {'svg': {'Date': None}, 'pdf': {'CreationDate': None}, 'png': {}}
    with mpl.rc_context({'svg.hashsalt': part.name}):
        part.drawing.savefig(out, format=kind, metadata=dates[kind], bbox_inches='tight', dpi=150)
    return out.getvalue()


def write_report(folder: pathlib.Path, title: str, sections: Sequence[Section]) -> None:
    """Writes index.html, report.md, report.tex, tables/ and figures/, in place of an older report.

    Raises ValueError where the folder holds something else. index.html needs no other file;
    report.tex needs booktabs, graphicx, adjustbox and placeins.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f'--out: {folder}: expected a directory, got a file')
    if folder.exists() and not (folder / PAGE).is_file() and any(folder.iterdir()):
        raise ValueError(f'--out: {folder}: expected an empty folder or a report, got other files')
    for name in ('tables', 'figures'):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    text, tex = [f'# {title}'], [PREAMBLE]
    for section in sections:
        text += [f'## {section.title}', section.plain_text]
        tex.append(rf'\section{{{section.title.translate(LATEX)}}}')
        tex.append(section.plain_text.translate(LATEX) + '\n')
        for part in section.parts:
            markdown, latex = _write_part(folder, part)
            text += [f'### {part.title}', markdown, part.note]
            tex += [latex, r'\FloatBarrier']
        tex.append(r'\clearpage')
    (folder / 'report.md').write_text('\n\n'.join(filter(None, text)) + '\n')
    (folder / 'report.tex').write_text('\n'.join([*tex, '\\end{document}\n']))
    (folder / PAGE).write_text(to_html(title, sections))


def _write_part(folder: pathlib.Path, part: Table | Figure) -> tuple[str, str]:
    """Writes the files of a part; returns what report.md and report.tex have of it."""
    if isinstance(part, Table):
        (folder / 'tables' / f'{part.name}.csv').write_text(to_csv(part))
        (folder / 'tables' / f'{part.name}.tex').write_text(to_latex(part))
        return to_markdown(part), rf'\input{{tables/{part.name}}}'
    for kind in ('svg', 'pdf'):
        (folder / 'figures' / f'{part.name}.{kind}').write_bytes(draw_image(part, kind))
    graphic = rf'\includegraphics[{FIT}]{{figures/{part.name}.pdf}}'
    return f'![{part.title}](figures/{part.name}.svg)', _latex_float('figure', graphic, part)


def _cell_texts(table: Table) -> pd.DataFrame:
    """The shown columns as people read them; empty where there is no number."""
    frame = table.frame.set_axis(_flat_names(table.frame.columns), axis=1)
    shown = dict(zip(_flat_names(table.formats), table.formats.values(), strict=True))
    texts = pd.DataFrame('', frame.index, list(shown), dtype=object)
    for name, form in shown.items():
        for suffix, pattern in PATTERNS.items():
            column = name + suffix
            if column == name or column in frame.columns.difference(shown):
                numbers = [None if pd.isna(x) else FORMATS[form](x) for x in frame[column]]
                texts[name] += ['' if x is None else pattern.format(x) for x in numbers]
    return texts


def _marked_texts(table: Table, escaped: dict[int, str], pattern: str) -> pd.DataFrame:
    """The texts of cells, escaped, with those that stand out in a pattern."""
    texts = _cell_texts(table).map(lambda x: x.translate(escaped))
    return texts.mask(_bold_cells(table), texts.map(pattern.format))


def _bold_cells(table: Table) -> Bool[np.ndarray, 'r c']:
    """Which of the shown cells stand out."""
    return _shown_cells(table, table.bold, False)


def _tone_cells(table: Table) -> Int[np.ndarray, 'r c']:
    """1 for each of the shown cells that is good, -1 for what is bad, 0 for the others."""
    return _shown_cells(table, table.tone, 0)


def _shown_cells(table: Table, marks: pd.DataFrame | None, missing: int) -> np.ndarray:
    """The marks of the shown cells [r c], of the type of what stands for a missing one."""
    marks = pd.DataFrame(index=table.frame.index) if marks is None else marks
    shown = pd.Index(list(table.formats))
    marks = marks.reindex(index=table.frame.index, columns=shown, fill_value=missing)
    return marks.to_numpy(type(missing))


def _flat_names(labels: Iterable[Label]) -> list[str]:
    return [x if isinstance(x, str) else ' '.join(x).strip() for x in labels]


def _shared_headings(table: Table) -> list[tuple[str, int]]:
    """(heading, number of columns below it) for all columns; none where no column has one."""
    groups = itertools.groupby(x[0] for x in table.formats if isinstance(x, tuple))
    return [(heading, len(list(group))) for heading, group in groups]


def _latex_float(kind: str, body: str, part: Table | Figure) -> str:
    caption = f'{part.title}. {part.note}'.strip().translate(LATEX)
    return (
        f'\\begin{{{kind}}}[htbp]\n\\centering\n{body}\n\\caption{{{caption}}}\n'
        f'\\label{{{kind}:{part.name}}}\n\\end{{{kind}}}\n'
    )


def _number(x: float) -> str:
    """A score, a distance, or a coefficient of any size, in a column that has all of them."""
    return f'{x:,.1f}' if abs(x) >= 10 else f'{x:.4f}' if abs(x) >= 0.001 or not x else f'{x:.3g}'


PREAMBLE = r"""\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage[margin=2cm]{geometry}
\usepackage{booktabs,graphicx,placeins}
\usepackage[export]{adjustbox}
\begin{document}
"""
FIT = r'max width=\textwidth,max totalheight=0.85\textheight'
LATEX = str.maketrans(  # of cells, headings, captions; pandas escapes cells alone, and no symbols
    {x: '\\' + x for x in '&%$#_{}'}
    | {'\\': r'\textbackslash{}', '~': r'\textasciitilde{}', '^': r'\textasciicircum{}'}
    | {'<': '$<$', '>': '$>$', '−': '$-$', '±': r'$\pm$', '×': r'$\times$', 'α': r'$\alpha$'}
)
PATTERNS = {'': '{}', ' spread': ' ± {}', ' low': ' [{}', ' high': ', {}]'}  # by suffix of columns
FORMATS = {
    'text': str,
    'right': str,
    'score': '{:.4f}'.format,
    'thousandths': '{:.3f}'.format,
    'whole': '{:,.0f}'.format,
    'signed': '{:+.4f}'.format,
    'distance': '{:,.1f}'.format,
    'p': lambda p: '< .001' if p < 0.001 else f'{p:.3f}',
    'count': '{:,}'.format,
    'percent': lambda x: f'{100 * x:.1f} %',
    'number': _number,
    'signed number': lambda x: '+' * (x >= 0) + _number(x),
}
