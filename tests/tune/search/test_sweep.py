"""The sweep's rules, one by one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from msgspec import structs

from embedmill.base.errors import DeviceError
from embedmill.base.records import Packing
from embedmill.batch.pack import pack
from embedmill.tune.search import OUT_OF_MEMORY, Knobs, Limits, Mode, Observation, Pick, Space, Trial, powers_of_two
from embedmill.tune.search.sweep import Sweep, idle, spread
from embedmill.tune.search.trials import Trials

MIB = 1 << 20
LENGTHS = np.concatenate([np.random.default_rng(3).integers(4, 120, 600), [128]])
CPU = Mode(precision="fp32", streams=2, threads=1, floor_bytes=100 * MIB)
SPACE = Space(modes=(CPU,), budgets_tokens=powers_of_two(128, 4096), default=Packing(budget_tokens=512))
TWO_MODES = structs.replace(SPACE, modes=(CPU, structs.replace(CPU, streams=1, threads=2)))
ROOMY = 8000 * MIB


def heaviest(trial: Trial) -> int:
    return max(batch.size * batch.sequence for batch in trial.batches)


def ran(trial: Trial) -> Observation:
    """A device of 10,000 tokens/s with a small launch, and 50 KiB for each token over 60 MiB."""
    seconds = trial.padded_tokens / 10_000 / trial.knobs.mode.streams + 1e-3 * len(trial.batches)
    return Observation(seconds=seconds, peak_bytes=60 * MIB + trial.knobs.mode.lanes * heaviest(trial) * 50 * 1024)


def swept(
    space: Space = SPACE,
    device: Callable[[Trial], Observation] = ran,
    *,
    ceiling: int | None = ROOMY,
    time_s: float = 30.0,
    lengths: np.ndarray = LENGTHS,
) -> tuple[Pick, list[Trial]]:
    """A pick, and every trial on the way."""
    trials = Trials(lengths, Limits(ceiling_bytes=ceiling, time_s=time_s), device)
    pick = Sweep(space, trials, time_s).run()
    return pick, [one.trial for one in trials.observed]


def best_at(budget: int) -> Callable[[Trial], Observation]:
    """A device that is fastest at one budget."""

    def device(trial: Trial) -> Observation:
        slow = 1 + 0.3 * abs(np.log2(trial.knobs.budget_tokens / budget))
        return structs.replace(ran(trial), seconds=trial.padded_tokens / 10_000 * slow / trial.knobs.mode.streams)

    return device


def test_the_fastest_point_is_picked() -> None:
    for budget in (256, 1024):
        pick, _ = swept(TWO_MODES, best_at(budget))
        assert (pick.mode, pick.packing.budget_tokens, pick.ended) == (CPU, budget, "settled")


def test_the_expected_rate_is_that_of_the_device() -> None:
    pick, _ = swept(device=best_at(512))
    padding = sum(batch.size * batch.sequence for batch in pack(LENGTHS, Packing(budget_tokens=512))) / LENGTHS.sum()
    assert pick.tokens_per_s == pytest.approx(20_000 / padding, rel=0.02)


def test_points_that_are_left_are_visited_forwards_and_backwards() -> None:
    _, trials = swept(TWO_MODES, best_at(512))
    later = [trial.knobs for trial in trials if trial.repetition > 2]
    visits = [knobs for knobs, after in pairwise([*later, None]) if knobs != after]
    for point in set(visits):
        assert visits.count(point) >= 1
    first_round = visits[: len(set(visits))]
    assert visits[len(first_round) - 1 : 2 * len(first_round) - 1] == first_round[::-1]


def test_a_machine_that_gets_slower_is_slower_for_all() -> None:
    spent = 0.0

    def device(trial: Trial) -> Observation:
        nonlocal spent
        seen = best_at(1024)(trial)
        spent += seen.seconds
        return structs.replace(seen, seconds=seen.seconds * (1 + spent / 60))

    assert swept(TWO_MODES, device)[0].packing.budget_tokens == 1024


def test_the_first_trial_of_a_point_runs_its_largest_batches_twice_in_every_lane() -> None:
    for trial in swept()[1]:
        if trial.repetition == 1:
            most = max(
                batch.size * batch.sequence for batch in pack(LENGTHS, Packing(budget_tokens=trial.knobs.budget_tokens))
            )
            held = [batch for batch in trial.batches if batch.size * batch.sequence == most]
            assert len(held) >= 2 * trial.knobs.mode.lanes


def test_a_trial_names_batches_of_real_rows_under_its_budget() -> None:
    for trial in swept()[1]:
        for batch in trial.batches:
            assert batch.sequence == LENGTHS[batch.rows].max()
            assert batch.size * batch.sequence <= trial.knobs.budget_tokens
        assert trial.useful_tokens == sum(LENGTHS[batch.rows].sum() for batch in trial.batches)


def test_later_runs_of_a_point_have_other_batches() -> None:
    runs: dict[Knobs, list[list[int]]] = {}
    for trial in swept(device=best_at(512))[1]:
        if trial.repetition > 1:
            runs.setdefault(trial.knobs, []).append(sorted(int(batch.rows[0]) for batch in trial.batches))
    repeated = [several for several in runs.values() if len(several) > 2]
    assert repeated
    assert all(one != other for several in repeated for one, other in pairwise(several[1:]))


def test_the_smallest_budget_runs_first_and_none_is_skipped() -> None:
    budgets = list(dict.fromkeys(trial.knobs.budget_tokens for trial in swept(device=best_at(4096))[1]))
    assert budgets == [128, 256, 512, 1024, 2048, 4096]


def test_no_trial_may_pass_the_ceiling() -> None:
    pick, trials = swept(ceiling=180 * MIB)
    assert all((trial.predicted_peak_bytes or 0) <= 180 * MIB for trial in trials)
    assert 256 <= max(trial.knobs.budget_tokens for trial in trials) <= 1024
    assert (pick.peak_bytes or 0) <= 180 * MIB


def test_a_device_that_does_not_report_memory_grows_from_what_the_smallest_batch_can_need() -> None:
    pick, trials = swept(device=lambda trial: Observation(seconds=ran(trial).seconds), ceiling=450 * MIB)
    assert max(trial.knobs.budget_tokens for trial in trials) == 512
    assert pick.peak_bytes is None


def test_without_a_ceiling_every_size_may_run() -> None:
    _, trials = swept(device=best_at(4096), ceiling=None)
    assert {trial.predicted_peak_bytes for trial in trials} == {None}
    assert max(trial.knobs.budget_tokens for trial in trials) == 4096


def test_a_ceiling_that_falls_on_the_way_is_kept() -> None:
    def device(trial: Trial) -> Observation:
        return structs.replace(best_at(4096)(trial), ceiling_bytes=150 * MIB if trial.number >= 4 else None)

    pick, trials = swept(device=device)
    assert max(trial.knobs.budget_tokens for trial in trials) <= 512
    assert (pick.peak_bytes or 0) <= 150 * MIB


def test_after_running_out_of_memory_nothing_as_large_is_tried_again() -> None:
    def device(trial: Trial) -> Observation:
        return Observation(failure=OUT_OF_MEMORY) if heaviest(trial) > 500 else best_at(4096)(trial)

    pick, trials = swept(TWO_MODES, device)
    assert sum(heaviest(trial) > 500 for trial in trials) == 1
    assert pick.packing.budget_tokens <= 256


def test_a_mode_that_fails_is_given_up_and_the_next_one_tried() -> None:
    half = structs.replace(CPU, precision="fp16")
    space = structs.replace(SPACE, modes=(half, CPU))
    pick, trials = swept(space, lambda trial: Observation(failure="x") if trial.knobs.mode is half else ran(trial))
    assert sum(trial.knobs.mode is half for trial in trials) == 1
    assert pick.mode is CPU


def test_where_all_fail_the_error_names_the_last_failure() -> None:
    with pytest.raises(DeviceError, match="every trial failed, the last one with: the driver left"):
        swept(device=lambda trial: Observation(failure="the driver left"))
    with pytest.raises(DeviceError, match="no batch fits"):
        swept(device=lambda trial: Observation(failure=OUT_OF_MEMORY))


def test_a_ceiling_below_the_smallest_need_is_an_error_that_names_it() -> None:
    with pytest.raises(DeviceError, match=r"fp32, 256 padded tokens\) needs up to 100 MiB and 99 MiB may be used"):
        swept(ceiling=99 * MIB)


def test_the_time_is_kept() -> None:
    for time_s in (2.0, 8.0):
        trials = Trials(LENGTHS, Limits(ceiling_bytes=ROOMY, time_s=time_s), best_at(4096))
        Sweep(TWO_MODES, trials, time_s).run()
        assert trials.seconds <= time_s * 1.05


def test_budgets_that_the_texts_cannot_fill_are_one_point() -> None:
    _, trials = swept(lengths=np.array([10, 20, 30]))
    assert {trial.knobs.budget_tokens for trial in trials} == {128}


def test_budgets_that_only_get_slower_are_left_out() -> None:
    _, trials = swept(device=best_at(128))
    assert max(trial.knobs.budget_tokens for trial in trials) == 512


def test_the_default_runs_however_slow_the_machine_is() -> None:
    def device(trial: Trial) -> Observation:
        return structs.replace(ran(trial), seconds=ran(trial).seconds * 20)

    _, trials = swept(TWO_MODES, device, time_s=20.0)
    assert 512 in {trial.knobs.budget_tokens for trial in trials if trial.knobs.mode == CPU}


def test_batches_are_spread_evenly_and_the_streams_wait_little() -> None:
    batches = pack(LENGTHS, Packing(budget_tokens=256))
    few = spread(batches, 10)
    assert {batch.sequence for batch in few} <= {batch.sequence for batch in batches}
    assert len(few) == 10
    assert len(spread(batches, 2 * len(batches))) == 2 * len(batches)
    assert idle(batches, 1) == 1
    assert idle(batches[:1], 2) == 2
