"""Which pairs make a batch: a pure function of (settings, store, step), on any number of hosts."""

import collections
import functools
from collections import abc

import numpy as np
import tokenizers
from jaxtyping import Float, Int

from hbt import config
from hbt.data import ragged, store
from hbt.sampling import batches, draws, mixture, schedule

MAX_PAIRS, MAX_STEPS = 32768, 1024  # planned at a time
KINDS = ('mono', 'cross')


class Mixture:
    """Draws the pairs of one kind of batch from pools, in proportions over all batches together.

    One batch draws from pools that agree in a key, such as the language, drawn in proportion, too.
    """

    def __init__(self, seed: tuple[int, ...], pools: list[mixture.Pool], proportions, keys: list):
        self.pools, self.proportions = pools, proportions
        by_key = collections.defaultdict(list)
        for i, key in enumerate(keys):
            by_key[key].append(i)
        self.members = [np.array(x) for x in by_key.values()]  # numbers of the pools of each key
        self._keys = draws.Stream((*seed, 0), [proportions[x].sum() for x in self.members])
        self._pools = [  # of each pair, by key; None where there is one pool
            draws.Stream((*seed, 1, i), proportions[x]) if len(x) > 1 else None
            for i, x in enumerate(self.members)
        ]
        self._fields = np.array([(p.dataset, *p.languages, p.size) for p in pools]).T
        self._orders = np.array([p.key for p in pools], np.uint64)
        self._partial = [i for i, p in enumerate(pools) if p.groups is not None or len(p.missing)]

    def draw_pairs(self, first: int, count: int, size: int) -> Int[np.ndarray, '4 c b']:
        """Dataset, group, query language and passage language of each pair of some batches."""
        keys, nth = self._keys.draws_from(first, count)
        pools, indices = np.empty((2, count, size), np.int64)
        for key in np.unique(keys):
            mask, stream = keys == key, self._pools[key]
            start, n = int(nth[mask][0]) * size, int(mask.sum()) * size
            choices, turns = np.zeros(n, int), start + np.arange(n)
            if stream:
                choices, turns = stream.draws_from(start, n)
            pools[mask] = self.members[key][choices].reshape(-1, size)
            indices[mask] = turns.reshape(-1, size)
        pools, indices = pools.ravel(), indices.ravel()
        datasets, query_languages, passage_languages, sizes = self._fields[:, pools]
        groups = draws.permute(indices, sizes, self._orders[pools])
        if self._partial:
            order = np.argsort(pools, kind='stable')
            edges = np.searchsorted(pools[order], np.arange(len(self.pools) + 1))
            for i in self._partial:
                part = order[edges[i] : edges[i + 1]]
                groups[part] = self.pools[i].select_groups(groups[part])
        pairs = np.stack([datasets, groups, query_languages, passage_languages])
        return pairs.reshape(4, count, size)

    def count_pairs(self, count: int, size: int) -> Int[np.ndarray, ' p']:
        """Pairs of each pool in the first `count` batches of `size` pairs."""
        counts = np.zeros(len(self.pools), np.int64)
        of_key = self._keys.counts_before(count)
        for members, stream, n in zip(self.members, self._pools, of_key, strict=True):
            counts[members] = stream.counts_before(int(n) * size) if stream else n * size
        return counts


