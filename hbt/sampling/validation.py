"""The pairs of a validation loss: every group of a held-out store once, in the same batches always.

Apart from training: held-out groups that are in its store are refused.
"""

import collections
import itertools
from collections import abc

import numpy as np
from jaxtyping import Bool, Int, UInt64

from hbt import config
from hbt.data import store
from hbt.sampling import batches, mixture, schedule
from hbt.utils import files

COMPARED = ('.hashes', '.indices')  # files that `check_disjoint` reads
_PREFIX_BITS = 20  # of a hash


def plan_batches(
    c: config.Config, s: store.Store, languages: abc.Sequence[str]
) -> list[batches.Plan]:
    """Batches of one data set each, in which every group with a pair in `languages` is once.

    Of groups that can be in both kinds of batches, alpha are in monolingual ones; `alpha_points`
    count by their last. The languages of monolingual batches take turns, those of a cross-lingual
    pair are drawn uniformly. Raises ValueError if there is no group, or nothing to compare it with.
    """
    if c.loss.negatives == 'hard' and not any(x.negatives for x in s.datasets):
        raise ValueError(
            f'eval.validation: expected hard negatives, for loss.negatives=hard, in {s.path}, got '
            'none'
        )
    pairs = [x for i in range(len(s.datasets)) for x in _plan_dataset(c, s, i, tuple(languages))]
    if max((len(groups) for _, _, groups, *_ in pairs), default=0) < 2:
        expected = f'two groups or more with a pair in {", ".join(languages)}'
        raise ValueError(f'eval.validation: expected {expected} in {s.path}, got fewer')
    return [
        batches.Plan(i, kind, np.full(len(groups), number), groups, *of_pair)
        for i, (kind, number, groups, *of_pair) in enumerate(pairs)
    ]


def _plan_dataset(
    c: config.Config, s: store.Store, number: int, languages: tuple[str, ...]
) -> abc.Iterator[tuple]:
    """Yields (kind, data set, groups, query languages, passage languages) of each batch."""
    pools = [*mixture.find_pools(c.seed, s, number, languages)]
    fits = np.zeros((len(pools), s.datasets[number].num_groups), bool)
    for mask, pool in zip(fits, pools, strict=True):
        mask[pool.select_groups(np.arange(pool.size))] = True
    by_pool = np.array([x.languages for x in pools], int).reshape(-1, 2)
    mono = by_pool[:, 0] == by_pool[:, 1]
    rng = np.random.default_rng([c.seed, 6, number])
    order = rng.permutation(fits.shape[1])
    can_mono, can_cross = fits[mono].any(0)[order], fits[~mono].any(0)[order]
    points = config.alpha_points(c.sampler)
    alpha = float(schedule.alpha_at(c.sampler, points[-1][0] if points else 0))
    both = np.cumsum(can_mono & can_cross)
    in_mono = can_mono & (~can_cross | (both <= round(alpha * both.max(initial=0))))
    in_cross = can_cross & ~in_mono
    for kind, groups, used in (('mono', order[in_mono], mono), ('cross', order[in_cross], ~mono)):
        deal = _deal_turns if kind == 'mono' and c.sampler.mono == 'one' else _deal_mixed
        for part, pool in deal(rng, groups, fits[used], c.batch_size):
            yield kind, number, part, *by_pool[used][pool].T


