"""Properties of the scale under arbitrary observations."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from embedmill.base.results import Change
from embedmill.engine.machine.memory.probe import MemoryReading
from embedmill.engine.memory.pressure import Policy, Pressure
from tests.support.readings import GIB, LOST, device

Reading = tuple[str, MemoryReading]
Batch = tuple[str, float]
Observation = tuple[float, MemoryReading | Batch]

frees = st.one_of(
    st.integers(min_value=0, max_value=8 * GIB),
    st.sampled_from([0, GIB // 2 - 1, GIB // 2, GIB - 1, GIB, 3 * GIB // 2 - 1, 3 * GIB // 2, 8 * GIB]),
)
owns = st.one_of(st.none(), st.integers(min_value=0, max_value=8 * GIB))
readings = st.one_of(st.just(LOST), st.builds(lambda free, own: device(free, own=own), frees, owns))
batches = st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([0.5, 1.0, 1.0, 1.0, 2.0, 5.0]))
gaps = st.floats(min_value=0, max_value=30)
observations = st.lists(st.tuples(gaps, st.one_of(readings, batches)), max_size=200)
chosen = st.one_of(st.none(), readings)
policies = st.builds(
    Policy,
    reserve_bytes=st.sampled_from([0, 1, GIB]),
    most_halvings=st.integers(min_value=0, max_value=8),
    hold_s=st.sampled_from([1.0, 10.0]),
    slow_batches=st.integers(min_value=1, max_value=4),
)


def observe(pressure: Pressure, seen: MemoryReading | Batch, at_s: float) -> Change | None:
    if isinstance(seen, MemoryReading):
        return pressure.observe_memory(seen, at_s)
    return pressure.observe_batch(*seen, at_s)


def play(pressure: Pressure, found: list[Observation]) -> float:
    """Observe all of it; the time at the end."""
    at_s = 0.0
    for gap_s, seen in found:
        at_s += gap_s
        observe(pressure, seen, at_s)
    return at_s


@given(policies, chosen, observations)
def test_the_scale_stays_a_part_of_the_budget(
    policy: Policy, chosen: MemoryReading | None, found: list[Observation]
) -> None:
    pressure = Pressure(policy, chosen)
    at_s = 0.0
    for gap_s, seen in found:
        at_s += gap_s
        before = pressure.scale
        change = observe(pressure, seen, at_s)
        assert 0.5**policy.most_halvings <= pressure.scale <= 1
        # Every change is told, and nothing else changes the scale.
        assert (change is None) == (pressure.scale == before)
        if change is not None:
            assert (change.from_scale, change.to_scale, change.at_s) == (before, pressure.scale, at_s)
            assert change.reason
            assert pressure.changes[-1] == change


@given(policies, chosen, observations)
def test_it_never_grows_under_pressure(policy: Policy, chosen: MemoryReading | None, found: list[Observation]) -> None:
    pressure = Pressure(policy, chosen)
    at_s, known = 0.0, False
    for gap_s, seen in found:
        at_s += gap_s
        change = observe(pressure, seen, at_s)
        known = known or (isinstance(seen, MemoryReading) and seen.free_bytes is not None)
        if change is not None and change.to_scale > change.from_scale:
            assert change.to_scale == 2 * change.from_scale
            if isinstance(seen, MemoryReading):
                assert seen.free_bytes is not None
                assert seen.free_bytes >= policy.ease * policy.reserve_bytes * change.to_scale
            else:
                assert not known


@given(policies, observations)
def test_memory_below_the_reserve_always_shrinks_it_where_causes_are_not_known(
    policy: Policy, found: list[Observation]
) -> None:
    pressure = Pressure(policy)
    for gap_s, seen in found:
        observe(pressure, seen, gap_s)
        if isinstance(seen, MemoryReading) and seen.free_bytes is not None:
            least = 0.5**policy.most_halvings
            assert seen.free_bytes >= policy.reserve_bytes * pressure.scale or pressure.scale == least


@given(policies, chosen, observations)
def test_it_returns_to_the_whole_budget_when_pressure_eases_for_long(
    policy: Policy, chosen: MemoryReading | None, found: list[Observation]
) -> None:
    pressure = Pressure(policy, chosen)
    at_s = play(pressure, found)
    for shape in ("a", "b"):
        pressure.observe_batch(shape, 0.5, at_s)
    for second in range(1, int(policy.most_hold_s) * (policy.most_halvings + 1), 25):
        pressure.observe_memory(device(8 * GIB), at_s + second)
    assert pressure.scale == 1


@given(policies, chosen, observations)
def test_changes_are_few_however_readings_jump(
    policy: Policy, chosen: MemoryReading | None, found: list[Observation]
) -> None:
    """A step up takes `hold_s` seconds, and one down needs a step up before it, or is among the first."""
    pressure = Pressure(policy, chosen)
    wall_s = play(pressure, found)
    assert len(pressure.changes) <= policy.most_halvings + 2 * (wall_s / policy.hold_s)


@given(st.lists(st.booleans(), min_size=600, max_size=600))
def test_noise_around_the_reserve_changes_it_a_few_times_in_ten_minutes(noise: list[bool]) -> None:
    pressure = Pressure(Policy(reserve_bytes=GIB))
    for at_s, low in enumerate(noise):
        pressure.observe_memory(device(GIB - 1 if low else 2 * GIB), float(at_s))
    assert len(pressure.changes) <= 14


@given(policies, chosen, observations)
def test_the_same_observations_give_the_same_changes(
    policy: Policy, chosen: MemoryReading | None, found: list[Observation]
) -> None:
    one, other = Pressure(policy, chosen), Pressure(policy, chosen)
    play(one, found)
    play(other, found)
    assert one.changes == other.changes
