"""The sections of a report, and what stands in each."""

from collections.abc import Callable, Sequence

from hbt.reporting import (
    breakdowns,
    comparison,
    experiments,
    figures,
    paper,
    render,
    scaling,
    tables,
)

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
Parts = list[render.Table | render.Figure | None]


def compose_report(
    loaded: Sequence[experiments.Experiment],
    in_domain: Sequence[str] = (),
    measures: Sequence[comparison.Measure] = comparison.MAIN,
) -> list[render.Section]:
    """The sections that have anything to show.

    Args:
        in_domain: benchmarks of the training domain, against all others.
        measures: what is compared and tested.

    Raises:
        ValueError: a benchmark of the domain is unknown, or no benchmark has the measures.
    """
    systems, names = experiments.group_by_seed(loaded), experiments.list_benchmarks(loaded)
    available = {x: comparison.available_measures(systems, x, measures) for x in names}
    if not any(available.values()):
        shown = ', '.join(x.name for x in measures)
        raise ValueError(f'--measure: expected numbers that a benchmark has, got {shown}')

    def each(make_parts: Callable[..., Parts]) -> Parts:
        return [
            x
            for name in names
            if available[name]
            for x in make_parts(systems, name, available[name])
        ]

    sections = [
        ('Runs', '', [tables.overview(loaded, systems), tables.settings(loaded)]),
        ('Comparison of the runs', COMPARISON, each(_comparison_parts)),
        ('Pairs of languages', PAIRS, each(_pair_parts)),
        ('Language bias', BIAS, each(_bias_parts)),
        ('Languages, scripts and resources', '', each(_group_parts)),
        ('Beside the paper', PAPER, paper.overall_tables(systems) + paper.language_tables(systems)),
        (
            'Training',
            '',
            [figures.training_curves(loaded), *figures.evaluation_curves(loaded, measures)],
        ),
        ('Scaling', SCALING, _scaling_parts(loaded, names, measures)),
        ('Domain shift', '', _domain_parts(systems, names, in_domain, measures)),
        ('Origin of the numbers', '', [tables.provenance(loaded, name) for name in names]),
    ]
    sections = [
        render.Section(title, text, [part for part in parts if part is not None])
        for title, text, parts in sections
    ]
    return [section for section in sections if section.parts]


def _comparison_parts(systems, benchmark: str, measures) -> Parts:
    several = len(comparison.evaluated_on(systems, benchmark)) > 1
    return [
        tables.main_numbers(systems, benchmark, measures),
        figures.main_numbers(systems, benchmark, measures),
        tables.further_metrics(systems, benchmark, measures),
        tables.system_tests(systems, benchmark, measures) if several else None,
    ]


def _pair_parts(systems, benchmark: str, measures) -> Parts:
    metric = comparison.pair_metric(measures)
    first, *others = comparison.evaluated_on(systems, benchmark)
    parts = [figures.pair_heatmaps(systems, benchmark, metric)]
    if others:
        tests = [comparison.compare_pairs(first, other, benchmark, metric) for other in others]
        parts.append(figures.pair_differences(tests, systems, benchmark, metric))
        parts.append(tables.pair_counts(tests, benchmark, metric))
        parts += [tables.pair_tests(x, benchmark, i, metric) for i, x in enumerate(tests, 1)]
    return [*parts, tables.pair_numbers(systems, benchmark, metric)]


def _bias_parts(systems, benchmark: str, measures) -> Parts:
    del measures
    if not comparison.available_measures(systems, benchmark, comparison.BIAS):
        return []
    return [
        tables.language_bias(systems, benchmark),
        figures.own_language_share(systems, benchmark),
        figures.language_bias(systems, benchmark),
    ]


def _group_parts(systems, benchmark: str, measures) -> Parts:
    metric, parts = comparison.pair_metric(measures), []
    for breakdown in breakdowns.GROUPS:
        parts.append(figures.by_group(systems, benchmark, breakdown, measures))
        parts.append(breakdowns.by_group(systems, benchmark, breakdown, measures))
    for division in breakdowns.DIVISIONS:
        parts.append(breakdowns.group_gaps(systems, benchmark, division, measures))
    parts.append(figures.script_families(systems, benchmark, metric))
    return [*parts, breakdowns.script_pairs(systems, benchmark, metric)]


def _scaling_parts(loaded, benchmarks: Sequence[str], measures) -> Parts:
    parts = []
    for axis in scaling.AXES:
        parts += [figures.scaling_curves(loaded, axis, name, measures) for name in benchmarks]
        if scaling.AXES[axis].log:
            parts.append(scaling.fit_table(loaded, axis, benchmarks, measures))
    return parts


def _domain_parts(systems, benchmarks: Sequence[str], in_domain: Sequence[str], measures) -> Parts:
    if not in_domain:
        return []
    shifts = scaling.domain_shifts(systems, benchmarks, in_domain, measures)
    if not shifts:
        return []
    table = scaling.domain_shift_table(shifts, in_domain, benchmarks)
    return [table, figures.domain_shift(shifts)]
