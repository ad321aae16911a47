"""The sections of a report, and what stands in each."""

from collections.abc import Mapping, Sequence

from hbt.reporting import (
    breakdowns,
    comparison,
    embedding_space,
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
SENTENCES = 6  # of differences between systems in the conclusion
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
    """The sections that have anything to show of these measures.

    Benchmarks `in_domain`, of the training domain, are set against all others. Raises ValueError
    where one of them is unknown, or no benchmark has the measures.
    """
    systems, names = experiments.group_by_seed(loaded), experiments.list_benchmarks(loaded)
    cases = [comparison.make_comparison(systems, name, measures) for name in names]
    cases = [case for case in cases if case.measures]
    if not cases:
        shown = ', '.join(x.name for x in measures)
        raise ValueError(f'--measure: expected numbers that a benchmark has, got {shown}')
    labels = {name: label for x in systems for name, label in x.label_experiments().items()}
    tests = {x.benchmark: comparison.compare_systems(x) for x in cases}
    views = {x.benchmark: embedding_space.view_systems(x) for x in cases}
    evaluations = [figures.evaluation_curves(case, loaded, labels) for case in cases]
    shift = [scaling.domain_shift_table(systems, names, in_domain, measures)] if in_domain else []
    runs = [tables.overview(loaded, labels), tables.differing_settings(loaded, labels)]
    main = [x for case in cases for x in _main_parts(case, tests[case.benchmark])]
    bias = [x for case in cases for x in _bias_parts(case, views[case.benchmark])]
    sections = [
        ('Conclusion', conclude(cases, tests, views), [tables.verdicts(tests)]),
        ('Runs', '', runs),
        ('Comparison of the runs', COMPARISON, main),
        ('Pairs of languages', PAIRS, [x for case in cases for x in _pair_parts(case)]),
        ('Language bias', BIAS, bias),
        ('Languages, scripts and resources', '', [x for case in cases for x in _group_parts(case)]),
        ('Beside the paper', PAPER, paper.overall_tables(systems) + paper.language_tables(systems)),
        ('Training', '', [figures.training_curves(loaded, labels), *evaluations]),
        ('Scaling', SCALING, _scaling_parts(cases, loaded)),
        ('Domain shift', '', shift + [figures.domain_shift(table) for table in shift if table]),
        ('Origin of the numbers', '', [tables.provenance(loaded, labels, x) for x in names]),
    ]
    sections = [
        render.Section(title, text, [part for part in parts if part is not None])
        for title, text, parts in sections
    ]
    return [section for i, section in enumerate(sections) if section.parts or not i]


def conclude(cases, tests: Mapping[str, list[comparison.Test]], views) -> list[render.Phrase]:
    """What came out, in a paragraph: differences, or else numbers, and the language's variance."""
    pairs = {}  # of systems -> benchmark -> tests
    for name, group in tests.items():
        for x in group:
            pairs.setdefault((x.first, x.second), {}).setdefault(name, []).append(x)
    compared = [item for by_name in pairs.values() for item in by_name.items()]
    phrases = [y for x in compared[:SENTENCES] for y in comparison.describe_tests(*x)]
    if len(compared) > SENTENCES:
        count = len(compared) - SENTENCES
        phrases.append(render.Phrase(f'The table has {count} more comparisons.\n'))
    alone = [comparison.describe_numbers(x) for x in cases if not tests[x.benchmark]]
    shares = [embedding_space.describe_views(x, views[x.benchmark]) for x in cases]
    return phrases + [render.Phrase(text) for text in (*alone, *shares) if text]


def _main_parts(case: comparison.Comparison, tests: Sequence[comparison.Test]) -> Parts:
    table = tables.main_numbers(case)
    parts = [table, figures.main_numbers(case, table), tables.further_metrics(case)]
    return [*parts, tables.system_tests(case, tests) if len(case.systems) > 1 else None]


def _pair_parts(case: comparison.Comparison) -> Parts:
    first, *others = case.systems
    is_crosslingual = any(x != y for x, y in first.pairs(case.benchmark))
    tests = [comparison.compare_pairs(first, x, case.benchmark, case.metric) for x in others]
    parts = [figures.pair_heatmaps(case)] if is_crosslingual else []
    parts += [figures.pair_differences(case, tests)] if is_crosslingual and tests else []
    parts += [tables.pair_counts(case, tests)] if tests else []
    parts += [tables.pair_tests(case, x, i) for i, x in enumerate(tests, 1)]
    return [*parts, tables.pair_numbers(case)]


def _bias_parts(case: comparison.Comparison, views: Sequence[embedding_space.View]) -> Parts:
    if not comparison.make_comparison(case.systems, case.benchmark, comparison.BIAS).measures:
        return []
    parts = [figures.embedding_map(case, views)] if views else []
    parts += [embedding_space.variance_table(case, views)] if views else []
    parts += [tables.language_bias(case), figures.own_language_share(case)]
    return [*parts, figures.language_bias(case)]


def _group_parts(case: comparison.Comparison) -> Parts:
    parts = []
    for breakdown in breakdowns.GROUPS:
        parts += [figures.by_group(case, breakdown), breakdowns.by_group(case, breakdown)]
    parts += [breakdowns.group_gaps(case, division) for division in breakdowns.DIVISIONS]
    return [*parts, figures.script_families(case), breakdowns.script_pairs(case)]


def _scaling_parts(cases: Sequence[comparison.Comparison], loaded) -> Parts:
    parts = []
    for axis in scaling.AXES:
        parts += [figures.scaling_curves(case, loaded, axis) for case in cases]
        if scaling.AXES[axis].log:
            parts.append(scaling.fit_table(cases, loaded, axis))
    return parts
