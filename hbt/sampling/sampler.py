"""Which rows make a batch: monolingual, cross-lingual, mixed, hybrid, multitask.

Hides how shares of languages, pairs and datasets become rows. A batch is a pure function of
(settings, store, step): a run resumes exactly, on any number of hosts. Called by `main`; as a
program it prints a batch.
"""

import collections
import functools
from collections import abc

import numpy as np
import tokenizers
from jaxtyping import Float, Int

from hbt import config
from hbt.data import ragged, store
from hbt.sampling import batches, draws, mixture, schedule

MAX_PAIRS, MAX_STEPS = 32768, 1024  # at most, planned at a time
KINDS = ('mono', 'cross')


class Mixture:
    """How the rows of one kind of batch are drawn from pools.

    `shares` of the pools hold over all batches together. A batch takes its rows from pools that
    agree in `by`, such as one language; which these are is drawn by their share.
    """

    def __init__(
        self, key: tuple[int, ...], found: list[mixture.Pool], shares: np.ndarray, by: abc.Callable
    ):
        self.pools, self.shares = found, shares
        together = collections.defaultdict(list)
        for i, pool in enumerate(found):
            together[by(pool)].append(i)
        self.members = [np.array(x) for x in together.values()]
        self.batches = draws.Stream((*key, 0), [shares[x].sum() for x in self.members])
        self.rows = [
            draws.Stream((*key, 1, i), shares[x]) if len(x) > 1 else None
            for i, x in enumerate(self.members)
        ]
        self.facts = np.array([(p.dataset, *p.pair, p.size) for p in found]).T
        self.keys = np.array([p.key for p in found], np.uint64)
        self.partial = [i for i, p in enumerate(found) if p.groups is not None or len(p.missing)]

    def take(self, first: int, count: int, size: int) -> np.ndarray:
        """Dataset, group, query and passage language of batches first ... of this kind, [4 c b]."""
        chosen, nth = self.batches.at(first, count)
        pools, places = np.empty((2, count, size), np.int64)
        for number in np.unique(chosen):
            mine, rows = chosen == number, self.rows[number]
            begin, n = int(nth[mine][0]) * size, int(mine.sum()) * size
            choice, place = np.zeros(n, int), begin + np.arange(n)
            if rows:
                choice, place = rows.at(begin, n)
            pools[mine] = self.members[number][choice].reshape(-1, size)
            places[mine] = place.reshape(-1, size)
        pools, places = pools.ravel(), places.ravel()
        dataset, query, passage, sizes = self.facts[:, pools]
        groups = draws.permute(places, sizes, self.keys[pools])
        if self.partial:
            order = np.argsort(pools, kind='stable')
            edges = np.searchsorted(pools[order], np.arange(len(self.pools) + 1))
            for i in self.partial:
                here = order[edges[i] : edges[i + 1]]
                groups[here] = self.pools[i].pick(groups[here])
        return np.stack([dataset, groups, query, passage]).reshape(4, count, size)

    def drawn(self, batches: int, size: int) -> Int[np.ndarray, ' p']:
        """Rows of each pool in the first `batches` batches."""
        counts = np.zeros(len(self.pools), np.int64)
        for members, rows, n in zip(
            self.members, self.rows, self.batches.count(batches), strict=True
        ):
            counts[members] = rows.count(int(n) * size) if rows else n * size
        return counts


# What the pools of one batch agree in: (a monolingual batch's languages, its datasets).
MONO = {
    ('one', 'one'): lambda pool: (pool.query_language, pool.dataset),
    ('one', 'mixed'): lambda pool: pool.query_language,
    ('mixed', 'one'): lambda pool: pool.dataset,
    ('mixed', 'mixed'): lambda pool: (),
}
CROSS = {'one': lambda pool: pool.dataset, 'mixed': lambda pool: ()}


