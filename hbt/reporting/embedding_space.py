"""The space of embeddings of every system, before and after training: its plane, and its languages.

The samples are those that evaluations wrote; nothing is embedded here.
"""

import typing
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from hbt.evaluation import samples
from hbt.reporting import comparison, experiments, render


class View(typing.NamedTuple):
    """A sample of embeddings of a system at one time."""

    system: str
    when: str  # before training, or the step
    sample: samples.Sample
    share: float  # of the variance that the language explains
    points: Float[np.ndarray, 'n 2']  # on the plane of all views of the system
    shown: float  # share of the variance that is on this plane


def view_systems(case: comparison.Comparison) -> list[View]:
    """The first and the newest sample of every system, as far as there are any.

    Of several seeds, it is the first that counts. None is of vectors that have no plane.
    """
    views = []
    for system in case.systems:
        experiment = next(x for x in system.experiments if case.benchmark in x.results)
        found = experiments.load_samples(experiment, case.benchmark)
        found = [(step, x) for step, x in found if x.vectors.shape[1] > 1]
        if found:
            planes = samples.project_samples([x.vectors for _, x in found])
            label = system.called()[experiment.name]
            for (step, sample), (points, shown) in zip(found, planes, strict=True):
                share = samples.language_share(sample.vectors, sample.languages)
                when = f'step {step:,}' if step or len(found) == 1 else 'before training'
                views.append(View(label, when, sample, share, points, shown))
    return views


def variance_table(case: comparison.Comparison, views: Sequence[View]) -> render.Table:
    """How much of the variance of its embeddings the language explains in every view."""
    formats = {'system': 'text', 'at': 'text', 'texts': 'count', 'languages': 'count'}
    formats |= {'language explains': 'percent', 'by chance': 'percent', 'on the map': 'percent'}
    rows = []
    for x in views:
        n, languages = len(x.sample.languages), len({*x.sample.languages})
        chance = (languages - 1) / (n - 1)
        rows.append([x.system, x.when, n, languages, x.share, chance, x.shown])
    note = (
        'Language explains: sum of squares between languages over the total sum of squares of the '
        'embeddings, in all dimensions; lower is fairer. By chance: expected of embeddings without '
        'any language in them. On the map: share of the variance that the plane of the map shows. '
        'Where languages have questions of their own, their topics count as language.'
    )
    name = case.name_part('embedding-variance', 'variance that the language explains')
    table = render.make_table(*name, formats, rows, note)
    newest = {x.system: i for i, x in enumerate(views)}.values()
    shares = pd.DataFrame({'language explains': -table.frame['language explains'].iloc[[*newest]]})
    return table._replace(bold=render.best_cells(shares))


def describe_views(case: comparison.Comparison, views: Sequence[View]) -> str:
    """What the language explains for every system, in a sentence; nothing without views."""
    parts = []
    for name in dict.fromkeys(x.system for x in views):
        *before, last = [x for x in views if x.system == name]
        earlier = f' ({100 * before[0].share:.1f} % {before[0].when})' if before else ''
        parts.append(f'{100 * last.share:.1f} % for {name}{earlier}')
    if not parts:
        return ''
    shares = comparison.join_words(parts)
    return f'Of the variance of embeddings of {case.benchmark}, the language explains {shares}.\n'
