"""The plan covers each row once, in order, within its limits, however the input is surveyed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import accumulate, pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embedmill.base.config import ShardTable
from embedmill.base.records import Piece, Shard, Span
from embedmill.source.plan import cut

# A job's files, each the bytes of text of its rows.
FILES = st.lists(st.lists(st.integers(0, 40), max_size=12), max_size=5)
LIMITS = st.builds(ShardTable, rows=st.integers(1, 10), text_bytes=st.integers(1, 60))


def span(file: int, sizes: list[int], first_row: int = 0, start: int = 0) -> Span:
    """Consecutive rows of one file, by the bytes of each."""
    marks = np.array([start, *accumulate(sizes, initial=start)][1:], np.int64)
    return Span(file=file, first_row=first_row, marks=marks)


def whole(files: list[list[int]]) -> list[Span]:
    """One span for each file."""
    return [span(number, sizes) for number, sizes in enumerate(files)]


def divided(files: list[list[int]], cuts: list[int]) -> Iterator[Span]:
    """The same files, each in several spans that end at rows that `cuts` name."""
    for number, sizes in enumerate(files):
        edges = sorted({0, len(sizes), *(cut for cut in cuts if cut < len(sizes))})
        for first, stop in pairwise(edges):
            yield span(number, sizes[first:stop], first, sum(sizes[:first]))


def rows_of(shards: list[Shard]) -> list[tuple[int, int]]:
    """(file, row) of each row in the order of the plan."""
    return [
        (piece.file, row)
        for shard in shards
        for piece in shard.pieces
        for row in range(piece.first_row, piece.first_row + piece.rows)
    ]


def bytes_of(shard: Shard) -> int:
    return sum(piece.stop - piece.start for piece in shard.pieces)


@given(files=FILES, limits=LIMITS)
def test_every_row_is_planned_once_and_in_order(files: list[list[int]], limits: ShardTable) -> None:
    shards = list(cut(whole(files), limits))
    assert rows_of(shards) == [(number, row) for number, sizes in enumerate(files) for row in range(len(sizes))]


@given(files=FILES, limits=LIMITS)
def test_a_piece_spans_the_bytes_of_its_rows(files: list[list[int]], limits: ShardTable) -> None:
    for shard in cut(whole(files), limits):
        for piece in shard.pieces:
            sizes = files[piece.file]
            assert piece.start == sum(sizes[: piece.first_row])
            assert piece.stop == sum(sizes[: piece.first_row + piece.rows])


@given(files=FILES, limits=LIMITS)
def test_a_shard_has_at_least_one_row_and_at_most_the_limit(files: list[list[int]], limits: ShardTable) -> None:
    assert all(1 <= shard.rows <= limits.rows for shard in cut(whole(files), limits))


@given(files=FILES, limits=LIMITS)
def test_a_shard_passes_the_byte_limit_only_by_a_single_row(files: list[list[int]], limits: ShardTable) -> None:
    for shard in cut(whole(files), limits):
        texts = [files[file][row] for file, row in rows_of([shard]) if files[file][row] > 0]
        assert bytes_of(shard) <= limits.text_bytes or len(texts) == 1


@given(files=FILES, limits=LIMITS)
def test_a_shard_is_full_before_the_next_begins(files: list[list[int]], limits: ShardTable) -> None:
    shards = list(cut(whole(files), limits))
    for shard, following in pairwise(shards):
        file, row = rows_of([following])[0]
        assert shard.rows == limits.rows or bytes_of(shard) + files[file][row] > limits.text_bytes


@given(files=FILES, limits=LIMITS)
def test_shards_are_numbered_from_0(files: list[list[int]], limits: ShardTable) -> None:
    shards = list(cut(whole(files), limits))
    assert [shard.ordinal for shard in shards] == list(range(len(shards)))


@given(files=FILES, limits=LIMITS, cuts=st.lists(st.integers(0, 12), max_size=6))
def test_the_plan_does_not_depend_on_how_a_file_is_divided_into_spans(
    files: list[list[int]], limits: ShardTable, cuts: list[int]
) -> None:
    assert list(cut(divided(files, cuts), limits)) == list(cut(whole(files), limits))


def test_a_large_file_is_split_by_rows_or_bytes_whichever_comes_first() -> None:
    shards = list(cut([span(0, [1, 1, 1, 30, 30, 1])], ShardTable(rows=3, text_bytes=40)))
    assert [(shard.rows, bytes_of(shard)) for shard in shards] == [(3, 3), (1, 30), (2, 31)]


def test_small_files_share_a_shard() -> None:
    shards = list(cut(whole([[5], [5, 5], [5]]), ShardTable(rows=3, text_bytes=1000)))
    assert [shard.pieces for shard in shards] == [
        (Piece(file=0, first_row=0, rows=1, start=0, stop=5), Piece(file=1, first_row=0, rows=2, start=0, stop=10)),
        (Piece(file=2, first_row=0, rows=1, start=0, stop=5),),
    ]


def test_a_row_over_the_byte_limit_is_a_shard_of_its_own() -> None:
    shards = list(cut([span(0, [3, 900, 3])], ShardTable(rows=10, text_bytes=10)))
    assert [shard.rows for shard in shards] == [1, 1, 1]


def test_no_rows_make_no_shards() -> None:
    assert list(cut([], ShardTable())) == []
    assert list(cut(whole([[], []]), ShardTable())) == []


def test_the_plan_is_made_as_the_survey_goes_on() -> None:
    surveyed: list[int] = []

    def survey() -> Iterator[Span]:
        for number in range(100):
            surveyed.append(number)
            yield span(number, [10] * 4)

    next(cut(survey(), ShardTable(rows=4)))
    assert len(surveyed) <= 2


def test_a_hundred_thousand_tiny_files_make_few_shards_quickly() -> None:
    marks = np.array([0, 20], np.int64)
    spans = [Span(file=number, first_row=0, marks=marks) for number in range(100_000)]
    started = time.perf_counter()
    shards = list(cut(spans, ShardTable(rows=2048)))
    assert len(shards) == 49
    assert time.perf_counter() - started < 5
