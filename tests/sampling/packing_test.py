"""Texts never overlap, rows are full, shapes are few."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbt.sampling import packing


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 64), max_size=80))
def test_every_text_has_its_own_tokens_and_slot(lengths):
    lengths = np.array(lengths, np.int64)
    rows, placement = packing.pack_texts(lengths, 64)
    used = np.zeros((rows, 64), int)
    slots = np.zeros((rows, packing.slots_per_row(64)), int)
    for length, row, start, slot in zip(lengths, *placement, strict=True):
        if length == 0:
            assert row == start == slot == -1
            continue
        assert start + length <= 64
        used[row, start : start + length] += 1
        slots[row, slot] += 1
    assert used.max(initial=0) <= 1 and slots.max(initial=0) <= 1
    assert used.any(1).all()
    assert (np.diff(used, axis=1) <= 0).all(), 'padding stands at the end'


def test_rows_are_full_but_for_a_few():
    lengths = np.minimum(np.random.default_rng(0).lognormal(3, 1, 400), 128).astype(int)
    rows, _ = packing.pack_texts(lengths, 128)
    assert lengths.sum() / (rows * 128) > 0.97, rows


def test_a_row_holds_no_more_texts_than_it_has_slots():
    rows, placement = packing.pack_texts(np.full(100, 2), 64)
    assert placement[2].max() == packing.slots_per_row(64) - 1 and rows == -(
        -100 // packing.slots_per_row(64)
    )


def test_row_counts_are_few_and_near():
    counts = [packing.round_row_count(n) for n in range(1, 4097)]
    assert len(set(counts)) <= 6 + 10 * packing.STEPS_PER_DOUBLING
    assert all(n <= m <= (1 + 1 / packing.STEPS_PER_DOUBLING) * n for n, m in enumerate(counts, 1))
    assert counts == sorted(counts) and packing.round_row_count(0) == 1


@pytest.mark.parametrize('devices', [1, 4, 8])
def test_devices_get_as_many_pairs_and_nearly_as_many_tokens(devices):
    tokens = np.random.default_rng(0).integers(20, 300, (2, 256))
    order = packing.deal_pairs(tokens, devices)
    assert (np.sort(order, axis=1) == np.arange(256)).all()
    shares = np.take_along_axis(tokens, order, axis=1).reshape(2, devices, -1).sum(2)
    assert (shares.max(1) < 1.02 * shares.mean(1)).all()