def _split_evenly(count: int, size: int) -> int:
    """The pairs of a batch, when `count` go into as few batches as hold up to `size` each."""
    return -(-count // max(1, -(-count // size)))


def _deal_turns(
    rng, groups: Int[np.ndarray, ' n'], fits: Bool[np.ndarray, 'p m'], size: int
) -> abc.Iterator[tuple]:
    """Yields the groups of each batch, and their pool, which is one of the batch."""
    of_pool = collections.defaultdict(list)
    for pool in itertools.cycle(rng.permutation(len(fits)).tolist()):
        if not len(groups):
            break
        own = np.flatnonzero(fits[pool, groups])
        own = own[: _split_evenly(len(own), size)]
        of_pool[pool].extend(groups[own].tolist())
        groups = np.delete(groups, own)
    for pool, dealt in of_pool.items():
        even = _split_evenly(len(dealt), size)
        for start in range(0, len(dealt), max(1, even)):
            part = np.array(dealt[start : start + even])
            yield part, np.full(len(part), pool)


def _deal_mixed(
    rng, groups: Int[np.ndarray, ' n'], fits: Bool[np.ndarray, 'p m'], size: int
) -> abc.Iterator[tuple]:
    """Yields the groups of each batch, and the pool of each group."""
    size = _split_evenly(len(groups), size)
    for start in range(0, len(groups), max(1, size)):
        part = groups[start : start + size]
        yield part, (rng.random((len(fits), len(part))) * fits[:, part]).argmax(0)


def check_disjoint(s: store.Store, training: store.Store) -> None:
    """ValueError if a group of `s` has query and passage of one of `training`, by their hashes.

    In any languages: a translation shares the group.
    """
    by_text = {side: _groups_by_text(s, side) for side in store.SIDES}
    known = {side: np.array(sorted(x), np.uint64) for side, x in by_text.items()}
    shared: dict[tuple[int, int], tuple[int, int]] = {}  # group of `s` -> of training
    for number, dataset in enumerate(training.datasets):
        masks = [_have_text(dataset, side, known[side]) for side in store.SIDES]
        for group in np.flatnonzero(masks[0] & masks[1]):
            with_text = (_find_groups(dataset, x, group, by_text[x]) for x in store.SIDES)
            for key in set.intersection(*with_text):
                shared.setdefault(key, (number, int(group)))
    if shared:
        (first, other), total = min(shared.items()), sum(x.num_groups for x in s.datasets)
        names = [_name(x, *key) for x, key in ((s, first), (training, other))]
        raise ValueError(
            f'eval.validation: expected no group of the training store {training.path}, got '
            f'{len(shared)} of {total}, such as {names[0]}, there {names[1]}; prepare the store '
            f'with --hold_out={total}, and take what that leaves out'
        )


def _groups_by_text(s: store.Store, side: str) -> dict[int, set[tuple[int, int]]]:
    """Hash of a text -> (data set, group) of those that have it, in any language."""
    result = collections.defaultdict(set)
    for number, dataset in enumerate(s.datasets):
        for table in getattr(dataset, side).values():
            hashes = table.hashes[getattr(dataset, f'{side}_indices')]
            for group, value in enumerate(hashes.tolist()):
                result[value].add((number, group))
    result.pop(0, None)  # no text
    return result


def _have_text(
    dataset: store.Dataset, side: str, known: UInt64[np.ndarray, ' n']
) -> Bool[np.ndarray, ' g']:
    """Which groups have a text, in any language, with one of the known hashes, in order."""
    shift = np.uint64(64 - _PREFIX_BITS)
    prefixes = np.zeros(1 << _PREFIX_BITS, bool)  # of which few of many texts have a known one
    prefixes[known >> shift] = True
    tables = getattr(dataset, side).values()
    result = np.zeros(max(len(x.hashes) for x in tables), bool)
    for table in tables:
        for start in range(0, len(table.hashes), mixture.CHUNK):
            hashes = table.hashes[start : start + mixture.CHUNK]
            near = np.flatnonzero(prefixes[hashes >> shift])
            place = np.minimum(np.searchsorted(known, hashes[near]), len(known) - 1)
            result[start + near[known[place] == hashes[near]]] = True
    return result[getattr(dataset, f'{side}_indices')]


def _find_groups(dataset: store.Dataset, side: str, group, by_text: dict) -> set[tuple[int, int]]:
    text = getattr(dataset, f'{side}_indices')[group]
    hashes = (int(x.hashes[text]) for x in getattr(dataset, side).values())
    return set().union(*(by_text.get(x, ()) for x in hashes))


def _name(s: store.Store, number: int, group: int) -> str:
    return files.shorten(f'{s.datasets[number].name}/{s.datasets[number].group_id(group)}')
