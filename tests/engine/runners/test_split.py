"""Batches are cut smaller without losing a row."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embedmill.base.records import Batch, IntArray, Packing
from embedmill.batch.pack import pack
from embedmill.engine.runners.split import next_part, scaled_rows, split_batch
from tests.support.plans import batch_of
from tests.support.works import buckets_of

SCALES = st.integers(0, 7).map(lambda halvings: 0.5**halvings)
LENGTHS = st.lists(st.integers(1, 64), min_size=1, max_size=80).map(lambda found: np.array(found, np.int64))
BUCKETS = buckets_of((16, 8), (8, 16), (4, 32), (2, 64))


def rows_of(batches: list[Batch]) -> list[int]:
    return [int(row) for batch in batches for row in batch.rows]


@given(lengths=LENGTHS, scale=SCALES, budget=st.integers(1, 512))
def test_any_shape_is_cut_into_parts_that_hold_every_row_once(lengths: IntArray, scale: float, budget: int) -> None:
    for batch in pack(lengths, Packing(budget_tokens=budget)):
        cut = split_batch(batch, lengths, scale, fixed=False)
        assert rows_of(cut) == batch.rows.tolist()
        for part in cut:
            assert 1 <= part.size == len(part.rows) <= max(1, batch.size * scale)
            assert part.sequence == lengths[part.rows].max()


@given(lengths=LENGTHS, scale=SCALES)
def test_a_fixed_shape_is_cut_into_smaller_ones_of_its_sequence(lengths: IntArray, scale: float) -> None:
    for batch in pack(lengths, Packing(budget_tokens=128, buckets=BUCKETS)):
        cut = split_batch(batch, lengths, scale, fixed=True)
        assert rows_of(cut) == batch.rows.tolist()
        for part in cut:
            assert part.sequence == batch.sequence
            assert part.size == max(1, batch.size * scale) >= len(part.rows)


@given(lengths=LENGTHS, fixed=st.booleans(), scales=st.lists(SCALES, min_size=80, max_size=80))
def test_a_scale_that_changes_within_a_batch_loses_no_row(lengths: IntArray, fixed: bool, scales: list[float]) -> None:
    packing = Packing(budget_tokens=128, buckets=BUCKETS if fixed else ())
    for batch in pack(lengths, packing):
        cut: list[Batch] = []
        for scale in scales:
            if (done := len(rows_of(cut))) < len(batch.rows):
                cut.append(next_part(batch, lengths, scale, start=done, fixed=fixed))
        assert rows_of(cut) == batch.rows.tolist()


def test_each_part_is_as_long_as_its_own_longest_text() -> None:
    lengths = np.array([9, 7, 5, 3, 2])
    cut = split_batch(batch_of(0, 1, 2, 3, 4, sequence=9), lengths, 0.5, fixed=False)
    assert [(part.size, part.sequence) for part in cut] == [(2, 9), (2, 5), (1, 2)]


def test_the_last_part_of_a_fixed_shape_is_filled_with_empty_rows() -> None:
    cut = split_batch(batch_of(0, 1, 2, sequence=16, size=4), np.array([9, 9, 9]), 0.5, fixed=True)
    assert [(len(part.rows), part.size) for part in cut] == [(2, 2), (1, 2)]


def test_one_row_cannot_be_cut() -> None:
    batch = batch_of(0, sequence=9)
    assert split_batch(batch, np.array([9]), 1 / 64, fixed=False) == [batch]


def test_the_rows_of_a_fixed_shape_are_a_power_of_two_below_the_full_size() -> None:
    assert [scaled_rows(12, 0.5**halvings) for halvings in range(6)] == [12, 4, 2, 1, 1, 1]
