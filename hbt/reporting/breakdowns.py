"""Numbers of groups of languages: by language, script, resources, and by what was trained on.

Hides which languages form a group, and which means are taken over it. Called by `report` and
`figures`.
"""

import statistics as plain
import typing
from collections.abc import Callable, Mapping, Sequence

from hbt.reporting import comparison, document, experiments, tables
from hbt.utils import languages

GROUPS = {  # part of the tree -> words for it
    'languages': 'query language',
    'scripts': 'script of the query language',
    'resources': 'resource level of the query language',
}
SOURCES = {
    'scripts': 'Most likely script of a language, by the Unicode CLDR (ISO 15924 codes).',
    'resources': 'Classes of Joshi et al. (ACL 2020): 5 has the most resources, 0 none.',
}
HIGH = ('4', '5')  # classes of resources; the others are low
NEAR = ('language', 'script', 'family of scripts', 'nothing')  # what it shares with the training


class Kind(typing.NamedTuple):
    """A way to put query languages into two groups or more, in this order."""

    name: str
    title: str
    groups: tuple[str, ...]
    note: str


KINDS = (
    Kind(
        'resource-levels',
        'high and low resources',
        ('high', 'low'),
        f'High: classes {" and ".join(HIGH)} of Joshi et al. (ACL 2020). Low: all others.',
    ),
    Kind(
        'script-similarity',
        'what the query language shares with the languages of training',
        NEAR,
        'Language: it was trained on. Script: another language of its script was. Family of '
        'scripts: another language of its family (The Unicode Standard) was. Only of runs whose '
        'training languages are known.',
    ),
)


def groups(
    systems: Sequence[experiments.System],
    benchmark: str,
    kind: str,
    measures: Sequence[comparison.Measure],
) -> document.Table:
    """The measures of every query language, script, or class of resources."""
    chosen = tables.of(systems, benchmark)
    trees = [system.numbers(benchmark) for system in chosen]
    measures = tables.known(systems, benchmark, measures)
    names = trees[0]['languages']
    kinds = {'languages': str, 'scripts': languages.script, 'resources': languages.resources}
    rows = []
    for group in trees[0][kind]:
        members = [x for x in names if kinds[kind](x) == group]
        head = [group] if kind == 'languages' else [group, ' '.join(members)]
        cells = [
            tree[kind][group].get(x.setting, {}).get(x.metric) for x in measures for tree in trees
        ]
        rows.append(head + cells)
    columns = [document.Column(kind.removesuffix('s'))] + [document.Column('languages')] * (
        kind != 'languages'
    )
    first = len(columns)
    columns += [document.Column(s.label, x.form, x.name) for x in measures for s in chosen]
    title = f'{benchmark}: by {GROUPS[kind]}'
    name, note = tables.name(benchmark, kind), SOURCES.get(kind, '')
    return document.best(
        document.Table(name, title, columns, rows, note),
        [
            ([(i, first + j * len(chosen) + k) for k in range(len(chosen))], x.highest)
            for i in range(len(rows))
            for j, x in enumerate(measures)
        ],
    )


def gaps(
    systems: Sequence[experiments.System],
    benchmark: str,
    kind: Kind,
    measures: Sequence[comparison.Measure],
) -> document.Table | None:
    """Each group's mean, and how far the last is below the first; None for a single group."""
    found = {}
    for system in tables.of(systems, benchmark):
        member = _members(system, kind)
        tree = system.numbers(benchmark)
        of = {x: member(x) for x in tree['languages']} if member else {}
        for measure in tables.known([system], benchmark, measures):
            found[system.label, measure] = {
                group: (chosen, mean(tree, chosen, measure))
                for group in kind.groups
                if (chosen := [x for x in of if of[x] == group])
            }
    present = [x for x in kind.groups if any(x in by for by in found.values())]
    if len(present) < 2:
        return None
    rows = []
    for (label, measure), by in found.items():
        if not by:
            continue
        cells = [x for group in present for x in _cells(by, group)]
        ends = [value for _, value in by.values() if value is not None]
        rows.append([label, measure.name, *cells, ends[-1] - ends[0] if len(ends) > 1 else None])
    columns = [document.Column('system'), document.Column('number')]
    for group in present:
        columns += [
            document.Column('languages', 'count', group),
            document.Column('mean', 'number', group),
        ]
    columns.append(document.Column('last less first', 'signed number'))
    title = f'{benchmark}: {kind.title}'
    return document.Table(tables.name(benchmark, kind.name), title, columns, rows, kind.note)


def _cells(by: Mapping[str, tuple], group: str) -> tuple:
    chosen, value = by.get(group, ((), None))
    return len(chosen), value


def _members(system: experiments.System, kind: Kind) -> Callable[[str], str] | None:
    """language -> its group; None where that is not known."""
    if kind.name == 'resource-levels':
        return lambda x: 'high' if languages.resources(x) in HIGH else 'low'
    trained = experiments.languages(system.runs[0])
    if not trained:
        return None
    levels = (str, languages.script, languages.family)
    seen = [{level(x) for x in trained} for level in levels]
    return lambda x: next(
        (name for name, level, of in zip(NEAR, levels, seen, strict=False) if level(x) in of),
        NEAR[-1],
    )


def mean(tree: dict[str, dict], chosen: Sequence[str], measure: comparison.Measure) -> float | None:
    """Macro-average over these query languages: of their pairs, or of their pooled rankings."""
    if measure.setting == 'multi':
        rows = [tree['languages'][x].get('multi', {}) for x in chosen]
    else:
        mono = measure.setting == 'mono'
        every = [(x, c) for x in chosen for c in tree['languages']]
        rows = [tree['pairs'].get(f'{x}-{c}', {}) for x, c in every if (x == c) == mono]
    found = [row[measure.metric] for row in rows if measure.metric in row]
    return plain.fmean(found) if found else None


def scripts(
    systems: Sequence[experiments.System], benchmark: str, metric: str
) -> document.Table | None:
    """Cross-lingual numbers of pairs within one script, and of pairs across two; None: no pairs."""
    rows = []
    for system in tables.of(systems, benchmark):
        tree = system.numbers(benchmark)['pairs']
        found = comparison.pairs(comparison.Case(system, benchmark))
        cross = [(x, c) for x, c in found if x != c]
        same = {True: [], False: []}
        for x, c in cross:
            same[languages.script(x) == languages.script(c)].append(tree[f'{x}-{c}'][metric])
        within, across = (plain.fmean(side) if side else None for side in same.values())
        both = within is not None and across is not None
        drop = within - across if both else None
        rows.append([system.label, len(same[True]), within, len(same[False]), across, drop])
    if not any(row[1] + row[3] for row in rows):
        return None
    columns = [document.Column('system')]
    for heading in ('same script', 'different scripts'):
        shown = f'cross {comparison.short(metric)}'
        columns += [
            document.Column('pairs', 'count', heading),
            document.Column(shown, 'score', heading),
        ]
    columns.append(document.Column('difference', 'signed'))
    title = f'{benchmark}: pairs of one script and of two'
    return document.Table(
        tables.name(benchmark, 'script-pairs'), title, columns, rows, SOURCES['scripts']
    )
