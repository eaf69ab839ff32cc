"""Policy that scales the batch budget under memory pressure. Pure."""

from __future__ import annotations

import math
from collections.abc import Hashable

from msgspec import Struct

from embedmill.base.config import MIB
from embedmill.base.results import Change
from embedmill.engine.machine.memory.probe import MemoryReading
from embedmill.engine.memory.slow_batches import SlowBatches

# Other processes cause a shortage when they took at least this part of the missing bytes.
_CAUSE = 0.5
# Failed batches may shrink to one row; no batch has more than 2 ** 16.
_MOST_FAILED = 16


class Policy(Struct, frozen=True, kw_only=True):
    """Thresholds for shrinking and growing the batch budget.

    reserve_bytes   memory to keep free at the full budget (`probe.reserve`), halved with the budget; 0 ignores memory
    ease            growing to a budget needs this times the reserve of that budget
    most_halvings   the smallest budget is the full one halved so often
    hold_s          seconds without pressure before each step up; doubled, up to `most_hold_s`, when pressure returns
                    within `relapse_s` seconds of a step
    slow_factor     a batch is slow that takes this times the median of its shape: memory over the budget is paged
                    without an error, at about half the speed. Infinity on the CPU, which other processes slow down too
    slow_batches    this many slow batches in a row are pressure
    """

    reserve_bytes: int
    ease: float = 1.5
    most_halvings: int = 6
    hold_s: float = 10.0
    most_hold_s: float = 300.0
    relapse_s: float = 60.0
    slow_factor: float = 2.0
    slow_batches: int = 3


class Pressure:
    """Scale of the batch budget, updated by observations; not thread-safe.

    `chosen_at` is the reading behind the budget. With it memory that this run itself has allocated since is no
    pressure; without it, or where a reading does not separate processes, any shortage is. The caller supplies the time.
    """

    def __init__(self, policy: Policy, chosen_at: MemoryReading | None = None) -> None:
        self._policy, self._chosen_at = policy, chosen_at
        self._slow = SlowBatches(policy.slow_factor)
        self._halvings = 0
        self._now_s = float("-inf")
        self._calm_since_s: float | None = None
        self._grown_at_s: float | None = None
        self._hold_s = policy.hold_s
        self._knows_memory = False
        self._changes: list[Change] = []

    @property
    def scale(self) -> float:
        """Return the scale of the next batch, in (0, 1]."""
        # Powers of two, so that fixed shapes stay few.
        return 0.5**self._halvings

    @property
    def changes(self) -> tuple[Change, ...]:
        """Return all changes so far, in order."""
        return tuple(self._changes)

    def observe_memory(self, reading: MemoryReading, at_s: float) -> Change | None:
        """Record a reading; return the resulting change."""
        self._now_s = max(self._now_s, at_s)
        free, reserve = reading.free_bytes, self._policy.reserve_bytes
        if free is None:
            # Where memory was known before, the last safe size stays: no step up on an unknown reading.
            self._calm_since_s = None if self._knows_memory else self._calm_since_s
            return None
        self._knows_memory = True
        needed = self._halvings
        while needed < self._policy.most_halvings and free << needed < reserve:
            needed += 1
        if needed > self._halvings:
            return self._short(reading, free, needed)
        if self._halvings > 0 and free * 2.0 ** (self._halvings - 1) >= self._policy.ease * reserve:
            return self._calm()
        self._calm_since_s = None
        return None

    def observe_batch(self, shape: Hashable, seconds: float, at_s: float) -> Change | None:
        """Record a finished batch; return the resulting change.

        Durations are compared per `shape`; where shapes rarely recur, pass seconds per padded token and a class of
        shapes.
        """
        self._now_s = max(self._now_s, at_s)
        self._slow.add(shape, seconds)
        if self._slow.in_a_row < self._policy.slow_batches:
            return self._calm() if not self._knows_memory else None
        self._slow.in_a_row = 0
        count, factor = self._policy.slow_batches, self._policy.slow_factor
        reason = f"{count} batches in a row took {factor:g} times their median or more"
        return self._shrink(self._halvings + 1, f"{reason}: the driver may be paging")

    def observe_failure(self, scale: float, reason: str, at_s: float) -> Change | None:
        """Record an out-of-memory batch; return the resulting change.

        The scale falls to half of the failed one, below the smallest budget too, unless it is that small already.
        """
        self._now_s = max(self._now_s, at_s)
        return self._shrink(1 + round(-math.log2(scale)), reason, most=_MOST_FAILED)

    def _short(self, reading: MemoryReading, free: int, needed: int) -> Change | None:
        reserved = self._policy.reserve_bytes >> self._halvings
        taken = self._taken(reading)
        reason = f"{_mib(free)} free of the {_mib(reserved)} to be kept free ({reading.source})"
        if taken is None:
            return self._shrink(needed, reason)
        if taken < _CAUSE * (reserved - free):
            self._calm_since_s = None
            return None
        return self._shrink(needed, f"{reason}; other processes took {_mib(taken)} more")

    def _taken(self, reading: MemoryReading) -> int | None:
        # Bytes that other processes took since the budget was chosen; None where unknown.
        then = self._chosen_at
        if then is None or then.source != reading.source or then.ceiling_bytes != reading.ceiling_bytes:
            return None
        before, now = then.others_bytes, reading.others_bytes
        return None if before is None or now is None else now - before

    def _calm(self) -> Change | None:
        # One step up after `hold_s` seconds without pressure.
        if self._halvings == 0 or self._slow.in_a_row:
            return None
        if self._calm_since_s is None:
            self._calm_since_s = self._now_s
        held_s = self._now_s - self._calm_since_s
        if held_s < self._hold_s:
            return None
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
