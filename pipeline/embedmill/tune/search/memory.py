"""Upper bounds for the memory of untried shapes.

What is needed is a constant plus something for every lane, token and score of attention, none of them negative. Then g
times the demand needs at most g times the memory, also where an allocator rounds up to powers of two or to steps of any
size, if g is rounded up to a power of two as well: what g times a full step needs is full steps again.

A second run may need more than the first: bounds rest on arms that ran twice only, and what held for an arm before its
first run holds for its second one too, whatever the first one needed.
"""

from __future__ import annotations

import numpy as np

from embedmill.tune.search.arms import Arms
from embedmill.tune.search.least_squares import Bools, Floats, Ints

# Every shape runs so often before anything is grown from it, by this factor at most.
LEAST_RUNS, MOST_GROWTH = 2, 4.0
_MARGIN = 1.05
# Demands are compared with this tolerance of rounding.
_SLACK = 1.0 + 1e-9


class Memory:
    """Peaks and refusals of arms; `ceiling` in bytes."""

    def __init__(self, arms: Arms, ceiling_bytes: float) -> None:
        self._arms, self.ceiling = arms, ceiling_bytes
        self.runs = np.zeros(len(arms), np.int64)
        self._proven_limit = np.inf
        self._peak = np.zeros(len(arms))
        self._refused: list[int] = []
        self._bounds: Floats | None = None
        # How much more each arm demands than each other of its precision, 1 at least: float64 [n, n].
        growth = np.maximum((arms.demand[:, None, :] / arms.demand[None, :, :]).max(axis=2), 1.0)
        self._growth: Floats = np.where(arms.group[:, None] == arms.group[None, :], growth, np.inf)

    def observe(self, arm: int, peak_bytes: int | None) -> None:
        """Record a run; an unknown peak counts as the bound."""
        self._peak[arm] = max(self._peak[arm], self.bounds()[arm] if peak_bytes is None else peak_bytes)
        self.runs[arm] += 1
        self._bounds = None

    def refuse(self, arm: int) -> None:
        """Record a run out of memory.

        Nothing as large is tried again, nor anything above what has been held.
        """
        held = self._peak[(self.runs > 0) & ~self.refused()].max(initial=0.0)
        self._proven_limit = min(self._proven_limit, held if held > 0 else self.bounds()[arm] / 2)
        self._refused.append(arm)
        self._bounds = None

    def refused(self) -> Bools:
        """Return refused arms, and untried ones as large: bool [n]."""
        gone = np.zeros(len(self.runs), bool)
        for arm in self._refused:
            larger = (self._arms.demand[:, 1:] >= self._arms.demand[arm, 1:]).any(axis=1)
            gone |= larger & (self._arms.group == self._arms.group[arm]) & (self.runs == 0)
            gone[arm] = True
        return gone

    @property
    def limit(self) -> float:
        """Bytes for untried arms: the ceiling until a refusal."""
        return min(self.ceiling, self._proven_limit)

    def allowed(self) -> Bools:
        """Return arms that may run: bool [n]."""
        limit = np.where(self.runs >= LEAST_RUNS, self.ceiling, self.limit)
        bounds = self.bounds()
        return (bounds <= limit) & np.isfinite(bounds) & ~self.refused()

    def dominated(self) -> Bools:
        """Return arms that demand no more than a proven one."""
        return self._from(self.runs >= LEAST_RUNS) <= _SLACK

    def least(self) -> Floats:
        """Return the least bytes of each arm, by smaller ones."""
        proven = np.flatnonzero(self.runs >= LEAST_RUNS)
        smaller = (self._growth[proven] <= _SLACK).T
        least: Floats = np.where(smaller, self._peak[proven], 0.0).max(axis=1, initial=0.0)
        return least

    def stones(self, steps: Bools) -> Ints:
        """Return the runnable arm closest to each forbidden one.

        `steps` bool [n] are those that may run. The answer, int64 [n], is -1 for arms that may run, were refused, need
        more than the ceiling for certain, or are brought no closer by any.
        """
        growth = np.where(steps & (self.runs < LEAST_RUNS), self._growth, np.inf)
        closest, least = growth.argmin(axis=1), growth.min(axis=1)
        closer = np.isfinite(least) & (least * _SLACK < self._from(self.runs >= LEAST_RUNS))
        out = self.allowed() | self.refused() | (self.least() > self.limit)
        return np.where(closer & ~out, closest, -1)

    def bounds(self) -> Floats:
        """Return the most bytes of each arm, infinite where unknown."""
        if self._bounds is None:
            self._bounds = self._bound()
        return self._bounds

    def _bound(self) -> Floats:
        bound = np.full(len(self.runs), np.inf)
        bound[self._arms.first] = [mode.floor_bytes for mode in self._arms.space.modes]
        proven = np.flatnonzero((self.runs >= LEAST_RUNS) & ~self.refused())
        growth = self._growth[:, proven]
        grown = 2.0 ** np.ceil(np.log2(growth / _SLACK)) * self._peak[proven] * np.where(growth > _SLACK, _MARGIN, 1.0)
        grown = np.where(growth <= MOST_GROWTH * _SLACK, grown, np.inf)
        bound = np.minimum(bound, grown.min(axis=1, initial=np.inf))
        bound = np.where(self.runs == 1, np.maximum(bound, self._peak), bound)
        return np.where(self.runs >= LEAST_RUNS, self._peak, bound)

    def _from(self, arms: Bools) -> Floats:
        """Return the least growth of each arm from `arms`."""
        growth: Floats = np.where(arms, self._growth, np.inf).min(axis=1)
        return growth
