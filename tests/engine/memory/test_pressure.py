"""The batch budget shrinks under pressure, and comes back when it has eased for a while."""

from __future__ import annotations

import itertools
import math

import pytest

from embedmill.base.results import Change
from embedmill.engine.machine.memory.probe import MemoryReading
from embedmill.engine.memory.pressure import Policy, Pressure
from tests.support.readings import GIB, LOST, MIB, device

POLICY = Policy(reserve_bytes=GIB)
PLENTY, SHORT = device(4 * GIB), device(GIB - MIB)


def scales(pressure: Pressure, reading: MemoryReading, seconds: int, *, start: int = 0) -> list[float]:
    """Return the scale after each reading, one per second."""
    found = []
    for at in range(start, start + seconds):
        pressure.observe_memory(reading, float(at))
        found.append(pressure.scale)
    return found


def slow(pressure: Pressure, at_s: float, batches: int = 3, shape: str = "512x128") -> list[Change]:
    """Steady batches, then slow ones."""
    steady = [pressure.observe_batch(shape, 1.0, at_s) for _ in range(5)]
    assert steady == [None] * 5
    return [change for _ in range(batches) if (change := pressure.observe_batch(shape, 2.0, at_s))]


def test_without_pressure_the_whole_budget_is_used() -> None:
    pressure = Pressure(POLICY)
    assert scales(pressure, PLENTY, 100) == [1.0] * 100
    assert pressure.changes == ()


def test_memory_below_the_reserve_halves_the_budget_at_once() -> None:
    pressure = Pressure(POLICY)
    change = pressure.observe_memory(SHORT, 7.0)
    assert change is not None
    assert (change.at_s, change.from_scale, change.to_scale) == (7.0, 1.0, 0.5)
    assert change.reason == "1,023 MiB free of the 1,024 MiB to be kept free (NVML)"
    assert pressure.changes == (change,)


def test_the_reserve_itself_is_enough() -> None:
    assert Pressure(POLICY).observe_memory(device(GIB), 0.0) is None


