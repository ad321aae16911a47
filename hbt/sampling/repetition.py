"""How often a run draws its groups, and which are too few for a batch.

A batch that draws more pairs than there are groups holds groups several times. These are never
negatives of each other, so that it has fewer negatives than it has pairs.
"""

import collections
import itertools
import typing
from collections import abc

from hbt.data import store
from hbt.sampling import mixture, proportions, sampler
from hbt.utils import text_table

SHOWN = 10  # rows of the table, those that are repeated most


class Repetition(typing.NamedTuple):
    """Groups of a dataset, all or those of a language, that batches of a kind repeat."""

    name: str
    groups: int
    times: float  # that a batch holds each of them
    epochs: float | None = None  # of a run


def count_epochs(s: sampler.Sampler) -> dict[str, dict[str, float]]:
    """Kind of batches -> query language -> how often a run draws each of its pairs."""
    epochs = {}
    for kind, batches in _planned_batches(s).items():
        drawn, sizes, drawing = collections.Counter(), collections.Counter(), s.mixtures[kind]
        for pool, proportion in zip(drawing.pools, drawing.proportions, strict=True):
            language = s.languages[pool.languages[0]]
            drawn[language] += batches * s.config.batch_size * float(proportion)
            sizes[language] += pool.size
        epochs[kind] = {language: drawn[language] / n for language, n in sorted(sizes.items())}
    return epochs


def describe_run(s: sampler.Sampler) -> list[str]:
    """Lines on the groups that batches of a run repeat, and what helps; none where they do not."""
    c, repetitions, helps = s.config.sampler, list(_find_repetitions(s)), {}
    for kind in dict.fromkeys(x.name.partition(' ')[0] for x in repetitions):
        pools = s.mixtures[kind].pools
        many_languages = len({frozenset(pool.languages) for pool in pools}) > 1
        if kind == 'mono':
            helps['sampler.mono=mixed'] = many_languages and c.mono == 'one'
            helps['sampler.language_power=1'] = many_languages and c.language_power < 1
        else:
            helps['sampler.pair_power=1'] = many_languages and c.pair_power < 1 and not c.pairs
        if len({pool.dataset for pool in pools}) > 1:
            helps['sampler.datasets=mixed'] = c.datasets == 'one'
    advice = [name for name, does_help in helps.items() if does_help]
    return _format(repetitions, s.config.batch_size, advice)


def describe_store(s: store.Store, batch_size: int) -> list[str]:
    """The same of monolingual batches of this size, of a run with the default settings."""
    repetitions = []
    for i, language in itertools.product(range(len(s.datasets)), s.languages):
        for pool in mixture.find_pools(0, s, i, (language,)):
            if pool.size < batch_size:
                name = _name('mono', language, s, i)
                repetitions.append(Repetition(name, pool.size, batch_size / pool.size))
    helps = ['sampler.mono=mixed', 'sampler.language_power=1'] if len(s.languages) > 1 else []
    return _format(repetitions, batch_size, helps)


def _find_repetitions(s: sampler.Sampler) -> abc.Iterator[Repetition]:
    """Of a dataset that one batch draws from: languages that are repeated, or else all of them."""
    for kind, batches in _planned_batches(s).items():
        drawing = s.mixtures[kind]
        for of_key, dataset, numbers in _iter_datasets(drawing):
            parts = collections.defaultdict(list)
            for i in numbers:
                for language in {s.languages[j] for j in drawing.pools[i].languages}:
                    parts[language].append(i)
            repetitions = []
            for language, part in [*sorted(parts.items()), ('all languages', numbers)]:
                pairs = s.config.batch_size * float(drawing.proportions[part].sum())
                if pairs / of_key <= max(drawing.pools[i].size for i in part):
                    continue  # counting takes a while
                groups = mixture.count_groups([drawing.pools[i] for i in part])
                times = pairs / of_key / groups
                if times > 1 and (language in parts or not repetitions):
                    name = _name(kind, language, s.store, dataset)
                    repetitions.append(Repetition(name, groups, times, batches * pairs / groups))
            yield from repetitions


def _iter_datasets(drawing: sampler.Mixture) -> abc.Iterator[tuple[float, int, list[int]]]:
    """Yields (proportion of the key, dataset, its pools) for each key that a batch can have."""
    for members in drawing.members:
        by_dataset = collections.defaultdict(list)
        for i in members:
            by_dataset[drawing.pools[i].dataset].append(int(i))
        for dataset, numbers in by_dataset.items():
            yield float(drawing.proportions[members].sum()), dataset, numbers


def _planned_batches(s: sampler.Sampler) -> dict[str, float]:
    """Batches of each kind that a run is expected to draw."""
    c = s.config
    mono = proportions.mean_alpha(c.sampler, c.steps)
    parts = (1, 1) if c.sampler.kind == 'multitask' else (mono, 1 - mono)
    named = zip(sampler.KINDS, parts, strict=True)
    return {kind: float(c.steps * part) for kind, part in named if kind in s.mixtures}


def _name(kind: str, language: str, s: store.Store, dataset: int) -> str:
    where = f' of {s.datasets[dataset].name}' if len(s.datasets) > 1 else ''
    return f'{kind} {language}{where}'


def _format(repetitions: list[Repetition], batch_size: int, helps: list[str]) -> list[str]:
    if not repetitions:
        return []
    repetitions = sorted(repetitions, key=lambda x: -x.times)
    rows = [
        (x.name, x.groups, f'{x.times:.1f}', f'{x.epochs:,.1f}' if x.epochs else '-')
        for x in repetitions[:SHOWN]
    ]
    title = f'too few for a batch of {batch_size} pairs'
    header = (title, 'groups', 'times in a batch', 'epochs')
    more = f'... ({len(repetitions)} in all)\n' if len(repetitions) > SHOWN else ''
    advice = ', '.join([*helps, 'a smaller batch_size'])
    return f'{text_table.format_table(header, rows)}\n{more}Fewer repetitions: {advice}'.split('\n')
