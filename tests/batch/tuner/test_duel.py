"""A pick against the default: runs of both by turns on a machine that is now busy, now idle."""

from __future__ import annotations

import numpy as np

from pipeline.batch.tuner import Limits, Mode, Observation, Pick, Space, Trial, Tuner
from pipeline.batch.tuner.duel import Duel

PICK, DEFAULT = 3, 1
LENGTHS = np.concatenate([np.random.default_rng(3).integers(4, 120, 600), [128]])
SPACE = Space(
    modes=(Mode(precision="fp32", streams=2, threads=1, floor_bytes=1 << 20),),
    budgets_tokens=(128, 256, 512, 1024),
    default_tokens=512,
)


def fought(pick_s: list[float], *, ahead: float, default_s: float = 1.0) -> Duel:
    """A duel with so many pairs: the seconds of the pick in each, the default's always the same."""
    duel = Duel(PICK, DEFAULT, runs=1, ahead=ahead)
    for pair in pick_s:
        for _ in range(2):
            duel.observe(pair if duel.turn == PICK else default_s)
    return duel


def test_the_two_take_turns_so_that_a_session_serves_two() -> None:
    duel, turns = Duel(PICK, DEFAULT, runs=2, ahead=0.0), []
    for _ in range(8):
        turns.append(duel.turn)
        duel.observe(1.0)
    assert turns == [PICK] * 2 + [DEFAULT] * 4 + [PICK] * 2


def test_what_only_looked_faster_before_loses() -> None:
    duel = fought([1.1, 1.08, 1.12], ahead=0.1)
    assert duel.decided(0.03)
    assert not duel.won(0.03)


def test_one_pair_tells_what_is_much_faster() -> None:
    duel = fought([0.6], ahead=0.4)
    assert duel.decided(0.08)
    assert duel.won(0.08)


def test_pairs_that_contradict_each_other_decide_nothing() -> None:
    assert not fought([0.9, 1.2, 0.85], ahead=0.0).decided(0.1)


def tuned(space: Space, *, busy: bool) -> Pick:
    """On a machine that is best at 512 tokens; if `busy`, most runs of that meet another program at first."""
    spent = 0.0

    def run(trial: Trial) -> Observation:
        nonlocal spent
        slow = {128: 1.6, 256: 1.3, 512: 1.0, 1024: 1.1}[trial.knobs.budget_tokens]
        if busy and spent < 2.2 and trial.knobs.budget_tokens == 512:
            slow *= 1.5
        seconds = trial.padded_tokens / 20_000 * slow
        spent += seconds
        return Observation(seconds=seconds, peak_bytes=1 << 20)

    tuner = Tuner(space, LENGTHS, Limits(ceiling_bytes=1 << 30, time_s=8.0))
    while (trial := tuner.next()) is not None:
        tuner.observe(trial, run(trial))
    return tuner.pick()


def test_the_default_is_always_tried() -> None:
    budgets = {one.trial.knobs.budget_tokens for one in tuned(SPACE, busy=False).observations[:6]}
    assert 512 in budgets


def test_a_pick_of_a_busy_machine_does_not_replace_a_faster_default() -> None:
    pick = tuned(SPACE, busy=True)
    assert pick.packing.budget_tokens == 512
