"""The search for a ladder: its rules, one by one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from msgspec import structs

from embedmill.base.errors import ConfigError, DeviceError
from embedmill.base.records import Bucket, Packing
from embedmill.tune.search import OUT_OF_MEMORY, Knobs, Limits, Mode, Observation, Pick, Space, Trial, ladder_buckets
from embedmill.tune.search.arms import Arms
from embedmill.tune.search.ladder import LadderSearch
from embedmill.tune.search.memory import Memory
from embedmill.tune.search.trials import Trials

MIB = 1 << 20
LENGTHS = np.concatenate([np.random.default_rng(3).integers(4, 120, 600), [128]])
MODE = Mode(precision="fp32", streams=1, threads=1, floor_bytes=100 * MIB)
DEFAULT = Packing(
    budget_tokens=2048,
    buckets=(Bucket(rows=64, sequence=32), Bucket(rows=32, sequence=64), Bucket(rows=16, sequence=128)),
)
SPACE = Space(
    modes=(MODE,),
    default=DEFAULT,
    buckets=ladder_buckets((32, 64), longest=128, most_rows=64, most_tokens=4096),
)
DOUBLING = Space(
    modes=tuple(structs.replace(MODE, in_flight=count) for count in (1, 2)),
    default=DEFAULT,
    buckets=ladder_buckets((128,), longest=256, most_rows=256, most_tokens=16384),
)
ROOMY = 8000 * MIB


def padded(trial: Trial) -> int:
    return max(batch.size * batch.sequence for batch in trial.batches)


def ran(trial: Trial) -> Observation:
    """A device of 10,000 tokens/s with a small launch, and 50 KiB for each token over 60 MiB."""
    seconds = trial.padded_tokens / 10_000 + 1e-3 * len(trial.batches)
    return Observation(seconds=seconds, peak_bytes=60 * MIB + trial.knobs.mode.lanes * padded(trial) * 50 * 1024)


def searched(
    device: Callable[[Trial], Observation] = ran,
    *,
    space: Space = SPACE,
    ceiling: int | None = ROOMY,
    time_s: float = 30.0,
    expected_tokens: int | None = None,
) -> tuple[Pick, list[Trial], LadderSearch]:
    """A pick, every trial on the way, and the search."""
    limits = Limits(ceiling_bytes=ceiling, time_s=time_s, expected_tokens=expected_tokens)
    trials = Trials(LENGTHS, limits, device)
    search = LadderSearch(space, trials, 0.75 * time_s)
    return search.run(), [one.trial for one in trials.observed], search


def test_a_bucket_is_filled_with_texts_that_fit_it() -> None:
    for trial in searched()[1]:
        bucket = trial.knobs.bucket
        assert bucket is not None
        for batch in trial.batches:
            assert (batch.size, batch.sequence) == (bucket.rows, bucket.sequence)
            assert LENGTHS[batch.rows].max() <= bucket.sequence
            assert len(set(batch.rows.tolist())) == len(batch.rows) == bucket.rows


def test_the_first_trial_is_the_smallest_and_growth_is_bounded() -> None:
    largest = 0
    for trial in searched()[1]:
        if trial.repetition == 1 and largest:
            assert padded(trial) <= 4 * largest
        if trial.number == 0:
            assert trial.knobs.bucket == Bucket(rows=1, sequence=128)
        largest = max(largest, padded(trial))
    assert largest > 128


def test_no_trial_is_predicted_above_the_ceiling() -> None:
    trials = searched(ceiling=180 * MIB)[1]
    assert all((trial.predicted_peak_bytes or 0) <= 180 * MIB for trial in trials)
    assert 256 <= max(padded(trial) for trial in trials) <= 2048


def test_a_second_run_that_needs_more_is_what_counts() -> None:
    def device(trial: Trial) -> Observation:
        peak = 60 * MIB + padded(trial) * 50 * 1024
        return Observation(seconds=ran(trial).seconds, peak_bytes=peak * (1 if trial.repetition == 1 else 2))

    pick, trials, _ = searched(device, ceiling=600 * MIB)
    assert max(device(trial).peak_bytes or 0 for trial in trials) <= 600 * MIB
    assert pick.peak_bytes is not None
    assert pick.peak_bytes > 120 * MIB


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
    pick, trials, _ = searched(lambda one: Observation(failure=OUT_OF_MEMORY) if padded(one) > 500 else ran(one))
    assert sum(padded(trial) > 500 for trial in trials) == 1
    assert max(bucket.rows * bucket.sequence for bucket in pick.packing.buckets) <= 500


def test_a_device_that_does_not_report_memory_grows_by_what_the_smallest_batch_can_need() -> None:
    pick, trials, _ = searched(lambda trial: Observation(seconds=ran(trial).seconds), ceiling=450 * MIB)
    assert max(padded(trial) for trial in trials) == 512
    assert pick.peak_bytes is None


def test_a_ceiling_that_falls_on_the_way_is_kept() -> None:
    def device(trial: Trial) -> Observation:
        return structs.replace(ran(trial), ceiling_bytes=150 * MIB if trial.number >= 4 else None)

    pick, trials, _ = searched(device)
    assert all((trial.predicted_peak_bytes or 0) <= 150 * MIB for trial in trials[5:])
    assert (pick.peak_bytes or 0) <= 150 * MIB


def test_a_ceiling_below_the_smallest_need_is_an_error_that_names_it() -> None:
    with pytest.raises(DeviceError, match=r"fp32, 128 padded tokens\) needs up to 100 MiB and 99 MiB may be used"):
        searched(ceiling=99 * MIB)


def test_where_all_fail_the_error_names_the_last_failure() -> None:
    with pytest.raises(DeviceError, match="the driver left"):
        searched(lambda trial: Observation(failure="the driver left"))
    with pytest.raises(DeviceError, match="no batch fits"):
        searched(lambda trial: Observation(failure=OUT_OF_MEMORY))


def test_a_mode_that_fails_at_its_first_trial_is_given_up_and_the_next_one_tried() -> None:
    half = structs.replace(MODE, precision="fp16")
    pick, trials, _ = searched(
        lambda trial: Observation(failure="a canary") if trial.knobs.mode is half else ran(trial),
        space=structs.replace(SPACE, modes=(half, MODE)),
    )
    assert sum(trial.knobs.mode is half for trial in trials) == 1
    assert pick.mode is MODE


def test_what_the_first_run_compiles_is_not_paid_for_every_batch() -> None:
    def device(trial: Trial) -> Observation:
        return structs.replace(ran(trial), seconds=ran(trial).seconds + (0.5 if trial.repetition == 1 else 0.0))

    assert searched(device)[0].tokens_per_s == pytest.approx(searched()[0].tokens_per_s, rel=0.1)


def test_a_short_job_opens_fewer_sessions() -> None:
    def sessions(expected_tokens: int | None) -> int:
        def device(trial: Trial) -> Observation:
            return structs.replace(ran(trial), open_seconds=0.5)

        return len(searched(device, expected_tokens=expected_tokens)[0].packing.buckets)

    assert sessions(2_000) == 1
    assert sessions(None) == 3


def test_the_sessions_of_a_ladder_fit_under_the_ceiling_together() -> None:
    pick = searched(ceiling=200 * MIB)[0]
    need = sum(60 * MIB + bucket.rows * bucket.sequence * 50 * 1024 for bucket in pick.packing.buckets)
    assert need <= (pick.peak_bytes or 0) <= 200 * MIB


def test_the_shapes_of_the_default_are_proven_where_they_fit() -> None:
    def device(trial: Trial) -> Observation:
        """Large batches are so slow that the search leaves them out."""
        return structs.replace(ran(trial), seconds=ran(trial).seconds * (1 + padded(trial) / 64))

    def bounds(ceiling: int) -> list[float]:
        search = searched(device, ceiling=ceiling)[2]
        return [search.bound(Knobs(mode=MODE, budget_tokens=2048, bucket=bucket)) for bucket in DEFAULT.buckets]

    assert max(bounds(ROOMY)) <= 4 * 160 * MIB
    assert max(bounds(120 * MIB)) == np.inf


def test_lengths_that_no_bucket_holds_are_an_error() -> None:
    with pytest.raises(ConfigError, match="no bucket holds a text of 128 tokens"):
        searched(space=structs.replace(SPACE, buckets=(Bucket(rows=1, sequence=64),)))
