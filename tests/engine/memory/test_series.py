"""A line of readings stays short and keeps its extremes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from embedmill.base.results import Point
from embedmill.engine.memory.series import Series

values = st.one_of(st.none(), st.integers(min_value=0, max_value=1000))
keeps = st.integers(min_value=1, max_value=8).map(lambda half: 2 * half)


def line(values: list[tuple[int | None, int | None]], keep: int = 240) -> tuple[Point, ...]:
    series = Series(keep)
    for at, (used, free) in enumerate(values):
        series.add(Point(at_s=float(at), used_bytes=used, free_bytes=free))
    return series.points()


def test_a_short_line_is_kept_as_it_is() -> None:
    assert line([(1, 9), (None, None), (3, 7)]) == (
        Point(at_s=0, used_bytes=1, free_bytes=9),
        Point(at_s=1, used_bytes=None, free_bytes=None),
        Point(at_s=2, used_bytes=3, free_bytes=7),
    )


def test_a_long_line_halves_its_points() -> None:
    assert [point.at_s for point in line([(0, 0)] * 9, keep=4)] == [0, 4, 8]


def test_neighbours_become_their_most_used_and_least_free() -> None:
    assert line([(1, 9), (5, None), (None, None), (None, None)], keep=4) == (
        Point(at_s=0, used_bytes=5, free_bytes=9),
        Point(at_s=2, used_bytes=None, free_bytes=None),
    )


@given(st.lists(st.tuples(values, values), max_size=300), keeps)
def test_no_line_is_long_and_no_extreme_is_lost(found: list[tuple[int | None, int | None]], keep: int) -> None:
    points = line(found, keep)
    assert len(points) <= keep + 1
    assert [point.at_s for point in points] == sorted({point.at_s for point in points})
    for most, before, after in (
        (max, [used for used, _ in found], [point.used_bytes for point in points]),
        (min, [free for _, free in found], [point.free_bytes for point in points]),
    ):
        known = [value for value in before if value is not None]
        kept = [value for value in after if value is not None]
        assert most(kept, default=None) == most(known, default=None)
