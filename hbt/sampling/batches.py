"""From a plan, which names the pairs of a batch, to their tokens in packed rows.

Shapes: t tasks, b pairs, n texts of a pair (query, positive passage, hard negatives).
"""

import typing
from collections import abc

import numpy as np
from jaxtyping import Int

from hbt import config
from hbt.data import ragged, store
from hbt.sampling import packing

NO_PASSAGE = -2  # passage id of a hard negative that a pair does not have; no text has it


class Plan(typing.NamedTuple):
    """The pairs of one global batch, as integers; b may be less than the size of the batch."""

    step: int
    kind: str  # mono or cross
    datasets: Int[np.ndarray, ' b']
    groups: Int[np.ndarray, ' b']
    query_languages: Int[np.ndarray, ' b']  # index those of the sampler
    passage_languages: Int[np.ndarray, ' b']


class Batch(typing.NamedTuple):
    """The pairs of a step on some devices; their texts are packed."""

    packed: ragged.PackedRows
    embedding_indices: Int[np.ndarray, 't b n']  # of each text, in [rows * slots] of its device
    pair_indices: Int[np.ndarray, 't b']  # of each pair, in the plan of its task
    query_ids: Int[np.ndarray, 't b']  # duplicate cluster; translations share it
    passage_ids: Int[np.ndarray, 't b m']  # the same of the m passages of a pair, or NO_PASSAGE


SHARD_AXES = Batch(0, 1, 1, 1, 1)  # the axis of each array that is split over the devices


def empty_batch(c: config.Config, devices: int, rows: int, width: int) -> Batch:
    """A global batch without texts, of `rows` rows a device: its shapes are those of a real one."""
    tasks, n = 2 if c.sampler.kind == 'multitask' else 1, 2 + c.sampler.negatives
    tokens, pairs = np.zeros((rows * devices, width), np.int32), (tasks, c.batch_size)
    texts = (np.zeros((*pairs, size), np.int32) for size in (n, n - 1))
    ids = (np.zeros(pairs, np.int32) for _ in range(2))
    return Batch(ragged.PackedRows(tokens, tokens), next(texts), *ids, next(texts))


class ColumnTexts(typing.NamedTuple):
    """The texts of one token table that are in one column of some pairs of a task."""

    task: int
    column: int  # 0: query, 1: positive passage, 2 and up: hard negatives
    pairs: Int[np.ndarray, ' m']
    table: ragged.TokenTable
    texts: Int[np.ndarray, ' m']  # indices in the table
    ids: Int[np.ndarray, ' m']  # duplicate clusters
    limit: int  # tokens


class StepTexts(typing.NamedTuple):
    """All texts of a step, without their tokens."""

    columns: list[ColumnTexts]
    lengths: Int[np.ndarray, 't b n']  # in tokens; 0: no such text
    ids: Int[np.ndarray, 't b n']


def collect_texts(
    c: config.Config, s: store.Store, languages: abc.Sequence[str], plans: abc.Sequence[Plan]
) -> StepTexts:
    """The texts of the plans of a step."""
    shape = (len(plans), c.batch_size, 2 + c.sampler.negatives)
    lengths, ids = np.zeros(shape, np.int64), np.full(shape, NO_PASSAGE, np.int64)
    columns = [x for i, plan in enumerate(plans) for x in _columns(c, s, languages, i, plan)]
    for x in columns:
        lengths[x.task, x.pairs, x.column] = ragged.truncated_lengths(x.table, x.texts, x.limit)
        ids[x.task, x.pairs, x.column] = x.ids
    return StepTexts(columns, lengths, ids)


def make_batch(
    c: config.Config,
    s: store.Store,
    languages: abc.Sequence[str],
    plans: abc.Sequence[Plan],
    num_devices: int,
    devices: range,
) -> Batch:
    """The texts of the plans of a step for `devices` out of so many."""
    texts = collect_texts(c, s, languages, plans)
    width, tokenizer = packing.row_width(c.data), s.manifest['tokenizer']
    return pack_batch(texts, width, num_devices, devices, tokenizer)


