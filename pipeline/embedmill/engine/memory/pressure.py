"""Scale a batch budget under memory pressure. Pure.

No clock, device or thread: the caller passes observations with a time.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

from msgspec import Struct

from embedmill.base.config import MIB
from embedmill.base.results import Change
from embedmill.engine.machine.memory.reading import MemoryReading
from embedmill.engine.memory.cliffs import Cliffs

# Share of the missing memory that other processes must have taken to count as the cause.
_CAUSE_SHARE = 0.5
# Failing batches may shrink to one row; no batch has more than 2 ** 16.
_MAX_FAILED_HALVINGS = 16


class Policy(Struct, frozen=True, kw_only=True):
    """Thresholds and periods for shrinking and growing a batch budget.

    reserve_bytes   bytes to keep free at the full budget (`reading.reserve`); half the budget needs half. 0: readings
                    never shrink the budget
    ease            growing to a budget needs this factor times the budget's reserve free
    most_halvings   the least budget is the full one halved so often
    hold_s          seconds without pressure before each step up; doubled, up to `most_hold_s`, when pressure returns
                    within `relapse_s` seconds of a step
    cliff           a batch that takes this factor times the median of the same shape is slow: memory over the budget is
                    paged without an error, at about half the speed. Infinity where time does not indicate memory
                    (the CPU, which other processes slow down too)
    cliff_batches   this many consecutive slow batches are pressure
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
    """Batch scale from readings and batches; not thread-safe.

    `chosen_at` is the reading by which the budget was chosen: memory that this run itself has taken since is then no
    pressure. Without that reading, or where own use is unknown, all missing memory counts.
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
        """Budget share of the next batch, in (0, 1]."""
        # Powers of two keep the number of fixed shapes small.
        return 0.5**self._halvings

    @property
    def changes(self) -> tuple[Change, ...]:
        """All changes so far, in order."""
        return tuple(self._changes)

    def reading(self, reading: MemoryReading, at_s: float) -> Change | None:
        """Record a reading; return the resulting change."""
        self._now_s = max(self._now_s, at_s)
        free, reserve = reading.free_bytes, self._policy.reserve_bytes
        if free is None:
            # An unknown reading after known ones restarts the wait for growth: the last safe size stays.
            self._calm_since_s = None if self._knows_memory else self._calm_since_s
            return None
        self._knows_memory = True
        needed = self._halvings
        while needed < self._policy.most_halvings and free << needed < reserve:
            needed += 1
        if needed > self._halvings:
            return self._low_memory(reading, free, needed)
        enough = self._halvings > 0 and free * 2.0 ** (self._halvings - 1) >= self._policy.ease * reserve
        if enough:
            return self._grow_if_calm()
        self._calm_since_s = None
        return None

    def batch(self, shape: Hashable, seconds: float, at_s: float) -> Change | None:
        """Record a finished batch; return the resulting change.

        `seconds` are compared within the same `shape`; where shapes hardly recur, pass seconds per padded token and a
        class of shapes.
        """
        self._now_s = max(self._now_s, at_s)
        self._cliffs.add(shape, seconds)
        if self._cliffs.in_a_row < self._policy.cliff_batches:
            return self._grow_if_calm() if not self._knows_memory else None
        self._cliffs.in_a_row = 0
        reason = f"{self._policy.cliff_batches} batches in a row took {self._policy.cliff:g} times their median or more"
        return self._shrink(self._halvings + 1, f"{reason}: the driver may be paging")

    def failed(self, scale: float, why: str, at_s: float) -> Change | None:
        """Record an out-of-memory failure; return the resulting change.

        To half of `scale`, even below the least budget; None where the scale is that small already.
        """
        self._now_s = max(self._now_s, at_s)
        return self._shrink(1 + round(-math.log2(scale)), why, most=_MAX_FAILED_HALVINGS)

    def _low_memory(self, reading: MemoryReading, free: int, needed: int) -> Change | None:
        reserve = self._policy.reserve_bytes >> self._halvings
        taken = self._taken_by_others(reading)
        reason = f"{_mib(free)} free of the {_mib(reserve)} to be kept ({reading.source})"
        if taken is None:
            return self._shrink(needed, reason)
        if taken < _CAUSE_SHARE * (reserve - free):
            self._calm_since_s = None
            return None
        return self._shrink(needed, f"{reason}; other processes took {_mib(taken)} more")

    def _taken_by_others(self, reading: MemoryReading) -> int | None:
        """Return the growth of other processes since `chosen_at`; None: unknown."""
        first = self._chosen_at
        # Figures of another source or limit do not compare.
        if first is None or first.source != reading.source or first.ceiling_bytes != reading.ceiling_bytes:
            return None
        before, now = first.others_bytes, reading.others_bytes
        return None if before is None or now is None else now - before

    def _grow_if_calm(self) -> Change | None:
        """Grow one step after `hold_s` seconds without pressure."""
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
    return f"{size / MIB:,.0f} MiB"
