"""How much memory an arm may need at the most, from what others needed.

Two bounds, of which the lower one holds.

- Growth: what is needed is a constant plus something for every lane, token and score of attention, none of
  them negative. Then g times the demand needs at most g times the memory, also where an allocator rounds up to
  powers of two or to steps of any size, if g is rounded up to a power of two as well: what g times a full step
  needs is full steps again. This wants no fit and no second point; g is at most `MOST_GROWTH`.
- Fit: those coefficients by least squares, or what a smaller arm needed if that is more, plus a margin: the largest
  of twice the worst residual, twice the widest gap between two peaks that were seen (the next step of an allocator
  whose steps double), and a share of the peak.
  It is believed once four sizes over a factor of four needed visibly different memory (an allocator still inside its
  first chunk shows nothing), unless many sizes needed the same, and for a factor `MOST_FITTED_GROWTH` from an arm
  that ran.

A second run may need more than the first: both bounds rest on arms that ran twice only, and what held for an arm
before its first run holds for its second one too, whatever the first one needed.
"""

from __future__ import annotations

import numpy as np

from embedmill.tune.search.arms import Arms
from embedmill.tune.search.least_squares import Bools, Floats, Ints, nonnegative_fit

MOST_GROWTH = 4.0
MOST_FITTED_GROWTH = 2.0
_MARGIN = 0.05
_FIT_POINTS = 4
_FIT_SPAN = 4.0
_FIT_RISE = 1.15
# Peaks closer than this are one, and so many of them there are at least, for each number of tokens, where none is
# rounded up.
_ALIKE, _DISTINCT = 0.03, 0.5
# The allocator may round to no less than this.
_SLACK = 1.0 + 1e-9