def assign_rows(
    lengths: Int[np.ndarray, 't b n'], width: int, num_devices: int
) -> tuple[Int[np.ndarray, 't b'], int, list[Int[np.ndarray, '3 m']]]:
    """Deals the pairs to the devices and packs the texts of each.

    Returns the pairs in the order of the devices, the rows of a device, enough for each of them,
    and by device the placement of its texts [t * (b / devices) * n].
    """
    order = packing.deal_pairs(lengths.sum(2), num_devices)
    tasks, b, n = lengths.shape
    dealt = np.take_along_axis(lengths, order[:, :, None], axis=1)
    split = dealt.reshape(tasks, num_devices, b // num_devices, n).swapaxes(0, 1)
    packed = [packing.pack_texts(x, width) for x in split.reshape(num_devices, -1)]
    return order, packing.round_row_count(max(x for x, _ in packed)), [x for _, x in packed]


def pack_batch(
    texts: StepTexts, width: int, num_devices: int, devices: range, tokenizer: dict
) -> Batch:
    """Packs texts for `devices` out of so many; `tokenizer` is that of the store's manifest.

    Every device gets as many pairs, of nearly as many tokens. The shape follows from the texts of
    all devices, so that all hosts compile the same shapes.
    """
    order, rows, placements = assign_rows(texts.lengths, width, num_devices)
    tasks, b, n = texts.lengths.shape
    each = b // num_devices
    placed = np.full((tasks, b, n, 4), -1)  # row, start, slot, device
    for device, placement in enumerate(placements):
        part = placed[:, device * each : (device + 1) * each]
        part[..., :3] = np.stack(placement, axis=-1).reshape(tasks, each, n, 3)
        part[..., 3] = device
    row, _, slot, _ = np.moveaxis(placed, 3, 0)
    indices = np.where(row < 0, rows, row) * packing.slots_per_row(width) + np.maximum(slot, 0)
    np.put_along_axis(placed, order[:, :, None, None], placed.copy(), axis=1)  # by pair of the plan
    own = slice(devices.start * each, devices.stop * each)
    ids = np.take_along_axis(texts.ids, order[:, own, None], axis=1).astype(np.int32)
    indices, order = (x[:, own].astype(np.int32) for x in (indices, order))
    packed = _fill_rows(texts, placed, rows, width, devices, tokenizer)
    return Batch(packed, indices, order, ids[:, :, 0], ids[:, :, 1:])


def _fill_rows(texts: StepTexts, placed, rows: int, width: int, devices: range, tokenizer: dict):
    """The packed rows of some devices; `placed` has row, start, slot and device [t b n 4]."""
    tokens = np.full(len(devices) * rows * width, tokenizer['pad_id'], np.int32)
    segment_ids = np.zeros_like(tokens)
    for x in texts.columns:
        row, start, slot, device = placed[x.task, x.pairs, x.column].T
        own = (row >= 0) & (device >= devices.start) & (device < devices.stop)
        lengths = texts.lengths[x.task, x.pairs[own], x.column]
        offset, ids = ragged.concatenate_texts(x.table, x.texts[own], lengths, tokenizer['end_id'])
        first = (((device - devices.start) * rows + row) * width + start)[own]
        target = np.repeat(first, lengths) + offset
        tokens[target], segment_ids[target] = ids, np.repeat(slot[own] + 1, lengths)
    return ragged.PackedRows(tokens.reshape(-1, width), segment_ids.reshape(-1, width))


def _columns(c: config.Config, s: store.Store, languages, task: int, plan: Plan):
    """The texts of a plan, by column, dataset and language."""
    for column, side, of_pair, limit in (
        (0, 'query', plan.query_languages, c.data.query_length),
        (1, 'passage', plan.passage_languages, c.data.passage_length),
    ):
        for number, i in np.unique([plan.datasets, of_pair], axis=1).T:
            dataset, language = s.datasets[number], languages[i]
            pairs = np.flatnonzero((plan.datasets == number) & (of_pair == i))
            table, texts, ids = dataset.texts_of_groups(side, language, plan.groups[pairs])
            yield ColumnTexts(task, column, pairs, table, texts, ids, limit)
            if side == 'passage' and language in dataset.negatives:
                yield from _hard_negatives(c, dataset, language, task, plan, pairs)


def _hard_negatives(c: config.Config, dataset: store.Dataset, language: str, task, plan, pairs):
    """The hard negatives of pairs of a dataset; one with more of them shows others next time."""
    negatives, table = dataset.negatives[language], dataset.passage[language]
    depth, limit = c.sampler.negatives, c.data.passage_length
    first = negatives.offsets[plan.groups[pairs]]
    count = negatives.offsets[plan.groups[pairs] + 1] - first
    for number in range(1, 1 + depth):
        having = np.flatnonzero(count >= number)
        turn = (plan.step * depth + number - 1) % count[having]
        texts = negatives.passages[first[having] + turn]
        present = table.lengths[texts] > 0  # a collection may lack a text in some language
        having, texts = having[present], texts[present]
        ids = dataset.clusters('passage', texts)
        yield ColumnTexts(task, 1 + number, pairs[having], table, texts, ids, limit)
