"""Sweep over modes and budgets, where any shape runs.

Successive halving (Karnin et al., Almost Optimal Exploration in Multi-Armed Bandits, ICML 2013).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

import numpy as np

from embedmill.base.errors import DeviceError
from embedmill.base.records import Batch, Packing
from embedmill.batch.pack import pack
from embedmill.tune.search.space import Knobs, Space
from embedmill.tune.search.trials import TRIAL_PART, Trials, padded
from embedmill.tune.search.types import OUT_OF_MEMORY, Ended, Pick

# The first two trials of a point may take this part of the time.
_MOST_PART = 1 / 10
_MOST_BATCHES = 512
# The budgets of a mode end after so many in a row below this part of its best rate: a cache overflows only once.
_PATIENCE, _WORSE = 2, math.log(0.92)
# After the first round, points below this part of the best rate are out: neither noise nor drift is as large.
_HOPELESS = math.log(0.75)
_MARGIN, _SLACK = 1.05, 1.0 + 1e-9
# The golden ratio spreads the batches of successive trials most evenly.
_GOLDEN = (5**0.5 - 1) / 2


class Sweep:
    """Rounds over all points, the worse half dropped after each."""

    def __init__(self, space: Space, trials: Trials, time_s: float) -> None:
        """`time_s` is for this sweep, of what `trials` have left."""
        self._trials, self._time_s, self._held = trials, time_s, math.inf
        self._default_tokens = space.default.budget_tokens
        packed: dict[int, list[Batch]] = {}
        for budget in sorted(space.budgets_tokens):
            batches = pack(trials.lengths, Packing(budget_tokens=budget))
            # Texts too few to fill a budget are packed like under the one before.
            if not packed or shapes(batches) != shapes(list(packed.values())[-1]):
                packed[budget] = batches
        self._modes = [
            [_Point(Knobs(mode=mode, budget_tokens=budget), packed[budget], trials) for budget in packed]
            for mode in space.modes
        ]

    def run(self) -> Pick:
        """Return the fastest point after all rounds.

        Raises DeviceError where no batch runs below the ceiling.
        """
        for number, mode in enumerate(self._modes):
            self._grow(mode, always=0 if number else self._default_tokens)
        left = [point for mode in self._modes for point in _better_half(mode)]
        left = [point for point in left if point.rate > max(one.rate for one in left) + _HOPELESS]
        ended: Ended = "settled"
        while len(left) > 1:
            ended = "time" if not self._round(left) and len(left) > 2 else ended
            left = _better_half(left)
        if not left:
            least = min((mode[0] for mode in self._modes), key=lambda point: point.knobs.mode.floor_bytes)
            raise DeviceError(self._trials.no_room(least.knobs.mode, least.demand[1], least.knobs.mode.floor_bytes))
        return Pick(
            mode=left[0].knobs.mode,
            packing=Packing(budget_tokens=left[0].knobs.budget_tokens),
            tokens_per_s=math.exp(left[0].rate),
            peak_bytes=int(left[0].peak) if self._trials.know_memory else None,
            ended=ended,
        )

    def bound(self, knobs: Knobs) -> float:
        """Return the bytes of a point; infinite before any run."""
        points = [point for mode in self._modes for point in mode if point.knobs.mode == knobs.mode]
        # The largest budget up to this one packs the texts alike, or there would be another point.
        point = [one for one in points if one.knobs.budget_tokens <= knobs.budget_tokens][-1]
        return point.peak if point.rates else math.inf

    def _grow(self, points: list[_Point], *, always: int) -> None:
        """Run the budgets of a mode, the smallest first.

        Each runs once for memory and once for time. None starts whose memory may pass the ceiling, by what the next
        smaller one needed. Those up to `always` tokens run however slow they are.
        """
        smaller: _Point | None = None
        worse, best = 0, -math.inf
        for point in points:
            point.bound_by(smaller)
            # The second trial has batches of the first, so that no shape in it is met for the first time.
            fair = point.sample(0)
            needed, left = point.seconds(point.heaviest + 2 * fair), self._left() - self._trials.opening_of(point.knobs)
            slow = needed > min(left, self._time_s * _MOST_PART) and point.knobs.budget_tokens > always
            if slow or point.peak > min(self._trials.ceiling, self._held):
                return
            if not self._runs(point, point.heaviest + fair) or not self._runs(point, fair):
                return
            best, smaller = max(best, point.rate), point
            worse = worse + 1 if point.rate < best + _WORSE else 0
            if worse >= _PATIENCE and point.knobs.budget_tokens >= always:
                return

    def _round(self, points: list[_Point]) -> bool:
        """Visit all points twice; False where time is too short.

        They get equal parts of it, forwards and backwards: a machine that gets slower is slower for all of them.
        """
        visit_s = self._left() / math.ceil(math.log2(len(points))) / (2 * len(points))
        for point in points + points[::-1]:
            began = self._trials.seconds
            while point.rates:
                batches = point.sample(round(self._time_s * TRIAL_PART / point.seconds(point.batches[:1])))
                if self._trials.opening_of(point.knobs) + point.seconds(batches) > self._left():
                    return False
                if not self._runs(point, batches) or self._trials.seconds - began >= visit_s:
                    break
        return True

    def _runs(self, point: _Point, batches: Sequence[Batch]) -> bool:
        """Run a trial; False and out of rates on failure."""
        trial, observed = self._trials.run(point.knobs, batches, peak_bytes=point.peak)
        if observed.failure is not None or point.peak > self._trials.ceiling:
            if observed.failure == OUT_OF_MEMORY:
                # Memory ends below the ceiling: nothing may need more than what was held so far.
                held = [one.peak for mode in self._modes for one in mode if one.rates]
                self._held = min(self._held, max(held, default=point.peak / 2))
            point.rates.clear()
            return False
        if trial.repetition == 1 and observed.peak_bytes is not None:
            point.peak = observed.peak_bytes
        point.pace = observed.seconds / trial.padded_tokens
        # The first run is cold: caches, kernels and memory are met for the first time.
        if trial.repetition > 1:
            point.note(batches, observed.seconds)
        return True

    def _left(self) -> float:
        return self._time_s - self._trials.seconds


class _Point:
    """Budget in a mode, with all texts packed.

    demand    lanes, padded tokens in all lanes, scores of attention in all lanes
    peak      bytes: measured, before that an upper bound
    pace      seconds per padded token in the last run
    rates     logarithms of useful tokens per second, one per warm run
    """

    def __init__(self, knobs: Knobs, batches: list[Batch], trials: Trials) -> None:
        self.knobs, self.batches = knobs, batches
        lanes = knobs.mode.lanes
        scores, tokens = max(batches, key=_scores), max(batches, key=padded)
        self.demand = np.array([lanes, lanes * padded(tokens), lanes * _scores(scores)], np.float64)
        # Each twice per lane: a second run of a batch may need more memory than the first.
        self.heaviest = 2 * lanes * ([scores] if padded(tokens) == padded(scores) else [scores, tokens])
        self.peak, self.pace = math.inf, 0.0
        self.rates: list[float] = []
        self._useful = float(trials.lengths.sum()) / sum(map(padded, batches))

    @property
    def rate(self) -> float:
        """Mean logarithm of useful tokens per second."""
        return float(np.mean(self.rates))

    def bound_by(self, smaller: _Point | None) -> None:
        """Set bounds from the next smaller budget, or the floor.

        Memory is a constant plus something per token and score, so that g times the demand needs at most g times as
        much; g is rounded up to a power of two, as allocators round.
        """
        self.peak = self.knobs.mode.floor_bytes
        if smaller is not None:
            growth = float((self.demand / smaller.demand).max())
            self.peak = smaller.peak * 2.0 ** math.ceil(math.log2(growth / _SLACK)) * _MARGIN
            self.pace = smaller.pace

    def seconds(self, batches: Sequence[Batch]) -> float:
        """Return expected seconds; 0.0 before any run in the mode."""
        return self.pace * sum(map(padded, batches))

    def note(self, batches: Sequence[Batch], seconds: float) -> None:
        """Add the rate of a run."""
        # In a job the next batches follow, so that no stream waits for the last one.
        busy = seconds / idle(batches, self.knobs.mode.streams)
        self.rates.append(math.log(self._useful * sum(map(padded, batches)) / max(busy, 1e-12)))

    def sample(self, wanted: int) -> list[Batch]:
        """Return about `wanted` batches, different ones after each run."""
        mode = self.knobs.mode
        count = min(max(wanted, 2 * mode.streams, mode.lanes + 1), _MOST_BATCHES)
        return spread(self.batches, count, (0.5 + _GOLDEN * len(self.rates)) % 1.0)


def spread(batches: list[Batch], count: int, offset: float = 0.5) -> list[Batch]:
    """Return `count` batches, evenly spaced and the largest first."""
    if count >= len(batches):
        return sorted(batches * round(count / len(batches)), key=padded, reverse=True)
    places = (np.arange(count) + offset) / count * len(batches)
    return sorted((batches[int(place)] for place in places), key=padded, reverse=True)


def idle(batches: Sequence[Batch], streams: int) -> float:
    """Return the last stream's tokens over the mean."""
    free = [0.0] * streams
    for batch in batches:
        heapq.heapreplace(free, free[0] + padded(batch))
    return max(free) * streams / sum(map(padded, batches))


def shapes(batches: Sequence[Batch]) -> list[tuple[int, int]]:
    """Return size and sequence of each batch."""
    return [(batch.size, batch.sequence) for batch in batches]


def _better_half(points: list[_Point]) -> list[_Point]:
    """Return the faster half of the points, in order."""
    ran = [point for point in points if point.rates]
    fast = sorted(ran, key=lambda point: point.rate, reverse=True)[: math.ceil(len(ran) / 2)]
    return [point for point in ran if point in fast]


def _scores(batch: Batch) -> int:
    return batch.size * batch.sequence**2
