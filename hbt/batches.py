"""From the rows of a plan to the tokens of a batch.

Hides how texts become arrays of few shapes. Every host sees the whole plan and reads only its own
rows. Called by `sampler`; `train` consumes a `Batch`.
"""

import typing
from collections import abc

import numpy as np
from jaxtyping import Int

from hbt import config, losses, store


class Plan(typing.NamedTuple):
    """The rows of one global batch, as integers; languages index those of the sampler."""

    step: int
    kind: str
    dataset: int
    groups: Int[np.ndarray, ' b']
    query_language: Int[np.ndarray, ' b']
    passage_language: Int[np.ndarray, ' b']


class Batch(typing.NamedTuple):
    """Token ids and identities of rows; document 0 of a row is its positive passage."""

    queries: Int[np.ndarray, 't b lq']
    documents: Int[np.ndarray, 't b n ld']
    query_ids: Int[np.ndarray, 't b']  # equal: the same query, or a translation of it
    document_ids: Int[np.ndarray, 't b n']  # equal: same document or translation; -1 like no other


class Cell(typing.NamedTuple):
    """Texts of one table that go to one slot of some rows."""

    task: int
    slot: int
    rows: Int[np.ndarray, ' n']
    table: store.Table
    texts: Int[np.ndarray, ' n']
    ids: Int[np.ndarray, ' n']


def assemble(
    c: config.Config,
    s: store.Store,
    languages: abc.Sequence[str],
    plans: abc.Sequence[Plan],
    part: int,
    parts: int,
) -> Batch:
    """The tokens of the `part`-th of `parts` equal runs of the rows of the plans of a step.

    The widths follow from all rows, so that all hosts compile the same shapes.
    """
    tokenizer, size = s.manifest['tokenizer'], c.batch_size // parts
    start, sides = part * size, []
    for side, limit, depth in (
        ('query', c.data.query_length, 1),
        ('passage', c.data.passage_length, 1 + c.sampler.negatives),
    ):
        found = [x for i, p in enumerate(plans) for x in cells(s, languages, i, p, side, depth)]
        longest = max(store.lengths(x.table, x.texts, limit).max(initial=1) for x in found)
        width = min(limit, store.bucket(int(longest)))
        shape = (len(plans), size, depth)
        tokens = np.full((*shape, width), tokenizer['pad_id'], np.int32)
        ids = np.full(shape, losses.ABSENT, np.int32)
        for x in found:
            mine = (x.rows >= start) & (x.rows < start + size)
            at = x.task, x.rows[mine] - start, x.slot
            tokens[at] = store.gather(
                x.table, x.texts[mine], width, tokenizer['pad_id'], tokenizer['end_id']
            )
            ids[at] = x.ids[mine]
        sides.append((tokens, ids))
    (queries, query_ids), (documents, document_ids) = sides
    return Batch(queries[:, :, 0], documents, query_ids[:, :, 0], document_ids)


def cells(
    s: store.Store, languages: abc.Sequence[str], task: int, plan: Plan, side: str, depth: int
) -> abc.Iterator[Cell]:
    """The texts of a side of a plan, by language; those of slot 1 and up are hard negatives."""
    dataset = s.datasets[plan.dataset]
    asked = plan.query_language if side == 'query' else plan.passage_language
    classes = dataset.query_class if side == 'query' else dataset.passage_class
    for i in np.unique(asked):
        language, rows = languages[i], np.flatnonzero(asked == i)
        groups = plan.groups[rows]
        ids = dataset.base + classes[groups]
        yield Cell(task, 0, rows, getattr(dataset, side)[language], groups, ids)
        if depth == 1 or language not in dataset.negatives:
            continue
        table, known = dataset.negatives[language], dataset.negative_class[language]
        first = table.rows[groups]
        count = table.rows[groups + 1] - first
        for slot in range(1, depth):
            has = count >= slot  # a row with more of them shows others in other steps
            texts = first[has] + (plan.step * (depth - 1) + slot - 1) % count[has]
            ids = np.where(known[texts] < 0, -1, dataset.base + known[texts])
            yield Cell(task, slot, rows[has], table, texts, ids)