class Sampler:
    """Plans and batches of one run over one store."""

    def __init__(self, c: config.Config, s: store.Store, devices: int = 1):
        """Divides every batch over so many devices.

        ValueError for settings that the store does not fit, or if nothing can be drawn.
        """
        self.config, self.store, self.devices = c, s, devices
        self.languages = check_store(c, s)
        weights = mixture.dataset_weights(c.sampler, s)
        found = [p for i in weights for p in mixture.find(c.seed, s, i, self.languages)]
        together = {
            'mono': MONO[c.sampler.mono, c.sampler.datasets],
            'cross': CROSS[c.sampler.datasets],
        }
        self.mixtures = {}
        for number, kind in enumerate(KINDS):
            mine = [p for p in found if p.monolingual == (kind == 'mono')]
            if not schedule.uses_kind(c.sampler, kind):
                continue
            if not mine:
                raise ValueError(
                    f'sampler.alpha: asks for {kind} batches, but no row of {s.path} in '
                    f'{", ".join(self.languages)} can be in one'
                )
            mine, shares = mixture.SHARES[kind](c.sampler, mine, weights, self.languages)
            self.mixtures[kind] = Mixture((c.seed, 2 + number), mine, shares, together[kind])
        self.kinds = draws.Stream((c.seed, 1), self.kind_weights, 2)
        self.planned = functools.lru_cache(2)(self.plan_block)

    def kind_weights(self, steps: Int[np.ndarray, ' n']) -> Float[np.ndarray, 'n 2']:
        share = schedule.alpha_at(self.config.sampler, steps)
        return np.stack([share, 1 - share], 1)

    def plans(self, step: int) -> list[batches.Plan]:
        """The global batches of a step, the same on every host (paper, section 3.2).

        Hybrid: one, monolingual with probability alpha, else cross-lingual. Multitask: both.
        """
        block, at = divmod(step, self.together)
        return self.planned(block)[at]

    @property
    def together(self) -> int:
        """Steps that are planned at once: one at a time costs more time, many more memory."""
        return max(1, min(MAX_STEPS, MAX_PAIRS // self.config.batch_size))

    def plan_block(self, number: int) -> list[list[batches.Plan]]:
        first, plans = number * self.together, [[] for _ in range(self.together)]
        for kind, mix in self.mixtures.items():
            steps, nth = self.steps(kind, first)
            if not len(steps):
                continue
            taken = mix.take(int(nth[0]), len(steps), self.config.batch_size)
            for step, *rows in zip(steps, *taken, strict=True):
                plans[step - first].append(batches.Plan(int(step), kind, *rows))
        return plans

    def steps(self, kind: str, first: int) -> tuple[np.ndarray, np.ndarray]:
        """Steps of a block that have a batch of a kind, and how many such batches precede each."""
        steps = first + np.arange(self.together)
        if self.config.sampler.kind == 'multitask':
            return steps, steps
        kinds, nth = self.kinds.at(first, self.together)
        mine = kinds == KINDS.index(kind)
        return steps[mine], nth[mine]

    def batch(
        self, step: int, mine: range | None = None
    ) -> tuple[list[batches.Plan], batches.Batch]:
        """The plans of a step, and its texts on the devices in `mine`, or on all."""
        plans = self.plans(step)
        mine = range(self.devices) if mine is None else mine
        return plans, batches.build_batch(
            self.config, self.store, self.languages, plans, self.devices, mine
        )


def check_store(c: config.Config, s: store.Store) -> tuple[str, ...]:
    """The languages to train on; ValueError where the settings ask for what the store has not."""
    for name, had in s.manifest['settings'].items():
        wanted = getattr(c.data, name)
        if wanted != had and not (name.endswith('_length') and wanted < had):
            raise ValueError(f'data.{name}: expected {had!r}, as {s.path} has it, got {wanted!r}')
    languages = tuple(c.sampler.languages) or s.languages
    for language in languages:
        if language not in s.languages:
            known = ', '.join(s.languages)
            raise ValueError(f'sampler.languages: expected some of {known}, got {language!r}')
    return languages


def describe_batch(s: Sampler, step: int) -> abc.Iterator[str]:
    """The batches of a step as lines of text: what the model sees, decoded from its tokens."""
    tokenizer = tokenizers.Tokenizer.from_file(str(s.store.path / 'tokenizer.json'))
    plans, texts = s.plans(step), {}
    for cell in batches.collect_texts(s.config, s.store, s.languages, plans).columns:
        for row, text in zip(cell.pairs, cell.texts, strict=True):
            ids = ragged.truncate(ragged.token_ids(cell.table, text), cell.limit, None)
            texts[cell.task, int(row), cell.column] = tokenizer.decode(ids).strip()
    for task, plan in enumerate(plans):
        yield f'step {step}: {plan.kind}, {len(plan.groups)} rows'
        for row, (number, group, *pair) in enumerate(zip(*plan[2:], strict=True)):
            dataset = s.store.datasets[number]
            asked, given = (s.languages[i] for i in pair)
            yield f'{row} {dataset.name}/{dataset.group_id(group)} {asked}>{given}'
            for slot in range(2 + s.config.sampler.negatives):
                if (task, row, slot) in texts:
                    yield f'  {"?+-"[min(slot, 2)]} {texts[task, row, slot]}'
