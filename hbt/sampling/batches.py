"""From the rows of a plan to the tokens of a batch.

Hides how texts become arrays of few shapes. Every host sees the whole plan and reads only its own
rows. Called by `sampler`; `train` consumes a `Batch`.


InfoNCE with in-batch and hard negatives, masked by identity.

Hides which columns are negatives of which rows, and how the columns of all devices are walked
over without holding their logits. Per-device functions over the mesh axis. Called by `train`.
"""

import typing
from collections import abc

import numpy as np
from jaxtyping import Int

from hbt import config
from hbt.data import ragged, store
from hbt.sampling import packing


class Plan(typing.NamedTuple):
    """The rows of one global batch, as integers; languages index those of the sampler."""

    step: int
    kind: str
    datasets: Int[np.ndarray, ' b']
    groups: Int[np.ndarray, ' b']
    query_languages: Int[np.ndarray, ' b']
    passage_languages: Int[np.ndarray, ' b']


class Batch(typing.NamedTuple):
    """The texts of rows, packed, and what tells them apart; text 0 of a row is its query."""

    packed: ragged.PackedRows
    embedding_indices: Int[np.ndarray, 't b n']  # of a text, among the embeddings of its device
    pair_indices: Int[np.ndarray, 't b']  # of a row, in the plan of its task
    query_ids: Int[np.ndarray, 't b']  # equal: the same query, or a translation of it
    passage_ids: Int[np.ndarray, 't b m']  # equal: same document or translation; -2: absent


SHARD_AXES = Batch(0, 1, 1, 1, 1)  # the axis of each array that is split over the devices


class ColumnTexts(typing.NamedTuple):
    """Texts of one table that go to one slot of some rows."""

    task: int
    column: int
    pairs: Int[np.ndarray, ' n']
    table: ragged.TokenTable
    texts: Int[np.ndarray, ' n']
    ids: Int[np.ndarray, ' n']
    limit: int


class StepTexts(typing.NamedTuple):
    """All texts of a step: query, positive and hard negatives of the rows of every task."""

    columns: list[ColumnTexts]
    lengths: Int[np.ndarray, 't b n']  # in tokens; 0: no such text
    ids: Int[np.ndarray, 't b n']


def build_batch(
    c: config.Config,
    s: store.Store,
    languages: abc.Sequence[str],
    plans: abc.Sequence[Plan],
    devices: int,
    mine: range,
) -> Batch:
    """The batch of the plans of a step, for the devices in `mine` out of so many.

    Every device gets as many rows, of nearly as many tokens. The shape follows from all texts, so
    that all hosts compile the same ones.
    """
    texts = collect_texts(c, s, languages, plans)
    return pack_batch(
        texts, packing.row_width(longest_text(c.data)), devices, mine, s.manifest['tokenizer']
    )


def longest_text(c: config.Data) -> int:
    return max(c.query_length, c.passage_length)


