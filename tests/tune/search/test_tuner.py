"""The tuner's rules, one by one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from msgspec import structs

from embedmill.base.errors import ConfigError, DeviceError
from embedmill.base.records import Bucket, Packing
from embedmill.batch.pack import pack
from embedmill.tune.search import (
    OUT_OF_MEMORY,
    Knobs,
    Limits,
    Mode,
    Observation,
    Space,
    Trial,
    Tuner,
    ladder_buckets,
    powers_of_two,
)
from embedmill.tune.search.arms import Arms
from embedmill.tune.search.memory import Memory

MIB = 1 << 20
LENGTHS = np.concatenate([np.random.default_rng(3).integers(4, 120, 600), [128]])
CPU = Mode(precision="fp32", streams=2, threads=1, floor_bytes=100 * MIB)
BUDGETS = Space(modes=(CPU,), budgets_tokens=powers_of_two(128, 4096))
BUCKETS = Space(
    modes=(Mode(precision="fp32", streams=1, threads=1, floor_bytes=100 * MIB),),
    buckets=ladder_buckets((32, 64), longest=128, most_rows=64, most_tokens=4096),
)
DOUBLING = Space(
    modes=tuple(structs.replace(BUCKETS.modes[0], in_flight=count) for count in (1, 2)),
    buckets=ladder_buckets((128,), longest=256, most_rows=256, most_tokens=16384),
)
ROOMY = Limits(ceiling_bytes=8000 * MIB)


def padded(trial: Trial) -> int:
    return max(batch.size * batch.sequence for batch in trial.batches)


def ran(trial: Trial) -> Observation:
    """A device of 10,000 tokens/s with a small launch, and 50 KiB for each token over 60 MiB."""
    seconds = trial.padded_tokens / 10_000 / trial.knobs.mode.streams + 1e-3 * len(trial.batches)
    return Observation(seconds=seconds, peak_bytes=60 * MIB + trial.knobs.mode.lanes * padded(trial) * 50 * 1024)


def drive(tuner: Tuner, device: Callable[[Trial], Observation] = ran) -> list[Trial]:
    """Every trial until the tuner ends."""
    trials = []
    while (trial := tuner.next()) is not None:
        trials.append(trial)
        tuner.observe(trial, device(trial))
    return trials


@pytest.mark.parametrize("space", [BUDGETS, BUCKETS])
def test_before_any_trial_the_pick_is_the_smallest_size(space: Space) -> None:
    pick = Tuner(space, LENGTHS, ROOMY).pick()
    expected = Packing(budget_tokens=128, buckets=(Bucket(rows=1, sequence=128),) if space.buckets else ())
    assert (pick.packing, pick.tokens_per_s, pick.observations) == (expected, 0.0, ())


def test_a_trial_names_batches_of_real_rows_under_its_budget() -> None:
    for trial in drive(Tuner(BUDGETS, LENGTHS, ROOMY)):
        for batch in trial.batches:
            assert batch.sequence == LENGTHS[batch.rows].max()
            assert batch.size == len(batch.rows)
            assert batch.size * batch.sequence <= trial.knobs.budget_tokens


def test_a_bucket_is_filled_with_texts_that_fit_it() -> None:
    for trial in drive(Tuner(BUCKETS, LENGTHS, ROOMY)):
        bucket = trial.knobs.bucket
        assert bucket is not None
        for batch in trial.batches:
            assert (batch.size, batch.sequence) == (bucket.rows, bucket.sequence)
            assert LENGTHS[batch.rows].max() <= bucket.sequence
            assert len(set(batch.rows.tolist())) == len(batch.rows) == bucket.rows


def test_the_first_two_runs_hold_the_batch_of_most_tokens_in_every_lane() -> None:
    for trial in drive(Tuner(BUDGETS, LENGTHS, ROOMY)):
        if trial.repetition <= 2:
            most = max(
                batch.size * batch.sequence for batch in pack(LENGTHS, Packing(budget_tokens=trial.knobs.budget_tokens))
            )
            held = [batch for batch in trial.batches if batch.size * batch.sequence == most]
            assert len(held) >= trial.knobs.mode.lanes


def test_later_runs_of_the_same_knobs_hold_other_batches() -> None:
    rows: dict[Knobs, list[set[int]]] = {}
    for trial in drive(Tuner(BUDGETS, LENGTHS, Limits(ceiling_bytes=None, time_s=6.0))):
        if trial.repetition > 2 and trial.knobs.budget_tokens == 2048:
            rows.setdefault(trial.knobs, []).append({int(batch.rows[0]) for batch in trial.batches})
    assert any(len(runs) > 1 for runs in rows.values())
    assert all(one != other for runs in rows.values() for one, other in pairwise(runs))


def test_the_first_trial_is_the_smallest_and_growth_is_bounded() -> None:
    largest, last = 0, 0
    for trial in drive(Tuner(BUDGETS, LENGTHS, ROOMY)):
        if trial.repetition == 1 and largest:
            assert padded(trial) <= 4 * largest
        if trial.number == 0:
            assert trial.knobs.budget_tokens == 128
        largest, last = max(largest, padded(trial)), trial.number
    assert last > 0


def test_no_trial_is_predicted_above_the_ceiling() -> None:
    tight = Limits(ceiling_bytes=180 * MIB)
    trials = drive(Tuner(BUDGETS, LENGTHS, tight))
    assert all((trial.predicted_peak_bytes or 0) <= 180 * MIB for trial in trials)
    assert 256 <= max(trial.knobs.budget_tokens for trial in trials) <= 1024


def test_a_second_run_that_needs_more_is_what_counts() -> None:
    def device(trial: Trial) -> Observation:
        peak = 60 * MIB + trial.knobs.mode.lanes * padded(trial) * 50 * 1024
        return Observation(seconds=ran(trial).seconds, peak_bytes=peak * (1 if trial.repetition == 1 else 2))

    tuner = Tuner(BUDGETS, LENGTHS, Limits(ceiling_bytes=300 * MIB))
    trials = drive(tuner, device)
    assert max(device(trial).peak_bytes or 0 for trial in trials) <= 300 * MIB
    peak = tuner.pick().peak_bytes
    assert peak is not None
    assert peak > 120 * MIB


def test_an_allocator_that_doubles_is_not_believed_to_stop() -> None:
    arms = Arms(DOUBLING, np.append(LENGTHS, 256))
    lanes, tokens, scores = arms.demand.T
    needs = arms.demand @ [1376378.3, 17136.1, 14.733] + 67750919.6
    peaks = 2.0 ** np.ceil(np.log2(needs))
    memory = Memory(arms, 1014 * MIB)
    at_256 = (scores == 256 * tokens) & (tokens <= 2**14) & ~((lanes == 1) & (tokens == 2**11))
    seen = at_256 | (scores == 128 * tokens) & (lanes == 2) & (tokens == 2**11)
    for arm in np.flatnonzero(seen):
        for _ in range(2):
            memory.observe(int(arm), int(peaks[arm]))
    assert (memory.bounds() >= peaks).all()


def test_after_running_out_of_memory_nothing_as_large_is_tried_again() -> None:
    def device(trial: Trial) -> Observation:
        return Observation(failure=OUT_OF_MEMORY) if padded(trial) > 500 else ran(trial)

    tuner = Tuner(BUDGETS, LENGTHS, ROOMY)
    trials = drive(tuner, device)
    assert sum(padded(trial) > 500 for trial in trials) == 1
    assert tuner.pick().packing.budget_tokens <= 512


def test_a_device_that_tells_no_memory_grows_by_what_the_smallest_batch_can_need() -> None:
    def device(trial: Trial) -> Observation:
        return Observation(seconds=ran(trial).seconds)

    tuner = Tuner(BUDGETS, LENGTHS, Limits(ceiling_bytes=450 * MIB))
    trials = drive(tuner, device)
    assert max(trial.knobs.budget_tokens for trial in trials) == 512
    assert tuner.pick().peak_bytes is None


def test_without_a_ceiling_every_size_may_run() -> None:
    def device(trial: Trial) -> Observation:
        return Observation(seconds=0.01 * len(trial.batches))

    tuner = Tuner(BUDGETS, LENGTHS, Limits(ceiling_bytes=None))
    trials = drive(tuner, device)
    assert {trial.predicted_peak_bytes for trial in trials} == {None}
    assert max(trial.knobs.budget_tokens for trial in trials) == 4096


def test_a_ceiling_that_falls_on_the_way_is_kept() -> None:
    def device(trial: Trial) -> Observation:
        ceiling = 150 * MIB if trial.number >= 4 else None
        return Observation(seconds=ran(trial).seconds, peak_bytes=ran(trial).peak_bytes, ceiling_bytes=ceiling)

    tuner = Tuner(BUDGETS, LENGTHS, ROOMY)
    trials = drive(tuner, device)
    assert all((trial.predicted_peak_bytes or 0) <= 150 * MIB for trial in trials[5:])
    assert (tuner.pick().peak_bytes or 0) <= 150 * MIB


def test_a_ceiling_below_the_smallest_need_is_an_error_that_names_it() -> None:
    with pytest.raises(DeviceError, match=r"fp32, 256 padded tokens\) needs up to 100 MiB and 99 MiB may be used"):
        Tuner(BUDGETS, LENGTHS, Limits(ceiling_bytes=99 * MIB))


def test_where_even_the_smallest_size_runs_out_of_memory_the_pick_is_an_error() -> None:
    tuner = Tuner(BUDGETS, LENGTHS, ROOMY)
    assert len(drive(tuner, lambda trial: Observation(failure=OUT_OF_MEMORY))) == 1
    with pytest.raises(DeviceError, match="no batch fits"):
        tuner.pick()


def test_a_mode_that_fails_at_its_first_trial_is_given_up_and_the_next_one_tried() -> None:
    half = Mode(precision="fp16", streams=2, threads=1, floor_bytes=100 * MIB)
    tuner = Tuner(Space(modes=(half, CPU), budgets_tokens=(128, 256, 512)), LENGTHS, ROOMY)
    trials = drive(tuner, lambda trial: Observation(failure="a canary") if trial.knobs.mode is half else ran(trial))
    assert sum(trial.knobs.mode is half for trial in trials) == 1
    assert tuner.pick().mode is CPU


def test_where_all_fail_the_error_has_the_last_words() -> None:
    tuner = Tuner(BUDGETS, LENGTHS, ROOMY)
    drive(tuner, lambda trial: Observation(failure="the driver left"))
    with pytest.raises(DeviceError, match="the driver left"):
        tuner.pick()


def test_the_time_ends_trials_before_they_are_too_long() -> None:
    tuner = Tuner(BUDGETS, LENGTHS, Limits(ceiling_bytes=8000 * MIB, time_s=2.0))
    drive(tuner)
    assert tuner.pick().seconds <= 2.0


def test_the_number_of_trials_is_kept() -> None:
    tuner = Tuner(BUDGETS, LENGTHS, Limits(ceiling_bytes=8000 * MIB, trials=5))
    assert len(drive(tuner)) == 5
    assert tuner.pick().ended == "trials"


def test_what_the_first_run_compiles_is_paid_once_and_not_for_every_batch() -> None:
    def device(trial: Trial) -> Observation:
        extra = 0.5 if trial.repetition == 1 else 0.0
        return Observation(seconds=ran(trial).seconds + extra, peak_bytes=ran(trial).peak_bytes)

    tuner = Tuner(BUDGETS, LENGTHS, ROOMY)
    drive(tuner, device)
    assert tuner.pick().tokens_per_s == pytest.approx(20_000, rel=0.1)


def test_a_short_job_opens_fewer_sessions() -> None:
    def device(trial: Trial) -> Observation:
        return Observation(seconds=ran(trial).seconds, open_seconds=0.5, peak_bytes=ran(trial).peak_bytes)

    def sessions(expected_tokens: int | None) -> int:
        tuner = Tuner(BUCKETS, LENGTHS, Limits(ceiling_bytes=8000 * MIB, expected_tokens=expected_tokens))
        drive(tuner, device)
        return len(tuner.pick().packing.buckets)

    assert sessions(2_000) == 1
    assert sessions(None) == 3


def test_the_sessions_of_a_ladder_fit_under_the_ceiling_together() -> None:
    tuner = Tuner(BUCKETS, LENGTHS, Limits(ceiling_bytes=200 * MIB))
    drive(tuner)
    pick = tuner.pick()
    need = sum(60 * MIB + bucket.rows * bucket.sequence * 50 * 1024 for bucket in pick.packing.buckets)
    assert need <= (pick.peak_bytes or 0) <= 200 * MIB


def test_what_a_session_kept_of_larger_batches_is_not_the_need_of_a_smaller_one() -> None:
    kept = 0

    def device(trial: Trial) -> Observation:
        nonlocal kept
        kept = max(kept, ran(trial).peak_bytes or 0)
        slow = 3.0 if trial.knobs.budget_tokens > 512 else 1.0
        return Observation(seconds=ran(trial).seconds * slow, peak_bytes=kept)

    tuner = Tuner(BUDGETS, LENGTHS, ROOMY)
    drive(tuner, device)
    assert tuner.pick().packing.budget_tokens <= 512
    assert (tuner.pick().peak_bytes or 0) < kept


def test_budgets_that_the_texts_cannot_fill_are_not_told_apart() -> None:
    trials = drive(Tuner(BUDGETS, np.array([10, 20, 30]), ROOMY))
    assert {trial.knobs.budget_tokens for trial in trials} == {128}


def test_every_trial_is_observed_before_the_next() -> None:
    tuner = Tuner(BUDGETS, LENGTHS, ROOMY)
    trial = tuner.next()
    assert trial is not None
    with pytest.raises(ValueError, match="not been observed"):
        tuner.next()
    tuner.observe(trial, ran(trial))
    with pytest.raises(ValueError, match="not the trial"):
        tuner.observe(trial, ran(trial))


@pytest.mark.parametrize(
    "space",
    [
        Space(modes=(), budgets_tokens=(128,)),
        Space(modes=(CPU,)),
        Space(modes=(CPU,), budgets_tokens=(128,), buckets=(Bucket(rows=1, sequence=128),)),
        Space(modes=(CPU,), buckets=(Bucket(rows=1, sequence=64),)),
    ],
)
def test_a_space_that_serves_no_text_is_an_error(space: Space) -> None:
    with pytest.raises(ConfigError):
        Tuner(space, LENGTHS, ROOMY)
