"""Fixed shapes: every row lies in a bucket that holds it, and no other way needs fewer batches."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedmill.base.records import Batch, Bucket, Packing
from embedmill.batch.pack import pack

LADDER = ((8, 32), (4, 64), (2, 128), (1, 300))
Shapes = tuple[tuple[int, int], ...]


def padded_tokens_of(batches: Sequence[Batch]) -> int:
    return sum(batch.size * batch.sequence for batch in batches)


@st.composite
def ladders(draw: st.DrawFn) -> Shapes:
    """Buckets of rising sequence, none with more rows than the one below it."""
    sequences = sorted(draw(st.sets(st.integers(2, 60), min_size=1, max_size=4)))
    rows = sorted(draw(st.lists(st.integers(1, 5), min_size=len(sequences), max_size=len(sequences))), reverse=True)
    return tuple(zip(rows, sequences, strict=True))


def packed(lengths: Sequence[int], shapes: Shapes = LADDER) -> list[Batch]:
    buckets = tuple(Bucket(rows=rows, sequence=sequence) for rows, sequence in shapes)
    return pack(np.array(lengths, np.int64), Packing(budget_tokens=256, buckets=buckets))


def fewest(lengths: Sequence[int], shapes: Shapes) -> int:
    """How many batches the best of all ways needs."""

    def fits(rows: list[int]) -> bool:
        return any(size >= len(rows) and sequence >= max(lengths[row] for row in rows) for size, sequence in shapes)

    @cache
    def of(left: int) -> int:
        if not left:
            return 0
        first = left & -left
        best, others = len(lengths), left ^ first
        part = others
        while True:
            rows = [row for row in range(len(lengths)) if (part | first) >> row & 1]
            if fits(rows):
                best = min(best, 1 + of(left & ~(part | first)))
            if not part:
                return best
            part = part - 1 & others

    return of((1 << len(lengths)) - 1)


@given(lengths=st.lists(st.integers(1, 300), max_size=120))
def test_every_row_is_in_one_batch(lengths: list[int]) -> None:
    rows = [row for batch in packed(lengths) for row in batch.rows.tolist()]
    assert sorted(rows) == list(range(len(lengths)))


@given(lengths=st.lists(st.integers(1, 300), max_size=120))
def test_every_batch_has_the_shape_of_a_bucket_that_holds_its_rows(lengths: list[int]) -> None:
    for batch in packed(lengths):
        assert (batch.size, batch.sequence) in LADDER
        assert 1 <= len(batch.rows) <= batch.size
        assert max(lengths[row] for row in batch.rows.tolist()) <= batch.sequence


@given(shapes=ladders(), data=st.data())
def test_no_other_way_needs_fewer_batches(shapes: Shapes, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, shapes[-1][1]), max_size=7))
    assert len(packed(lengths, shapes)) == fewest(lengths, shapes)


@given(lengths=st.lists(st.integers(1, 300), max_size=120))
def test_only_the_last_batch_is_not_full(lengths: list[int]) -> None:
    assert all(len(batch.rows) == batch.size for batch in packed(lengths)[:-1])


@given(lengths=st.lists(st.integers(1, 300), max_size=60))
def test_the_longest_batch_comes_first(lengths: list[int]) -> None:
    sequences = [batch.sequence for batch in packed(lengths)]
    assert sequences == sorted(sequences, reverse=True)


def test_a_partial_last_batch_has_the_size_of_its_bucket() -> None:
    first, last = packed([20] * 11)
    assert (len(first.rows), first.size, first.sequence) == (8, 8, 32)
    assert (len(last.rows), last.size, last.sequence) == (3, 8, 32)


def test_empty_rows_of_a_fixed_shape_count_as_padding() -> None:
    assert padded_tokens_of(packed([20] * 11)) == 2 * 8 * 32


def test_short_rows_fill_up_the_batch_of_long_ones() -> None:
    [batch] = packed([60, 50, 3, 2])
    assert (batch.rows.tolist(), batch.size, batch.sequence) == ([0, 1, 2, 3], 4, 64)


def test_a_row_of_no_tokens_lies_in_the_smallest_bucket() -> None:
    [batch] = packed([0])
    assert (batch.size, batch.sequence) == (8, 32)


def test_a_row_that_no_bucket_holds_is_an_error() -> None:
    with pytest.raises(ValueError, match="no bucket holds a row of 301 tokens"):
        packed([5, 301])


def test_no_rows_make_no_batches() -> None:
    assert packed([]) == []
