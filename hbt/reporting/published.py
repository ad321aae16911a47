"""Our numbers beside the paper's (arXiv 2408.10536): its Tables 1 to 8, 12 and 13.

Hides how the two are matched. Called by `report`.
"""

import statistics
import typing
from collections.abc import Sequence

from hbt.reporting import document, experiments, paper

NAMES = {'xquad_r': 'XQuAD-R', 'mlqa_r': 'MLQA-R'}


class Beside(typing.NamedTuple):
    """A system's benchmark that the paper has too."""

    label: str
    numbers: dict


def beside(systems: Sequence[experiments.System], benchmark: str) -> list[Beside]:
    """Systems with the paper's benchmark, whatever its languages (`miracl:sw+yo`)."""
    found = []
    for system in systems:
        every = dict.fromkeys(x for run in system.runs for x in run.results)
        names = [x for x in every if x.partition(':')[0] == benchmark]
        for name in names:
            label = system.label if len(names) == 1 else f'{system.label}, {name}'
            found.append(Beside(label, system.numbers(name)))
    return found


def overall(systems: Sequence[experiments.System]) -> list[document.Table]:
    """The paper's Tables 1 and 2, and the same numbers of the runs; none without a benchmark."""
    sets = ('xquad_r', 'mlqa_r')
    ours = {x: {b.label: b.numbers['metrics'] for b in beside(systems, x)} for x in sets}
    labels = list(dict.fromkeys(label for found in ours.values() for label in found))
    if not labels:
        return []
    rows = [line.split() for line in paper.OVERALL.strip().split('\n')]
    chosen = [(x, g.setting, g.metric) for x in sets for g in paper.MAP]
    spread = [(x, 'multi', 'rank_distance') for x in sets]
    found = []
    for number, wanted, start, title in (
        (1, chosen, 2, 'mAP'),
        (2, spread, 8, 'language bias: mean rank distance'),
    ):
        form = 'thousandths' if number == 1 else 'whole'
        theirs = [
            [f'paper: {row[0]} {row[1]}', *map(float, row[start : start + len(wanted)])]
            for row in rows
        ]
        mine = [
            [
                label,
                *(_at(ours[x].get(label, {}), setting, metric) for x, setting, metric in wanted),
            ]
            for label in labels
        ]
        heads = [NAMES[x] if number == 1 else '' for x, _, _ in wanted]
        names_ = [setting if number == 1 else NAMES[x] for x, setting, _ in wanted]
        columns = [document.Column('system')]
        columns += [document.Column(n, form, head) for n, head in zip(names_, heads, strict=True)]
        found.append(
            document.Table(
                f'paper-{number}', f'Table {number} of the paper: {title}', columns, theirs + mine
            )
        )
    return found


def _at(tree: dict, setting: str, metric: str) -> float | None:
    return tree.get(setting, {}).get(metric)


def by_language(systems: Sequence[experiments.System]) -> list[document.Table]:
    """The paper's Tables 3 to 8, 12 and 13 with ours beside theirs, for benchmarks that we have."""
    found = []
    for table in paper.TABLES:
        ours = beside(systems, table.benchmark)
        if ours:
            found.append(_published(table, ours))
    return found


def _published(table: paper.Published, ours: Sequence[Beside]) -> document.Table:
    rows = table.rows
    spoken = [x for x in rows if x != 'Mean']
    columns, parts = [document.Column('query language')], []
    for i, group in enumerate(table.groups):
        form = 'distance' if group.metric == 'rank_distance' else 'score'
        columns += [document.Column(x, form, f'{group.heading}, paper') for x in paper.SAMPLINGS]
        parts.append([values[3 * i : 3 * i + 3] for values in rows.values()])
        if group[1:] not in [other[1:] for other in table.groups[i + 1 :]]:
            heading = f'{group.heading}, ours' if form == 'score' else 'ours'
            columns += [document.Column(x.label, form, heading) for x in ours]
            parts.append(_ours(group, ours, spoken))
    cells = [[language, *(x for part in parts for x in part[i])] for i, language in enumerate(rows)]
    title = f'Table {table.number} of the paper: {table.title}'
    note = 'Our mean is over the same languages, and empty where one of them is missing.'
    kind = '-recall' if table.title.endswith('recall') else ''
    return document.Table(f'paper-{table.number}{kind}', title, columns, cells, note)


def _ours(group: paper.Group, ours: Sequence[Beside], spoken: list[str]) -> list[list]:
    """Rows of our numbers, their mean last."""
    columns = []
    for one in ours:
        tree = one.numbers['languages']
        found = [_at(tree.get(x, {}), group.setting, group.metric) for x in spoken]
        columns.append([*found, None if None in found else statistics.fmean(found)])
    return [list(row) for row in zip(*columns, strict=True)]
