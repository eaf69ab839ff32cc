"""How much of its batch budget a run may use while others want memory too. Pure: observations in, a scale out.

No clock, no device, no thread: whoever observes says when.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

from msgspec import Struct

from embedmill.base.results import Change
from embedmill.engine.machine.memory.reading import MemoryReading
from embedmill.engine.memory.cliffs import Cliffs

# Of what is missing, the part that other processes must have taken to be its cause.
_CAUSE = 0.5
# For batches that fail there is no least budget but one row; no batch has more than 2 ** 16.
_MOST_FAILED = 16


class Policy(Struct, frozen=True, kw_only=True):
    """When a batch budget shrinks and grows.

    reserve_bytes   what should stay free at the full budget (`reading.reserve`); half the budget needs half of it.
                    0: memory is no reason
    ease            growing to a budget takes this times its reserve
    most_halvings   the least budget is the full one halved so often
    hold_s          seconds without pressure before each step up; doubled, up to `most_hold_s`, when pressure returns
                    within `relapse_s` seconds of one
    cliff           a batch that takes this times the median of its shape is slow: what is over the budget is paged
                    without an error, at about half the speed. Infinity where time says nothing of memory (the CPU,
                    which others slow down too)
    cliff_batches   so many slow batches in a row are pressure
    """

    reserve_bytes: int
    ease: float = 1.5
    most_halvings: int = 6
    hold_s: float = 10.0
    most_hold_s: float = 300.0
    relapse_s: float = 60.0
    cliff: float = 2.0
    cliff_batches: int = 3


class Pressure:
    """The scale of a batch budget, as readings and batches come in; one thread at a time.

    It is 1, 1/2, 1/4, ...: powers of two, so that fixed shapes stay few. `chosen_at` is the reading by which the budget
    was chosen; with it memory that this run itself has taken since is told from what others took, and is no pressure.
    Without it, or where the means cannot tell, whatever is missing counts.
    """

    def __init__(self, policy: Policy, chosen_at: MemoryReading | None = None) -> None:
        self._policy = policy
        self._chosen_at = chosen_at
        self._cliffs = Cliffs(policy.cliff)
        self._halvings = 0
        self._now_s = float("-inf")
        self._calm_since_s: float | None = None
        self._grown_at_s: float | None = None
        self._hold_s = policy.hold_s
        self._knows_memory = False
        self._changes: list[Change] = []

    @property
    def scale(self) -> float:
        """The part of the batch budget that the next batch may use: in (0, 1]."""
        return 0.5**self._halvings

    @property
    def changes(self) -> tuple[Change, ...]:
        """Every change so far, in its order."""
        return tuple(self._changes)

    def reading(self, reading: MemoryReading, at_s: float) -> Change | None:
        """Take note of a reading; the change that follows from it. One that does not know changes nothing, and where
        others did know, keeps the budget from growing: the last safe size stays."""
        self._now_s = max(self._now_s, at_s)
        free, reserve = reading.free_bytes, self._policy.reserve_bytes
        if free is None:
            self._calm_since_s = None if self._knows_memory else self._calm_since_s
            return None
        self._knows_memory = True
        needed = self._halvings
        while needed < self._policy.most_halvings and free << needed < reserve:
            needed += 1
        if needed > self._halvings:
            return self._short(reading, free, needed)
        enough = self._halvings > 0 and free * 2.0 ** (self._halvings - 1) >= self._policy.ease * reserve
        if enough:
            return self._calm()
        self._calm_since_s = None
        return None

    def batch(self, shape: Hashable, seconds: float, at_s: float) -> Change | None:
        """Take note of a finished batch; the change that follows from it.

        `seconds` are compared among batches of the same `shape` only; where shapes hardly recur, give seconds per
        padded token and a class of shapes.
        """
        self._now_s = max(self._now_s, at_s)
        self._cliffs.add(shape, seconds)
        if self._cliffs.in_a_row < self._policy.cliff_batches:
            return self._calm() if not self._knows_memory else None
        self._cliffs.in_a_row = 0
        reason = f"{self._policy.cliff_batches} batches in a row took {self._policy.cliff:g} times their median or more"
        return self._shrink(self._halvings + 1, f"{reason}: the driver may be paging")

    def failed(self, scale: float, why: str, at_s: float) -> Change | None:
        """Take note that there was no memory for a batch cut to `scale`; the change that follows from it: to half of
        that, below the least budget too. Where it is that small already, nothing follows."""
        self._now_s = max(self._now_s, at_s)
        return self._shrink(1 + round(-math.log2(scale)), why, most=_MOST_FAILED)

    def _short(self, reading: MemoryReading, free: int, needed: int) -> Change | None:
        """Less is free than the reserve."""
        kept = self._policy.reserve_bytes >> self._halvings
        taken = self._taken(reading)
        words = f"{_mib(free)} free of the {_mib(kept)} to be kept ({reading.source})"
        if taken is None:
            return self._shrink(needed, words)
        if taken < _CAUSE * (kept - free):
            self._calm_since_s = None
            return None
        return self._shrink(needed, f"{words}; other processes took {_mib(taken)} more")

    def _taken(self, reading: MemoryReading) -> int | None:
        """What others have taken since the budget was chosen; None where that cannot be told."""
        then = self._chosen_at
        if then is None or then.source != reading.source or then.ceiling_bytes != reading.ceiling_bytes:
            return None
        before, now = then.others_bytes, reading.others_bytes
        return None if before is None or now is None else now - before

    def _calm(self) -> Change | None:
        """No pressure: after a while of it, one step up."""
        if self._halvings == 0 or self._cliffs.in_a_row:
            return None
        if self._calm_since_s is None:
            self._calm_since_s = self._now_s
        if self._now_s - self._calm_since_s < self._hold_s:
            return None
        held_s = self._now_s - self._calm_since_s
        self._calm_since_s = self._grown_at_s = self._now_s
        return self._change(self._halvings - 1, f"no pressure for {held_s:.0f} s")

    def _shrink(self, halvings: int, reason: str, most: int | None = None) -> Change | None:
        self._calm_since_s = None
        halvings = min(halvings, self._policy.most_halvings if most is None else most)
        if halvings <= self._halvings:
            return None
        if self._grown_at_s is not None:
            relapsed = self._now_s - self._grown_at_s < self._policy.relapse_s
            self._hold_s = min(2 * self._hold_s, self._policy.most_hold_s) if relapsed else self._policy.hold_s
            self._grown_at_s = None
        return self._change(halvings, reason)

    def _change(self, halvings: int, reason: str) -> Change:
        before = self.scale
        self._halvings = halvings
        self._changes.append(Change(at_s=self._now_s, from_scale=before, to_scale=self.scale, reason=reason))
        return self._changes[-1]


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.0f} MiB"
