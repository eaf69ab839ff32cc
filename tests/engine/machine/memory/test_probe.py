"""Ceiling and reserve are parts of free memory; unknown memory stays unknown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedmill.engine.machine.memory.probe import MemoryReading, UnknownProbe, ceiling, reserve
from tests.support.readings import GIB, LOST, device

fractions = st.floats(min_value=0, max_value=1, exclude_min=True)
sizes = st.integers(min_value=0, max_value=1 << 62)


def test_the_ceiling_is_85_percent_of_what_is_free_not_of_what_there_is() -> None:
    assert ceiling(device(free=1000, size=8 * GIB)) == 850


def test_the_reserve_is_half_of_what_the_ceiling_leaves() -> None:
    assert reserve(device(free=1000)) == 75


def test_what_is_not_known_has_no_ceiling() -> None:
    assert (ceiling(LOST), reserve(LOST)) == (None, None)


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan")])
def test_a_fraction_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="no fraction of free memory"):
        ceiling(device(free=1000), fraction)


@given(sizes, fractions)
def test_ceiling_and_reserve_fit_into_what_is_free(free: int, fraction: float) -> None:
    reading = device(free=free, size=1 << 62)
    most, kept = ceiling(reading, fraction), reserve(reading, fraction)
    assert most is not None
    assert kept is not None
    assert most >= 0
    assert kept >= 0
    assert most + 2 * kept <= free


@given(sizes, fractions, fractions)
def test_a_larger_fraction_never_gives_less(free: int, one: float, other: float) -> None:
    reading = device(free=free, size=1 << 62)
    assert (ceiling(reading, min(one, other)) or 0) <= (ceiling(reading, max(one, other)) or 0)


@pytest.mark.parametrize(
    ("reading", "others"),
    [
        (device(free=3 * GIB, own=2 * GIB), 3 * GIB),
        (device(free=8 * GIB, own=GIB), 0),
        (device(free=3 * GIB), None),
        (LOST, None),
    ],
)
def test_others_have_what_is_neither_free_nor_ours(reading: MemoryReading, others: int | None) -> None:
    assert reading.others_bytes == others


def test_a_probe_that_knows_nothing_says_so_each_time() -> None:
    probe = UnknownProbe("unknown", "no one reports it")
    first = probe.read()
    probe.close()
    assert probe.read() == first
    assert (first.scope, first.free_bytes, first.used_bytes, first.ceiling_bytes) == ("unknown", None, None, None)
    assert first.reason == "no one reports it"
