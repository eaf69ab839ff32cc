"""A pick is used where paired runs show that it gains over the catalogue's default."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from msgspec import structs

from embedmill.base.errors import ConfigError
from embedmill.base.records import Bucket, Packing
from embedmill.tune.search import (
    OUT_OF_MEMORY,
    Limits,
    Mode,
    Observation,
    Pick,
    Space,
    Trial,
    find_pick,
    powers_of_two,
)
from embedmill.tune.search.duel import compared, gains_enough
from embedmill.tune.search.sweep import idle
from embedmill.tune.search.trials import Trials

LENGTHS = np.concatenate([np.random.default_rng(3).integers(4, 120, 600), [128]])
MODE = Mode(precision="fp32", streams=2, threads=1, floor_bytes=1)
THREADS = structs.replace(MODE, streams=1, threads=2)
DEFAULT = Packing(budget_tokens=512)
PICK = Pick(mode=THREADS, packing=Packing(budget_tokens=1024), tokens_per_s=10_000, peak_bytes=100, ended="settled")
LADDER = Packing(budget_tokens=1024, buckets=(Bucket(rows=16, sequence=64), Bucket(rows=8, sequence=128)))
LARGER = Packing(budget_tokens=4096, buckets=(Bucket(rows=64, sequence=64), Bucket(rows=8, sequence=128)))
LADDER_PICK = structs.replace(PICK, mode=MODE, packing=LARGER)


def device(gain: float, *, open_s: float = 0.0) -> Callable[[Trial], Observation]:
    """A device on which the pick gains as much over the default, without noise."""
    last: Mode | None = None

    def observe(trial: Trial) -> Observation:
        nonlocal last
        mode = trial.knobs.mode
        opened, last = open_s * (mode != last), mode
        seconds = trial.useful_tokens / 10_000 * idle(trial.batches, mode.streams)
        return Observation(seconds=seconds / (gain if mode == THREADS else 1.0), open_seconds=opened, peak_bytes=7)

    return observe


def held(
    observe: Callable[[Trial], Observation],
    pick: Pick = PICK,
    *,
    time_s: float = 27.0,
    default: Packing = DEFAULT,
    need: float = 50.0,
    expected_tokens: int | None = None,
) -> tuple[Pick, list[Trial]]:
    limits = Limits(ceiling_bytes=1000, time_s=time_s, expected_tokens=expected_tokens)
    trials = Trials(LENGTHS, limits, observe)
    found = compared(pick, (MODE, default), lambda _: need, trials)
    return found, [one.trial for one in trials.observed]


def test_a_pick_that_gains_is_used_and_its_pairs_are_kept() -> None:
    found, _ = held(device(1.2))
    assert (found.verdict, found.packing, found.mode) == ("faster", PICK.packing, THREADS)
    assert found.gains == pytest.approx([1.2] * 5)


@pytest.mark.parametrize("gain", [0.8, 1.0, 1.019])
def test_a_pick_that_does_not_gain_gives_way_to_the_default(gain: float) -> None:
    found, _ = held(device(gain))
    assert (found.verdict, found.packing, found.mode) == ("no gain", DEFAULT, MODE)
    assert found.tokens_per_s == pytest.approx(10_000, rel=1e-3)
    assert found.peak_bytes == 50
    assert found.gains == pytest.approx([gain] * 5)


@pytest.mark.parametrize(
    ("gains", "enough"),
    [
        ([1.02], True),
        ([1.01], False),
        ([1.2, 0.7, 1.2, 1.2, 1.2], True),
        ([1.2, 0.7, 0.7, 1.2, 1.2], False),
        ([1.03, 1.03, 0.93], True),
        ([1.03, 1.03, 0.8], False),
    ],
)
def test_most_pairs_have_to_gain(gains: list[float], enough: bool) -> None:
    assert gains_enough(gains) == enough


def test_the_sides_take_turns_in_an_order_in_which_drift_cancels() -> None:
    _, trials = held(device(1.1, open_s=0.1))
    modes = [trial.knobs.mode for trial in trials]
    turns = [mode for mode, after in zip(modes, [*modes[1:], None], strict=True) if mode != after]
    # A B, B A, A B, ...: the second turn of a pair and the first of the next are one visit.
    assert len(turns) >= 4
    assert all(one != other for one, other in pairwise(turns))


def test_both_sides_run_the_same_texts() -> None:
    _, trials = held(device(1.1))
    sides = {mode: {tuple(np.sort(np.concatenate([batch.rows for batch in trial.batches]))) for trial in trials
                    if trial.knobs.mode == mode} for mode in (MODE, THREADS)}  # fmt: skip
    # The first run of a new session is of a part of them.
    assert max(sides[MODE], key=len) == max(sides[THREADS], key=len)


def test_where_the_default_is_the_pick_nothing_is_run() -> None:
    found, trials = held(device(1.0), structs.replace(PICK, mode=MODE, packing=DEFAULT))
    assert (found.verdict, found.gains, trials) == ("default", (), [])


@pytest.mark.parametrize("need", [1001.0, np.inf])
def test_a_default_that_may_pass_the_ceiling_is_not_run(need: float) -> None:
    found, trials = held(device(1.2), need=need)
    assert (found.verdict, found.packing, found.gains, trials) == ("default failed", PICK.packing, (), [])


def test_where_the_default_fails_the_pick_is_used_and_the_other_way_round() -> None:
    def broken(mode: Mode) -> Callable[[Trial], Observation]:
        def observe(trial: Trial) -> Observation:
            return Observation(failure=OUT_OF_MEMORY) if trial.knobs.mode == mode else device(1.2)(trial)

        return observe

    assert held(broken(MODE))[0].verdict == "default failed"
    assert held(broken(THREADS))[0].packing == DEFAULT


def test_without_time_for_one_pair_the_default_is_used() -> None:
    found, trials = held(device(1.2), time_s=0.01)
    assert (found.verdict, found.packing, found.gains, trials) == ("not compared", DEFAULT, (), [])


def test_the_pairs_end_with_the_time() -> None:
    for time_s in (2.0, 3.0, 5.0):
        _, trials = held(device(1.2, open_s=0.2), time_s=time_s)
        assert sum(trial.useful_tokens for trial in trials) / 10_000 < time_s


def ladder_device(trial: Trial) -> Observation:
    """A launch and 10,000 padded tokens per second; every session takes a second."""
    return Observation(seconds=0.05 * len(trial.batches) + trial.padded_tokens / 10_000, open_seconds=1.0)


def test_ladders_are_compared_over_all_their_shapes_weighted_by_texts() -> None:
    found, trials = held(ladder_device, LADDER_PICK, default=LADDER, time_s=90.0)
    short = int((LENGTHS <= 64).sum())
    seconds = [short / rows * (0.05 + rows * 64 / 10_000) + (601 - short) / 8 * (0.05 + 0.1024) for rows in (16, 64)]
    assert found.gains[0] == pytest.approx(seconds[0] / seconds[1], rel=1e-6)
    assert {trial.knobs.bucket for trial in trials} == {*LADDER.buckets, *LARGER.buckets}


def test_a_short_job_counts_the_sessions_that_a_ladder_opens() -> None:
    whole = structs.replace(LADDER_PICK, packing=Packing(budget_tokens=1024, buckets=(LADDER.buckets[1],)))
    long, short = (
        held(ladder_device, whole, default=LADDER, time_s=90.0, expected_tokens=tokens)[0].gains[0]
        for tokens in (None, 10_000)
    )
    assert short > long


def test_a_tuning_keeps_its_time_and_ends_with_the_pairs() -> None:
    def observe(trial: Trial) -> Observation:
        slow = 1 + 0.3 * abs(np.log2(trial.knobs.budget_tokens / 2048))
        return Observation(seconds=trial.padded_tokens / 10_000 * slow, peak_bytes=1 << 20)

    space = Space(modes=(MODE, THREADS), budgets_tokens=powers_of_two(128, 4096), default=DEFAULT)
    pick = find_pick(space, LENGTHS, Limits(ceiling_bytes=1 << 30, time_s=40.0), observe)
    assert (pick.packing.budget_tokens, pick.verdict) == (2048, "faster")
    assert min(pick.gains) == pytest.approx(1.6, rel=0.1)
    assert len(pick.gains) >= 3
    assert pick.seconds <= 41.0
    assert {one.trial.knobs.budget_tokens for one in pick.observations[-2:]} <= {512, 2048}


@pytest.mark.parametrize(
    "space",
    [
        Space(modes=(), budgets_tokens=(128,), default=DEFAULT),
        Space(modes=(MODE,), default=DEFAULT),
        Space(modes=(MODE,), budgets_tokens=(128,), buckets=(Bucket(rows=1, sequence=128),), default=DEFAULT),
        Space(modes=(MODE,), buckets=(Bucket(rows=1, sequence=64),), default=LADDER),
    ],
)
def test_a_space_that_serves_no_text_is_an_error(space: Space) -> None:
    with pytest.raises(ConfigError):
        find_pick(space, LENGTHS, Limits(ceiling_bytes=None), lambda trial: Observation())