class Sampler:
    """Plans and batches of a training run over a store."""

    def __init__(self, c: config.Config, s: store.Store, devices: int = 1):
        """ValueError if the settings do not fit the store, or there is nothing to draw."""
        self.config, self.store, self.devices = c, s, devices
        self.languages = check_store(c, s)
        weights = mixture.dataset_weights(c.sampler, s)
        pools = [p for i in weights for p in mixture.find_pools(c.seed, s, i, self.languages)]
        one_dataset = c.sampler.datasets == 'one'
        alphas = [alpha for _, alpha in config.alpha_points(c.sampler)] or [c.sampler.alpha]
        is_used = {'mono': max(alphas) > 0, 'cross': min(alphas) < 1}
        self.mixtures = {}
        for number, kind in enumerate(KINDS):
            if not is_used[kind] and c.sampler.kind != 'multitask':
                continue
            usable = [p for p in pools if (len(set(p.languages)) == 1) == (kind == 'mono')]
            if not usable:
                raise _nothing_to_draw(c.sampler, kind, s, self.languages, bool(pools))
            proportions_of = mixture.PROPORTIONS[kind]
            drawn, proportions = proportions_of(c.sampler, usable, weights, self.languages)
            one_language = kind == 'mono' and c.sampler.mono == 'one'
            keys = [(one_language and p.languages, one_dataset and p.dataset) for p in drawn]
            self.mixtures[kind] = Mixture((c.seed, 2 + number), drawn, proportions, keys)
        # Planned at once: one step at a time costs more time, many steps more memory.
        self._block_steps = max(1, min(MAX_STEPS, MAX_PAIRS // c.batch_size))
        self._kinds = draws.Stream((c.seed, 1), self._kind_weights, len(KINDS))
        self._block = functools.lru_cache(2)(self._plan_block)

    def plans(self, step: int) -> list[batches.Plan]:
        """The global batches of a step, the same on every host (paper, section 3.2).

        Hybrid: one, monolingual with probability alpha, else cross-lingual. Multitask: both.
        """
        block, index = divmod(step, self._block_steps)
        return self._block(block)[index]

    def batch(
        self, step: int, devices: range | None = None
    ) -> tuple[list[batches.Plan], batches.Batch]:
        """The plans of a step, and their texts for some of the devices, or for all."""
        plans, devices = self.plans(step), range(self.devices) if devices is None else devices
        args = self.config, self.store, self.languages, plans, self.devices, devices
        return plans, batches.make_batch(*args)

    def count_batches(self, steps: int) -> dict[str, int]:
        """Batches of each kind in the first steps."""
        if self.config.sampler.kind == 'multitask':
            return dict.fromkeys(KINDS, steps)
        return dict(zip(KINDS, self._kinds.counts_before(steps).tolist(), strict=True))

    def _kind_weights(self, steps: Int[np.ndarray, ' n']) -> Float[np.ndarray, 'n 2']:
        alpha = schedule.alpha_at(self.config.sampler, steps)
        return np.stack([alpha, 1 - alpha], 1)

    def _plan_block(self, number: int) -> list[list[batches.Plan]]:
        first, plans = number * self._block_steps, [[] for _ in range(self._block_steps)]
        all_steps = first + np.arange(self._block_steps)
        kinds, before = self._kinds.draws_from(first, self._block_steps)
        for kind, of_kind in self.mixtures.items():
            steps, nth = all_steps, all_steps  # and how many batches of the kind precede each
            if self.config.sampler.kind != 'multitask':
                mask = kinds == KINDS.index(kind)
                steps, nth = steps[mask], before[mask]
            if not len(steps):
                continue
            pairs = of_kind.draw_pairs(int(nth[0]), len(steps), self.config.batch_size)
            for step, *fields in zip(steps, *pairs, strict=True):
                plans[step - first].append(batches.Plan(int(step), kind, *fields))
        return plans


def _nothing_to_draw(
    c: config.Sampler, kind: str, s: store.Store, languages: abc.Sequence[str], has_others: bool
) -> ValueError:
    """The error that no group can be in a batch of a kind; says how to draw the others alone."""
    message = (
        f'sampler.alpha: asks for {kind} batches, but no group of {s.path} in '
        f'{", ".join(languages)} can be in one'
    )
    if has_others:
        others, alpha = {'cross': ('mono', 1), 'mono': ('cross', 0)}[kind]
        changes = f'sampler.alpha={alpha}'
        changes += ' and no sampler.alpha_points' if c.alpha_points else ''
        changes += ' and sampler.kind=hybrid' if c.kind == 'multitask' else ''
        message += f'; with {changes}, all batches are {others}'
    return ValueError(message)


def check_store(c: config.Config, s: store.Store) -> tuple[str, ...]:
    """The languages to train on; ValueError where the settings ask for what the store lacks."""
    for name, expected in s.manifest['settings'].items():
        value = getattr(c.data, name)
        if value != expected and not (name.endswith('_length') and value < expected):
            raise ValueError(f'data.{name}: expected {expected!r}, as in {s.path}, got {value!r}')
    languages = tuple(c.sampler.languages) or s.languages
    for language in languages:
        if language not in s.languages:
            expected = ', '.join(s.languages)
            raise ValueError(f'sampler.languages: expected some of {expected}, got {language!r}')
    if c.sampler.negatives and not any(x.negatives for x in s.datasets):
        raise ValueError(
            f'sampler.negatives: expected 0, as {s.path} has no hard negatives, which hbt.mine '
            f'adds, got {c.sampler.negatives}'
        )
    return languages


def describe_batch(s: Sampler, step: int) -> abc.Iterator[str]:
    """Yields the batches of a step as lines of text: what the model sees, decoded from tokens."""
    tokenizer = tokenizers.Tokenizer.from_file(str(s.store.path / 'tokenizer.json'))
    plans, texts = s.plans(step), {}
    for x in batches.collect_texts(s.config, s.store, s.languages, plans).columns:
        for pair, text in zip(x.pairs, x.texts, strict=True):
            ids = ragged.truncate(ragged.token_ids(x.table, text), x.limit, None)
            texts[x.task, int(pair), x.column] = tokenizer.decode(ids).strip()
    for task, plan in enumerate(plans):
        yield f'step {step}: {plan.kind}, {len(plan.groups)} pairs'
        for pair, (number, group, *languages) in enumerate(zip(*plan[2:], strict=True)):
            dataset = s.store.datasets[number]
            query_language, passage_language = (s.languages[i] for i in languages)
            name = f'{dataset.name}/{dataset.group_id(group)}'
            yield f'{pair} {name} {query_language}>{passage_language}'
            for column in range(2 + s.config.sampler.negatives):
                if (task, pair, column) in texts:
                    yield f'  {"?+-"[min(column, 2)]} {texts[task, pair, column]}'
