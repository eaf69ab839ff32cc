"""Batches that suddenly take twice their time are counted, each against its own shape."""

from __future__ import annotations

import pytest

from embedmill.engine.memory.slow_batches import SlowBatches


def after(*batches: tuple[object, float]) -> int:
    slow = SlowBatches(2.0)
    for shape, seconds in batches:
        slow.add(shape, seconds)
    return slow.in_a_row


STEADY = [("a", 1.0)] * 5


def test_slow_batches_in_a_row_are_counted() -> None:
    assert after(*STEADY, ("a", 2.0), ("a", 2.5), ("a", 9.0)) == 3


def test_a_batch_just_below_twice_its_median_ends_the_row() -> None:
    assert after(*STEADY, ("a", 3.0), ("a", 1.99)) == 0


def test_the_first_batches_of_a_shape_say_nothing() -> None:
    """The first of them compile."""
    assert after(("a", 30.0), *STEADY[:3], ("a", 30.0)) == 0


def test_another_shape_is_another_measure() -> None:
    assert after(*STEADY, *[("b", 10.0)] * 6) == 0
    assert after(*STEADY, ("a", 2.0), ("b", 0.1), ("a", 2.0)) == 2


def test_a_slow_batch_among_quick_ones_is_no_measure() -> None:
    assert after(*STEADY, ("a", 100.0), ("a", 2.0)) == 2


def test_what_stays_slow_becomes_the_measure() -> None:
    assert after(*STEADY, *[("a", 3.0)] * 20) == 0


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_times_that_are_none_are_not_counted(seconds: float) -> None:
    assert after(*STEADY, ("a", 2.0), ("a", seconds)) == 1


def test_shapes_that_come_once_do_not_fill_memory() -> None:
    slow = SlowBatches(2.0)
    for shape in range(5000):
        slow.add(shape, 1.0)
        slow.add("recurring", 1.0)
    assert len(slow._seconds) == 256
    slow.add("recurring", 2.0)
    assert slow.in_a_row == 1
