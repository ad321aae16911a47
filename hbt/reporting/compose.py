"""Command line: evaluated runs -> tables and figures, as a page, Markdown, LaTeX and CSV.

python -m hbt.report RUN [RUN ...] --out=DIR
"""

import pathlib
import shutil
from collections.abc import Sequence

from hbt.reporting import (
    breakdowns,
    comparison,
    document,
    experiments,
    figures,
    notations,
    published,
    scaling,
    tables,
)

FOLDERS = ('tables', 'figures')  # that a report replaces
PAGE = 'index.html'


def make(
    found: Sequence[experiments.Run],
    inside: Sequence[str] = (),
    measures: Sequence[comparison.Measure] = comparison.MAIN,
) -> list[document.Section]:
    """The whole report as a tree. `inside`: benchmarks of the training domain.

    Raises ValueError for an unknown one of these, and for measures that no benchmark has.
    """
    systems, names = experiments.systems(found), experiments.benchmarks(found)
    if not any(tables.known(systems, name, measures) for name in names):
        shown = ', '.join(x.name for x in measures)
        raise ValueError(f'--measure: expected numbers that a benchmark has, got {shown}')
    sections = [
        document.Section('Runs', '', [tables.overview(found, systems), tables.settings(found)]),
        document.Section(
            'Comparison of the runs', COMPARISON, _each(_compared, systems, names, measures)
        ),
        document.Section('Pairs of languages', PAIRS, _each(_pairs, systems, names, measures)),
        document.Section('Language bias', BIAS, _each(_bias, systems, names, measures)),
        document.Section(
            'Languages, scripts and resources', '', _each(_groups, systems, names, measures)
        ),
        document.Section(
            'Beside the paper',
            PAPER,
            [*published.overall(systems), *published.by_language(systems)],
        ),
        document.Section(
            'Training', '', _kept([figures.training(found), *figures.evaluations(found, measures)])
        ),
        document.Section('Scaling', SCALING, _scaling(found, names, measures)),
        document.Section('Domain shift', '', _shift(systems, names, inside, measures)),
        document.Section(
            'Origin of the numbers', '', [tables.origin(found, name) for name in names]
        ),
    ]
    return [section for section in sections if section.parts]


def _each(parts, systems, names, measures) -> list:
    """The parts of every benchmark that has one of the measures."""
    return [
        part
        for name in names
        if (known := tables.known(systems, name, measures))
        for part in _kept(parts(systems, name, known))
    ]


def _kept(parts) -> list:
    return [part for part in parts if part is not None]


def _compared(systems, name: str, measures) -> list:
    found = [tables.overall(systems, name, measures), figures.main_numbers(systems, name, measures)]
    found.append(tables.further(systems, name, measures))
    several = len(tables.of(systems, name)) > 1
    return found + [tables.tests(systems, name, measures)] * several


def _pairs(systems, name: str, measures) -> list:
    metric = comparison.of_pairs(measures)
    first, *others = tables.of(systems, name)
    found = [figures.pair_maps(systems, name, metric)]
    if others:
        tests = [comparison.by_pair(first, other, name, metric) for other in others]
        found.append(figures.differences(tests, systems, name, metric))
        found.append(tables.pair_counts(tests, name, metric))
        found += [tables.pair_tests(test, name, i, metric) for i, test in enumerate(tests, 1)]
    return [*found, tables.pair_numbers(systems, name, metric)]


def _bias(systems, name: str, measures) -> list:
    del measures
    if not tables.known(systems, name, comparison.BIAS):
        return []
    return [
        tables.bias(systems, name),
        figures.own_share(systems, name),
        figures.bias_by_language(systems, name),
    ]


def _groups(systems, name: str, measures) -> list:
    metric, found = comparison.of_pairs(measures), []
    for kind in breakdowns.GROUPS:
        found.append(figures.by_group(systems, name, kind, measures))
        found.append(breakdowns.groups(systems, name, kind, measures))
    found += [breakdowns.gaps(systems, name, kind, measures) for kind in breakdowns.KINDS]
    found.append(figures.families(systems, name, metric))
    return [*found, breakdowns.scripts(systems, name, metric)]


def _scaling(found, names, measures) -> list:
    parts = []
    for axis in scaling.AXES:
        parts += [figures.scaling_curves(found, axis, name, measures) for name in names]
        if scaling.AXES[axis].log:
            parts.append(scaling.fits(found, axis, names, measures))
    return _kept(parts)


def _shift(systems, names, inside, measures) -> list:
    if not inside:
        return []
    found = scaling.shifts(systems, names, inside, measures)
    if not found:
        return []
    return [scaling.shift_table(found, inside, names), figures.domain_shift(found)]


COMPARISON = (
    'mono: queries and documents of one language; cross: of two; multi: documents of all languages '
    'in one pool. All are macro-averages, over languages or ordered pairs of languages.'
)
PAIRS = 'Queries of one language against the documents of one language alone.'
BIAS = 'How the language of a document changes its rank in the pool of all languages.'
PAPER = (
    'arXiv 2408.10536 fine-tunes pretrained XLM-R and LaBSE on about 44 million triplets; where a '
    'run begins elsewhere or sees less, its numbers tell of that too.'
)
SCALING = 'Runs that differ in one size alone, besides the seed.'


def write(folder: pathlib.Path, title: str, sections: Sequence[document.Section]) -> None:
    """Writes index.html, report.md, report.tex, tables/ and figures/, in place of an older report.

    ValueError where the folder holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f'--out: {folder}: expected a directory, got a file')
    if folder.exists() and not (folder / PAGE).is_file() and any(folder.iterdir()):
        raise ValueError(f'--out: {folder}: expected an empty folder or a report, got other files')
    for name in FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    text, tex = [f'# {title}'], [notations.PREAMBLE]
    for section in sections:
        text += [f'## {section.title}', section.text]
        tex.append(notations.latex_section(section.title, section.text))
        for part in section.parts:
            text += [f'### {part.title}', _write(folder, part), part.note]
            is_table = isinstance(part, document.Table)
            tex.append(
                rf'\input{{tables/{part.name}}}' if is_table else notations.latex_figure(part)
            )
            tex.append(r'\FloatBarrier')
        tex.append(r'\clearpage')
    (folder / 'report.md').write_text('\n\n'.join(filter(None, text)) + '\n')
    (folder / 'report.tex').write_text('\n'.join([*tex, notations.END_DOCUMENT]))
    (folder / PAGE).write_text(notations.page(title, sections))


def _write(folder: pathlib.Path, part: document.Table | document.Figure) -> str:
    """Writes the files of a part; returns its Markdown."""
    if isinstance(part, document.Table):
        (folder / 'tables' / f'{part.name}.csv').write_text(notations.comma_separated(part))
        (folder / 'tables' / f'{part.name}.tex').write_text(notations.latex_table(part))
        return notations.markdown(part)
    for kind in ('svg', 'pdf'):
        (folder / 'figures' / f'{part.name}.{kind}').write_bytes(document.image(part, kind))
    return f'![{part.title}](figures/{part.name}.svg)'