@pytest.mark.parametrize(
    ("free", "scale"),
    [(GIB - 1, 0.5), (GIB // 2, 0.5), (GIB // 2 - 1, 0.25), (GIB // 8, 0.125), (MIB, 1 / 64), (0, 1 / 64)],
)
def test_less_memory_shrinks_the_budget_further_at_one_go(free: int, scale: float) -> None:
    pressure = Pressure(POLICY)
    pressure.observe_memory(device(free), 0.0)
    assert pressure.scale == scale
    assert len(pressure.changes) == 1


def test_a_half_budget_needs_half_of_the_reserve_and_does_not_shrink_on() -> None:
    assert set(scales(Pressure(POLICY), device(600 * MIB), 100)) == {0.5}


def test_the_budget_grows_back_step_by_step_after_a_while_without_pressure() -> None:
    pressure = Pressure(POLICY)
    pressure.observe_memory(device(GIB // 4), 0.0)
    assert pressure.scale == 0.25
    found = scales(pressure, PLENTY, 30, start=1)
    assert found == [0.25] * 10 + [0.5] * 10 + [1.0] * 10
    assert [change.reason for change in pressure.changes[1:]] == ["no pressure for 10 s"] * 2


def test_a_little_more_than_the_reserve_is_not_enough_to_grow() -> None:
    pressure = Pressure(POLICY)
    pressure.observe_memory(SHORT, 0.0)
    assert set(scales(pressure, device(1500 * MIB), 100, start=1)) == {0.5}
    assert scales(pressure, device(1536 * MIB), 12, start=101)[-1] == 1.0


def test_pressure_in_between_starts_the_while_anew() -> None:
    pressure = Pressure(POLICY)
    pressure.observe_memory(SHORT, 0.0)
    scales(pressure, PLENTY, 9, start=1)
    pressure.observe_memory(device(GIB), 10.0)
    assert set(scales(pressure, PLENTY, 10, start=11)) == {0.5}


def test_pressure_that_returns_at_each_step_up_makes_steps_rare() -> None:
    """Another process takes the memory whenever the budget is full, for an hour."""
    pressure = Pressure(POLICY)
    for at in range(3600):
        pressure.observe_memory(SHORT if pressure.scale == 1 else PLENTY, float(at))
    grown = [change.at_s for change in pressure.changes if change.to_scale > change.from_scale]
    waits = [later - earlier for earlier, later in itertools.pairwise(grown)]
    assert waits[:4] == [22.0, 42.0, 82.0, 162.0]
    assert set(waits[5:]) == {302.0}
    assert len(pressure.changes) < 35


def test_pressure_that_deepens_is_one_pressure() -> None:
    """The hold time doubles once, to 20 s."""
    pressure = Pressure(POLICY)
    pressure.observe_memory(SHORT, 0.0)
    assert scales(pressure, PLENTY, 11, start=1)[-1] == 1.0
    for at, free in enumerate((600, 400, 200)):
        pressure.observe_memory(device(free * MIB), 12.0 + at)
    assert [change.to_scale for change in pressure.changes[2:]] == [0.5, 0.25, 0.125]
    assert scales(pressure, PLENTY, 61, start=15) == [0.125] * 20 + [0.25] * 20 + [0.5] * 20 + [1.0]


def test_pressure_long_after_a_step_up_is_a_new_one() -> None:
    pressure = Pressure(POLICY)
    for start in (0, 1000, 2000):
        pressure.observe_memory(SHORT, float(start))
        assert scales(pressure, PLENTY, 12, start=start + 1)[-1] == 1.0


def test_what_this_run_takes_itself_is_no_pressure() -> None:
    """6 of 8 GiB were free when the budget was chosen; this run took 5.5 of them, others nothing."""
    pressure = Pressure(POLICY, device(6 * GIB, own=0))
    assert pressure.observe_memory(device(GIB // 2, own=5632 * MIB), 0.0) is None
    assert pressure.scale == 1


def test_what_others_take_is_pressure_and_they_are_named() -> None:
    pressure = Pressure(POLICY, device(6 * GIB, own=0))
    change = pressure.observe_memory(device(GIB // 2, own=4 * GIB), 0.0)
    assert change is not None
    assert change.reason == "512 MiB free of the 1,024 MiB to be kept free (NVML); other processes took 1,536 MiB more"


def test_others_are_the_cause_when_they_took_half_of_what_is_missing() -> None:
    """512 MiB are missing; other processes took 256 MiB, or one byte less."""
    chosen = device(6 * GIB, own=0)
    assert Pressure(POLICY, chosen).observe_memory(device(GIB // 2, own=5376 * MIB), 0.0) is not None
    assert Pressure(POLICY, chosen).observe_memory(device(GIB // 2, own=5376 * MIB + 1), 0.0) is None


@pytest.mark.parametrize(
    "reading", [device(GIB // 2), device(GIB // 2, own=7 * GIB, size=9 * GIB)], ids=["no own", "another limit"]
)
def test_where_causes_cannot_be_told_apart_what_is_missing_counts(reading: MemoryReading) -> None:
    assert Pressure(POLICY, device(6 * GIB, own=0)).observe_memory(reading, 0.0) is not None


def test_a_probe_that_fails_half_way_leaves_the_last_safe_size() -> None:
    pressure = Pressure(POLICY)
    pressure.observe_memory(SHORT, 0.0)
    scales(pressure, PLENTY, 5, start=1)
    assert set(scales(pressure, LOST, 1000, start=6)) == {0.5}
    pressure.observe_batch("512x128", 1.0, 1500.0)
    assert pressure.scale == 0.5
    assert scales(pressure, PLENTY, 11, start=2000)[-1] == 1.0


def test_three_slow_batches_in_a_row_halve_the_budget() -> None:
    pressure = Pressure(POLICY)
    (change,) = slow(pressure, 5.0)
    assert (change.from_scale, change.to_scale) == (1.0, 0.5)
    assert change.reason == "3 batches in a row took 2 times their median or more: the driver may be paging"


def test_where_time_says_nothing_of_memory_slow_batches_do_not() -> None:
    assert slow(Pressure(Policy(reserve_bytes=GIB, slow_factor=math.inf)), 5.0, batches=50) == []


def test_two_slow_batches_do_not() -> None:
    pressure = Pressure(POLICY)
    assert slow(pressure, 5.0, batches=2) == []
    assert pressure.observe_batch("512x128", 1.0, 6.0) is None
    assert pressure.observe_batch("512x128", 2.0, 6.0) is None
    assert pressure.scale == 1


def test_where_no_one_knows_the_memory_batches_alone_bring_the_budget_back() -> None:
    pressure = Pressure(Policy(reserve_bytes=0))
    slow(pressure, 0.0)
    scales(pressure, LOST, 5)
    found = []
    for at in range(5, 17):
        pressure.observe_batch("256x128", 0.5, float(at))
        found.append(pressure.scale)
    assert found == [0.5] * 10 + [1.0] * 2


def test_where_memory_is_known_it_must_have_eased_too() -> None:
    pressure = Pressure(POLICY)
    pressure.observe_memory(device(1200 * MIB), 0.0)
    slow(pressure, 0.0)
    for at in range(1, 100):
        pressure.observe_batch("256x128", 0.5, float(at))
        pressure.observe_memory(device(1200 * MIB), float(at))
    assert pressure.scale == 0.5


def test_slow_batches_keep_the_budget_from_growing() -> None:
    pressure = Pressure(POLICY)
    pressure.observe_memory(SHORT, 0.0)
    scales(pressure, PLENTY, 10, start=1)
    slow(pressure, 10.5, batches=2)
    assert pressure.observe_memory(PLENTY, 11.0) is None
    pressure.observe_batch("512x128", 1.0, 11.5)
    assert pressure.observe_memory(PLENTY, 12.0) is not None


def test_the_least_budget_is_not_undercut() -> None:
    pressure = Pressure(POLICY)
    pressure.observe_memory(device(0), 0.0)
    assert pressure.observe_memory(device(0), 1.0) is None
    assert slow(pressure, 2.0) == []
    assert pressure.scale == 1 / 64


def test_a_clock_that_goes_back_makes_no_haste() -> None:
    pressure = Pressure(POLICY)
    pressure.observe_memory(SHORT, 100.0)
    scales(pressure, PLENTY, 50)
    assert pressure.scale == 0.5
    assert all(math.isfinite(change.at_s) for change in pressure.changes)


def test_without_a_reserve_memory_is_no_reason() -> None:
    assert Pressure(Policy(reserve_bytes=0)).observe_memory(device(0), 0.0) is None


def test_a_batch_for_which_there_was_no_memory_halves_the_budget_it_had() -> None:
    pressure = Pressure(POLICY)
    halved = Change(at_s=3.0, from_scale=1.0, to_scale=0.5, reason="no memory")
    assert pressure.observe_failure(1.0, "no memory", 3.0) == halved
    assert pressure.observe_failure(1.0, "no memory for another that began with it", 3.0) is None
    assert pressure.observe_failure(0.25, "no memory", 4.0) is not None
    assert pressure.scale == 0.125


def test_failing_batches_go_below_the_least_budget_of_pressure() -> None:
    pressure = Pressure(POLICY)
    for halvings in range(20):
        pressure.observe_failure(0.5**halvings, "no memory", 0.0)
    assert pressure.scale == 0.5**16
    pressure.observe_memory(device(0), 1.0)
    assert pressure.scale == 0.5**16


def test_what_failed_is_tried_again_after_a_while_and_more_rarely_each_time() -> None:
    """A budget that always fails while readings show no shortage, for an hour."""
    pressure, failures = Pressure(POLICY), 0
    for at in range(3600):
        if pressure.scale == 1:
            pressure.observe_failure(1.0, "no memory", float(at))
            failures += 1
        pressure.observe_memory(PLENTY, float(at))
    assert 10 < failures < 20