class Memory:
    """Peaks and refusals of n arms. `ceiling` in bytes; infinite where the device does not tell its memory."""

    def __init__(self, arms: Arms, ceiling_bytes: float) -> None:
        self._arms = arms
        self.ceiling = ceiling_bytes
        self._proven_limit = np.inf
        self._peak = np.zeros(len(arms))
        self._clean = np.zeros(len(arms), bool)
        self.runs = np.zeros(len(arms), np.int64)
        self._refused: list[int] = []
        self._bounds: Floats | None = None
        self._largest: dict[object, float] = {}
        # How much more each arm demands than each other of its precision, 1 at least: float64 [n, n].
        growth = np.maximum((arms.demand[:, None, :] / arms.demand[None, :, :]).max(axis=2), 1.0)
        self._all_growth: Floats = np.where(arms.group[:, None] == arms.group[None, :], growth, np.inf)

    def observe(self, arm: int, peak_bytes: int | None) -> None:
        """A run that went well."""
        self._bounds = None
        self.runs[arm] += 1
        session, tokens = self._arms.knobs[arm].session, self._arms.demand[arm, 1]
        largest = self._largest.get(session, 0.0)
        self._largest[session] = max(largest, tokens)
        if peak_bytes is None:
            return
        # A session keeps what its largest batches needed; what it shows after that is not this arm's need.
        clean = tokens >= largest
        if clean or not self._clean[arm]:
            known = self._peak[arm] if clean == self._clean[arm] else 0.0
            self._peak[arm], self._clean[arm] = max(known, peak_bytes), clean

    def refuse(self, arm: int) -> None:
        """A run that memory did not suffice for: nothing as large is tried, nor anything above what has been held."""
        bound = self.bounds()[arm]
        held = self._peak[(self.runs > 0) & ~self.refused()].max(initial=0.0)
        self._proven_limit = min(self._proven_limit, held if held > 0 else bound / 2)
        self._refused.append(arm)
        self._bounds = None

    def refused(self) -> Bools:
        """Arms that were refused, or are in any way as large as one that was and have not run: bool [n]."""
        gone = np.zeros(len(self.runs), bool)
        for arm in self._refused:
            larger = (self._arms.demand[:, 1:] >= self._arms.demand[arm, 1:]).any(axis=1)
            gone |= larger & (self._arms.group == self._arms.group[arm]) & (self.runs == 0)
            gone[arm] = True
        return gone

    @property
    def limit(self) -> float:
        """The ceiling, or where a run was refused below it, what has been held at the most, in bytes."""
        return min(self.ceiling, self._proven_limit)

    def allowed(self) -> Bools:
        """Arms that may run (again): bool [n]."""
        limit = np.where(self.runs >= 2, self.ceiling, self.limit)
        bounds = self.bounds()
        return (bounds <= limit) & np.isfinite(bounds) & ~self.refused()

    def dominated(self) -> Bools:
        """Arms that demand no more in any way than one that ran twice: bool [n]."""
        small: Bools = self._growth(np.flatnonzero(self.runs >= 2)).min(axis=1, initial=np.inf) <= _SLACK
        return small

    def least(self) -> Floats:
        """The least that each arm needs, float64 [n] bytes: what an arm needed that demands no more in any way."""
        proven = np.flatnonzero((self.runs >= 2) & self._clean)
        smaller = (self._all_growth[proven] <= _SLACK).T
        least: Floats = np.where(smaller, self._peak[proven], 0.0).max(axis=1, initial=0.0)
        return least

    def stones(self, steps: Bools) -> Ints:
        """For each arm that may not run yet the one of `steps` (bool [n]) that brings it closest: int64 [n].

        -1 where it may run, was refused, needs more than the ceiling for certain, or comes no closer by any.
        """
        growth = np.where(steps & (self.runs < 2), self._all_growth, np.inf)
        closest = growth.argmin(axis=1)
        proven = self._growth(np.flatnonzero(self.runs >= 2)).min(axis=1, initial=np.inf)
        closer = growth.min(axis=1) * _SLACK < proven
        out = self.allowed() | self.refused() | (self.least() > self.limit)
        return np.where(closer & np.isfinite(growth.min(axis=1)) & ~out, closest, -1)

    def bounds(self) -> Floats:
        """The most that each arm may need, float64 [n] bytes; infinite where nothing is known of its size."""
        if self._bounds is None:
            self._bounds = self._bound()
        return self._bounds

    def _bound(self) -> Floats:
        bound = np.full(len(self.runs), np.inf)
        floors = np.array([mode.floor_bytes for mode in self._arms.space.modes], np.float64)
        bound[self._arms.first] = floors
        told = self._peak > 0
        proven = np.flatnonzero((self.runs >= 2) & ~self.refused())
        if len(proven):
            growth = self._growth(proven)
            rounded = 2.0 ** np.ceil(np.log2(growth / _SLACK))
            base = np.where(told[proven], self._peak[proven], self._unmeasured(proven))
            grown = np.where(growth <= MOST_GROWTH * _SLACK, rounded * base * (1 + _MARGIN * (growth > _SLACK)), np.inf)
            bound = np.minimum(bound, grown.min(axis=1))
            bound = np.minimum(bound, self._fitted(growth.min(axis=1)))
        once, often = told & (self.runs == 1), told & (self.runs >= 2)
        bound[once] = np.maximum(bound[once], self._peak[once])
        bound[often & self._clean] = self._peak[often & self._clean]
        bound[often] = np.minimum(bound[often], self._peak[often])
        return bound

    def _growth(self, proven: Ints) -> Floats:
        """How much more each arm demands than each proven one of its precision, 1 at least: float64 [n, proven]."""
        return self._all_growth[:, proven]

    def _unmeasured(self, proven: Ints) -> Floats:
        """What arms can have needed where the device does not tell: the floor times their growth from there."""
        first = self._arms.first[self._arms.mode[proven]]
        floors = np.array([self._arms.space.modes[mode].floor_bytes for mode in self._arms.mode[proven]], np.float64)
        growth = np.maximum((self._arms.demand[proven] / self._arms.demand[first]).max(axis=1), 1.0)
        grown: Floats = floors * 2.0 ** np.ceil(np.log2(growth / _SLACK))
        return grown

    def _fitted(self, growth: Floats) -> Floats:
        """The fit's bound for each arm, float64 [n]; infinite where it is not believed."""
        bound = np.full(len(self.runs), np.inf)
        for group in np.unique(self._arms.group):
            members = self._arms.group == group
            points = members & (self.runs >= 2) & self._clean & (self._peak > 0)
            tokens, peaks = self._arms.demand[points, 1], self._peak[points]
            spread = len(np.unique(tokens)) >= _FIT_POINTS and tokens.max() >= _FIT_SPAN * tokens.min()
            if not spread or peaks.max() < _FIT_RISE * peaks.min() or _in_steps(tokens, peaks):
                continue
            columns = np.column_stack([np.ones(len(self.runs)), self._arms.demand])
            fit = columns @ nonnegative_fit(columns[points], peaks)
            residual = np.abs(fit[points] - peaks).max()
            margin = max(2 * residual, 2 * np.diff(np.sort(peaks)).max(), _MARGIN * peaks.max())
            near = members & (growth <= MOST_FITTED_GROWTH * _SLACK)
            bound[near] = np.maximum(fit, self.least())[near] + margin
        return bound


def _in_steps(tokens: Floats, peaks: Floats) -> bool:
    """Whether an allocator seems to round up in steps that hold many sizes: a line through them says nothing of where
    the next one begins."""
    kinds = [len(np.unique(np.round(np.log(values) / _ALIKE))) for values in (peaks, tokens)]
    return kinds[0] < max(3, _DISTINCT * kinds[1])
