"""Numbers of groups of languages: by language, script, resources, and by what was trained on."""

import statistics
import typing
from collections.abc import Callable, Sequence

import pandas as pd

from hbt.reporting import comparison, experiments, render
from hbt.utils import languages

GROUPS = {  # breakdown of `aggregate.aggregate_metrics` -> words for it
    'languages': 'query language',
    'scripts': 'script of the query language',
    'resources': 'resource level of the query language',
}
GROUP_OF = {'languages': str, 'scripts': languages.script, 'resources': languages.resource_class}
SOURCES = {
    'scripts': 'Most likely script of a language, by the Unicode CLDR (ISO 15924 codes).',
    'resources': 'Classes of Joshi et al. (ACL 2020): 5 has the most resources, 0 none.',
}
HIGH = ('4', '5')  # classes of resources; the others are low
SHARED = {  # with the training languages -> what of a language is compared
    'language': str,
    'script': languages.script,
    'family of scripts': languages.script_family,
    'nothing': lambda language: '',
}


class Division(typing.NamedTuple):
    """A way to put query languages into two groups or more, in this order."""

    name: str
    title: str
    groups: tuple[str, ...]
    note: str


DIVISIONS = (
    Division(
        'resource-levels',
        'high and low resources',
        ('high', 'low'),
        f'High: classes {" and ".join(HIGH)} of Joshi et al. (ACL 2020). Low: all others.',
    ),
    Division(
        'script-similarity',
        'what the query language shares with the languages of training',
        tuple(SHARED),
        'Language: it was trained on. Script: another language of its script was. Family of '
        'scripts: another language of its family (The Unicode Standard) was. Only of runs whose '
        'training languages are known.',
    ),
)


def by_group(case: comparison.Comparison, breakdown: str) -> render.Table:
    """The measures of every group of query languages; `breakdown` is a key of GROUPS."""
    trees, is_grouped = [*case.trees(breakdown).values()], breakdown != 'languages'
    formats = {('', breakdown.removesuffix('s')): 'text'}
    formats |= {('', 'languages'): 'text'} if is_grouped else {}
    formats |= {(x.name, system.label): x.format for x in case.measures for system in case.systems}
    rows = []
    for group in trees[0]:
        names = case.systems[0].numbers[case.benchmark]['languages']
        members = ' '.join(x for x in names if GROUP_OF[breakdown](x) == group)
        numbers = [x.get(tree[group]) for x in case.measures for tree in trees]
        rows.append([group, *[members] * is_grouped, *numbers])
    name = case.name_part(breakdown, f'by {GROUPS[breakdown]}')
    table = render.make_table(*name, formats, rows, SOURCES.get(breakdown, ''))
    bold = [
        render.best_cells(table.frame[[x.name]].astype(float) * x.sign, axis=1)
        for x in case.measures
        if x.sign
    ]
    return table._replace(bold=pd.concat(bold, axis=1) if bold else None)


def group_gaps(case: comparison.Comparison, division: Division) -> render.Table | None:
    """Each group's mean, and how far the last is below the first; None for a single group."""
    means = {}  # (system, measure) -> group -> (number of languages, mean)
    for system in case.systems:
        group_of, tree = _group_function(system, division), system.numbers[case.benchmark]
        if group_of is None:
            continue
        for measure in (x for x in case.measures if x.get(tree['metrics']) is not None):
            means[system.label, measure.name] = {
                group: (len(members), language_mean(tree, members, measure))
                for group in division.groups
                if (members := [x for x in tree['languages'] if group_of(x) == group])
            }
    groups = [x for x in division.groups if any(x in numbers for numbers in means.values())]
    if len(groups) < 2:
        return None
    rows = []
    for names, numbers in means.items():
        cells = [x for group in groups for x in numbers.get(group, (0, None))]
        ends = [mean for _, mean in numbers.values() if mean is not None]
        rows.append([*names, *cells, ends[-1] - ends[0] if len(ends) > 1 else None])
    formats = {('', 'system'): 'text', ('', 'number'): 'text'}
    for group in groups:
        formats |= {(group, 'languages'): 'count', (group, 'mean'): 'number'}
    formats['', 'last less first'] = 'signed number'
    name = case.name_part(division.name, division.title)
    return render.make_table(*name, formats, rows, division.note)


def _group_function(system: experiments.System, division: Division) -> Callable[[str], str] | None:
    """language -> its group; None where that is not known."""
    if division.name == 'resource-levels':
        return lambda x: 'high' if languages.resource_class(x) in HIGH else 'low'
    values = system.experiments[0].settings
    trained = values.get('sampler.languages') or values.get('data.languages', ())
    if not trained:
        return None
    known = {name: {level(x) for x in trained} for name, level in SHARED.items()}
    return lambda x: next(name for name, level in SHARED.items() if level(x) in known[name])


def language_mean(tree: dict, names: Sequence[str], measure: comparison.Measure) -> float | None:
    """Macro-average over query languages: of their pairs, or of their pooled rankings."""
    if measure.setting == 'multi':
        rows = [tree['languages'][x].get('multi', {}) for x in names]
    else:
        is_mono = measure.setting == 'mono'
        pairs = [(x, y) for x in names for y in tree['languages']]
        rows = [tree['pairs'].get(f'{x}-{y}', {}) for x, y in pairs if (x == y) == is_mono]
    numbers = [row[measure.metric] for row in rows if measure.metric in row]
    return statistics.fmean(numbers) if numbers else None


def script_pairs(case: comparison.Comparison) -> render.Table | None:
    """Cross-lingual numbers of pairs within one script, and of pairs across two; None: no pairs."""
    rows = []
    for system in case.systems:
        tree, numbers = system.numbers[case.benchmark]['pairs'], {True: [], False: []}
        for x, y in system.pairs(case.benchmark):
            if x != y:
                same = languages.script(x) == languages.script(y)
                numbers[same].append(tree[f'{x}-{y}'][case.metric])
        within, across = (statistics.fmean(x) if x else None for x in numbers.values())
        drop = None if within is None or across is None else within - across
        rows.append([system.label, len(numbers[True]), within, len(numbers[False]), across, drop])
    if not any(row[1] + row[3] for row in rows):
        return None
    formats = {('', 'system'): 'text'}
    for heading in ('same script', 'different scripts'):
        formats[heading, 'pairs'] = 'count'
        formats[heading, f'cross {comparison.metric_name(case.metric)}'] = 'score'
    formats['', 'difference'] = 'signed'
    name = case.name_part('script-pairs', 'pairs of one script and of two')
    return render.make_table(*name, formats, rows, SOURCES['scripts'])
