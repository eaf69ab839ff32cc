"""Paired runs of a pick and the catalogue's default.

Runs one after the other meet the same machine, however busy; runs minutes apart do not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import fmean, median
from typing import Literal

import numpy as np
from msgspec import Struct, structs

from embedmill.base.records import Batch, IntArray, Packing
from embedmill.batch.pack import pack
from embedmill.tune.search.arms import filled, least_batches
from embedmill.tune.search.space import Knobs, Mode, knobs_of
from embedmill.tune.search.sweep import idle, shapes, spread
from embedmill.tune.search.trials import TRIAL_PART, Trials, padded
from embedmill.tune.search.types import Observation, Pick

# Part of the tuning's time that is kept for the pairs.
DUEL_PART = 0.25
# A pick is used if the median pair gains this much, and the lower quartile does not lose more than that.
LEAST_GAIN, LEAST_QUARTILE = 1.02, 0.95
# Turns are as long as leaves time for so many pairs (a slow default takes longer, so that three remain), and there are
# never more pairs than that, nor more trials in a turn.
_WANTED_PAIRS, _MOST_PAIRS, _MOST_RUNS = 4, 5, 4

Side = Literal["pick", "default"]


class _Turn(Struct, frozen=True, kw_only=True):
    """Batches of one side on one session."""

    side: Side
    knobs: Knobs
    batches: list[Batch]
    # Turns seconds of the batches into the side's seconds per useful token.
    weight: float


def compared(pick: Pick, default: tuple[Mode, Packing], bound: Callable[[Knobs], float], trials: Trials) -> Pick:
    """Return the pick, or the default if nothing is gained.

    `bound` returns the bytes that a point needs, infinite where it may not run.
    """
    mode, packing = default
    if mode == pick.mode and shapes(pack(trials.lengths, packing)) == shapes(pack(trials.lengths, pick.packing)):
        return structs.replace(pick, verdict="default")
    untuned = structs.replace(pick, mode=mode, packing=packing, unproven=())
    need = sum(bound(knobs) for knobs, _ in _loads(untuned, trials.lengths))
    duel = _Duel(pick, untuned, bound, trials)
    if need > trials.ceiling or duel.run() == "default":
        return structs.replace(pick, verdict="default failed")
    untuned = structs.replace(untuned, peak_bytes=None if pick.peak_bytes is None else int(need))
    if not duel.gains:
        return structs.replace(untuned, verdict="not compared", tokens_per_s=0.0)
    gains = tuple(duel.gains)
    if not duel.failed and gains_enough(gains):
        return structs.replace(pick, verdict="faster", gains=gains)
    return structs.replace(untuned, verdict="no gain", gains=gains, tokens_per_s=1 / median(duel.default_s))


def gains_enough(gains: Sequence[float]) -> bool:
    """Return whether gains of pairs are more than noise."""
    return median(gains) >= LEAST_GAIN and float(np.quantile(gains, 0.25)) >= LEAST_QUARTILE


class _Duel:
    """Pairs of runs: A B, B A, A B."""

    def __init__(self, pick: Pick, default: Pick, bound: Callable[[Knobs], float], trials: Trials) -> None:
        self._trials, self._bound = trials, bound
        self.gains: list[float] = []
        # Seconds of the default per useful token, pair by pair.
        self.default_s: list[float] = []
        self.failed: Side | None = None
        sides: dict[Side, Pick] = {"pick": pick, "default": default}
        tokens = pick.tokens_per_s * trials.limits.time_s * TRIAL_PART
        turns_of = _ladder_turns if pick.packing.buckets else _budget_turns
        # Neighbours in time are alike, and a session that both sides have in common is opened once.
        self._turns = sorted(
            turns_of(sides, trials.lengths, tokens), key=lambda turn: (turn.batches[0].sequence, turn.batches[0].size)
        )
        self._run_s = sum(padded(batch) for turn in self._turns for batch in turn.batches) / pick.tokens_per_s
        self._opened: dict[Knobs, float] = {}

    def run(self) -> Side | None:
        """Run pairs while time is left; return a failed side."""
        pair_s = sum({turn.knobs: self._trials.opening_of(turn.knobs) for turn in self._turns}.values()) + self._run_s
        runs = 1
        while len(self.gains) < _MOST_PAIRS and not self.failed:
            left = self._trials.limits.time_s - self._trials.seconds
            if pair_s > left:
                break
            if not self.gains:
                runs += int(np.clip((left / _WANTED_PAIRS - pair_s) / self._run_s, 0, _MOST_RUNS - 1))
            began = self._trials.seconds
            self._pair(self._turns if len(self.gains) % 2 == 0 else self._turns[::-1], runs)
            pair_s = self._trials.seconds - began
        return self.failed

    def _pair(self, turns: Sequence[_Turn], runs: int) -> None:
        seconds: dict[Side, float] = defaultdict(float)
        for turn in turns:
            if not self._trials.is_open(turn.knobs):
                # A new session meets its kernels and memory for the first time.
                self._opened[turn.knobs] = self._run(turn, turn.batches[: turn.knobs.mode.lanes]).open_seconds
            seconds[turn.side] += turn.weight * fmean(self._run(turn, turn.batches).seconds for _ in range(runs))
            # A job pays for its sessions once.
            seconds[turn.side] += self._opened.get(turn.knobs, 0.0) / (self._trials.limits.expected_tokens or np.inf)
            if self.failed:
                return
        self.default_s.append(max(seconds["default"], 1e-12))
        self.gains.append(seconds["default"] / max(seconds["pick"], 1e-12))

    def _run(self, turn: _Turn, batches: Sequence[Batch]) -> Observation:
        need = self._bound(turn.knobs)
        if self.failed or need > self._trials.ceiling:
            self.failed = self.failed or turn.side
            return Observation()
        _, observed = self._trials.run(turn.knobs, batches, peak_bytes=need)
        self.failed = None if observed.failure is None else turn.side
        return observed


def _budget_turns(sides: dict[Side, Pick], lengths: IntArray, tokens: float) -> list[_Turn]:
    """Return one turn per side over the same texts.

    They have about so many useful tokens, in whole batches of the coarser packing, so that both sides pad as in a job.
    """
    coarse = min(sides.values(), key=lambda side: len(pack(lengths, side.packing)))
    batches = pack(lengths, coarse.packing)
    count = max(round(tokens * len(batches) / lengths.sum()), 2 * max(one.mode.lanes for one in sides.values()))
    rows = np.concatenate([batch.rows for batch in spread(batches, min(count, len(batches)))])
    turns = []
    for side, found in sides.items():
        mine = [structs.replace(batch, rows=rows[batch.rows]) for batch in pack(lengths[rows], found.packing)]
        # In a job no stream waits for another at the end of these texts.
        weight = 1 / idle(mine, found.mode.streams) / float(lengths[rows].sum())
        turns.append(_Turn(side=side, knobs=_loads(found, lengths)[0][0], batches=mine, weight=weight))
    return turns


def _ladder_turns(sides: dict[Side, Pick], lengths: IntArray, tokens: float) -> list[_Turn]:
    """Return a turn per bucket used, of so many tokens."""
    turns = []
    for side, found in sides.items():
        for knobs, texts in _loads(found, lengths):
            bucket = knobs.bucket
            assert bucket is not None
            count = max(round(tokens / (bucket.rows * bucket.sequence)), least_batches(knobs))
            weight = texts / bucket.rows / count / float(lengths.sum())
            turns.append(_Turn(side=side, knobs=knobs, batches=filled(bucket, lengths, count), weight=weight))
    return turns


def _loads(found: Pick, lengths: IntArray) -> list[tuple[Knobs, int]]:
    """Return the points of a packing and numbers of texts."""
    knobs, sequences = knobs_of(found.mode, found.packing), [bucket.sequence for bucket in found.packing.buckets]
    texts = np.bincount(np.searchsorted(sequences, lengths), minlength=len(knobs)) if sequences else [len(lengths)]
    return [(one, int(count)) for one, count in zip(knobs, texts, strict=True) if count]