def pack_batch(texts: StepTexts, width: int, devices: int, mine: range, tokenizer: dict) -> Batch:
    """Deals the rows to the devices and packs what each of them has."""
    order, count, found = assign_rows(texts.lengths, width, devices)
    tasks, b, n = texts.lengths.shape
    own = slice(mine.start * b // devices, mine.stop * b // devices)
    places = np.full((tasks, b, n, 4), -1)  # row of the device, start, slot, device
    for device, place in enumerate(found):
        at = slice(device * b // devices, (device + 1) * b // devices)
        where = np.stack([*place, np.full(len(place.row), device)], axis=-1)
        places[:, at] = where.reshape(tasks, b // devices, n, 4)
    row, _, slot, _ = np.moveaxis(places, 3, 0)
    number = np.where(row < 0, count, row) * packing.slots_per_row(width) + np.maximum(slot, 0)
    np.put_along_axis(places, order[:, :, None, None], places.copy(), axis=1)  # by row of the plan
    ids = np.take_along_axis(texts.ids, order[:, own, None], axis=1).astype(np.int32)
    return Batch(
        fill(texts, places, count, width, mine, tokenizer),
        number[:, own].astype(np.int32),
        order[:, own].astype(np.int32),
        ids[:, :, 0],
        ids[:, :, 1:],
    )


def assign_rows(
    lengths: Int[np.ndarray, 't b n'], width: int, devices: int
) -> tuple[Int[np.ndarray, 't b'], int, list[packing.Placement]]:
    """(order of the rows by device, packed rows of a device, places of the texts of each)."""
    order = packing.deal_pairs(lengths.sum(2), devices)
    tasks, b, n = lengths.shape
    dealt = np.take_along_axis(lengths, order[:, :, None], axis=1)
    split = dealt.reshape(tasks, devices, b // devices, n).swapaxes(0, 1).reshape(devices, -1)
    return order, *packing.pack_devices(split, width)


def collect_texts(
    c: config.Config, s: store.Store, languages: abc.Sequence[str], plans: abc.Sequence[Plan]
) -> StepTexts:
    """The texts of the plans of a step, without their tokens."""
    shape = (len(plans), c.batch_size, 2 + c.sampler.negatives)
    lengths, ids = np.zeros(shape, np.int64), np.full(shape, NO_PASSAGE, np.int64)
    found = [x for i, plan in enumerate(plans) for x in cells(c, s, languages, i, plan)]
    for x in found:
        lengths[x.task, x.pairs, x.column] = ragged.truncated_lengths(x.table, x.texts, x.limit)
        ids[x.task, x.pairs, x.column] = x.ids
    return StepTexts(found, lengths, ids)


def fill(
    texts: StepTexts,
    places: Int[np.ndarray, 't b n 4'],
    count: int,
    width: int,
    mine: range,
    tokenizer: dict,
) -> ragged.PackedRows:
    """The tokens of the devices in `mine`, each text at its place (row, start, slot, device)."""
    tokens = np.full(len(mine) * count * width, tokenizer['pad_id'], np.int32)
    numbers = np.zeros_like(tokens)
    for x in texts.columns:
        row, start, slot, device = places[x.task, x.pairs, x.column].T
        here = (row >= 0) & (device >= mine.start) & (device < mine.stop)
        lengths = texts.lengths[x.task, x.pairs[here], x.column]
        index, ids = ragged.concatenate_texts(x.table, x.texts[here], lengths, tokenizer['end_id'])
        first = (((device - mine.start) * count + row) * width + start)[here]
        to = np.repeat(first, lengths) + index
        tokens[to], numbers[to] = ids, np.repeat(slot[here] + 1, lengths)
    return ragged.PackedRows(tokens.reshape(-1, width), numbers.reshape(-1, width))


def cells(
    c: config.Config, s: store.Store, languages: abc.Sequence[str], task: int, plan: Plan
) -> abc.Iterator[ColumnTexts]:
    """The texts of a plan by dataset and language; those of slot 2 and up are hard negatives."""
    for slot, side, asked, limit in (
        (0, 'query', plan.query_languages, c.data.query_length),
        (1, 'passage', plan.passage_languages, c.data.passage_length),
    ):
        for number, i in np.unique(np.stack([plan.datasets, asked]), axis=1).T:
            dataset, language = s.datasets[number], languages[i]
            rows = np.flatnonzero((plan.datasets == number) & (asked == i))
            table, texts, ids = dataset.texts_of_groups(side, language, plan.groups[rows])
            yield ColumnTexts(task, slot, rows, table, texts, ids, limit)
            if slot == 1 and language in dataset.negatives:
                yield from hard(c, dataset, language, task, plan, rows)


def hard(
    c: config.Config,
    dataset: store.Dataset,
    language: str,
    task: int,
    plan: Plan,
    rows: Int[np.ndarray, ' n'],
) -> abc.Iterator[ColumnTexts]:
    """The hard negatives of rows of a dataset; a row with more of them shows others next time."""
    links, table, depth = (
        dataset.negatives[language],
        dataset.passage[language],
        c.sampler.negatives,
    )
    first = links.offsets[plan.groups[rows]]
    count = links.offsets[plan.groups[rows] + 1] - first
    for number in range(1, 1 + depth):
        has = np.flatnonzero(count >= number)
        texts = links.passages[first[has] + (plan.step * depth + number - 1) % count[has]]
        known = table.lengths[texts] > 0  # a collection may lack a text in some language
        has, texts = has[known], texts[known]
        ids = dataset.cluster_offset + dataset.passage_clusters[texts]
        yield ColumnTexts(task, 1 + number, rows[has], table, texts, ids, c.data.passage_length)


NO_PASSAGE = -2  # document id of a hard negative that a row does not have, and of no text at all
