"""The space of embeddings of every system, before and after training: its plane, and its languages.

The samples are those that evaluations wrote; nothing is embedded here.
"""

import typing
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from hbt.evaluation import samples
from hbt.reporting import comparison, experiments, render

_percent = render.FORMATS['percent']


class View(typing.NamedTuple):
    """A sample of embeddings of a system at one time."""

    system: str
    when: str  # before training, or the step
    sample: samples.Sample
    language: float  # share of the variance that the language explains
    question: float | None  # that of the questions which these explain; None without translations
    points: Float[np.ndarray, 'n 2']
    shown: float  # share of the variance that the points have


def view_systems(case: comparison.Comparison) -> list[View]:
    """The first and the newest sample of every system, as far as there are any.

    Of several seeds, it is the first that counts. None is of vectors that have no plane.
    """
    views = []
    for system in case.systems:
        experiment = next(x for x in system.experiments if case.benchmark in x.results)
        sampled = experiments.load_samples(experiment, case.benchmark)
        label = system.label_experiments()[experiment.name]
        for step, sample in sampled:
            if sample.vectors.shape[1] > 1:
                when = f'step {step:,}' if step or len(sampled) == 1 else 'before training'
                shares = samples.explained_share(sample.vectors, sample.languages), None
                if len(rows := sample.translated):
                    labels = sample.groups[rows].tolist()
                    meaning = samples.explained_share(sample.vectors[rows], labels)
                    shares = shares[0], meaning
                plane = samples.project(sample.vectors)
                views.append(View(label, when, sample, *shares, *plane))
    return views


def variance_table(case: comparison.Comparison, views: Sequence[View]) -> render.Table:
    """How much of the variance of its embeddings language and question explain in every view."""
    formats = {('', 'system'): 'text', ('', 'at'): 'text', ('', 'texts'): 'count'}
    for heading in ('language explains', 'question explains'):
        formats |= {(heading, 'measured'): 'percent', (heading, 'by chance'): 'percent'}
    formats['', 'on the map'] = 'percent'
    rows = []
    for x in views:
        groups = x.sample.groups[x.sample.translated]
        chances = [
            (len({*labels}) - 1) / (len(labels) - 1) if len(labels) else None
            for labels in (x.sample.languages, groups.tolist())
        ]
        shares = [x.language, chances[0], x.question, chances[1]]
        rows.append([x.system, x.when, len(x.sample.ids), *shares, x.shown])
    note = (
        'Language explains: sum of squares between languages over the total sum of squares of the '
        'embeddings, in all dimensions; lower is fairer. Question explains: the same between '
        'questions, of their translations alone; near 100 %, these have one embedding. By chance: '
        'expected of embeddings that have nothing to do with it. On the map: share of the variance '
        'that the map shows. Where languages have questions of their own, their topics count as '
        'language.'
    )
    name = case.name_part('embedding-variance', 'variance that language and question explain')
    return render.make_table(*name, formats, rows, note)


def describe_views(case: comparison.Comparison, views: Sequence[View]) -> str:
    """What language and question explain for every system, in words; nothing without views."""
    clauses = []
    for field, text in (
        ('language', 'the language explains '),
        ('question', 'the question, which translations share, explains '),
    ):
        parts = []
        for name in dict.fromkeys(x.system for x in views):
            *before, last = [x for x in views if x.system == name]
            if (share := getattr(last, field)) is not None:
                earlier = [f' ({_percent(getattr(x, field))} {x.when})' for x in before]
                parts.append(f'{_percent(share)} for {name}' + ''.join(earlier))
        if parts:
            clauses.append(text + comparison.join_words(parts))
    if not clauses:
        return ''
    return f'Of the variance of embeddings of {case.benchmark}, {"; ".join(clauses)}.\n'
