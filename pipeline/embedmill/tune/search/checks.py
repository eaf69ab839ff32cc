"""What is run beside what tells the most: nothing is picked unseen, and nothing hides between two sizes."""

from __future__ import annotations

import numpy as np

from embedmill.tune.search.arms import Arms
from embedmill.tune.search.least_squares import Bools, Floats, Ints
from embedmill.tune.search.objective import Choice

# Every size runs so often before anything is said of it or grown from it; the runs after those leave out the largest
# batches, which are there for memory's sake.
LEAST_RUNS = 2
_FAIR_RUNS = LEAST_RUNS + 1
# Nothing that takes more of the time than this is picked unproven while there is time to run it.
SMALL = 0.03
# That run is begun when no more time is left than so many times what it takes.
_RESERVE = 2.5
# Sizes beside the best are tried in this part of the time, those that take less than such a part each.
_BREADTH, _QUICK = 0.4, 1 / 20
# From this part of the time on, what looks best is run until it ran so often.
_VERIFY, _VERIFIED_RUNS = 0.65, 7


class Checks:
    """Trials that the choice which looks best still needs. `time_s` is for all trials."""

    def __init__(self, arms: Arms, time_s: float) -> None:
        self._arms = arms
        self._time_s = time_s
        self._near = arms.neighbours()

    def next(self, best: Choice, runs: Ints, spent_s: float, runnable: Bools, predicted: Floats) -> int | None:
        """The arm to run, or None. `runs`, `runnable` and `predicted` (seconds of the next run) are of all arms [n]."""
        found = self._unproven(best, runs, spent_s, runnable, predicted)
        if found is None and spent_s <= self._time_s * _BREADTH:
            found = self._untried(best, runs, runnable & (predicted <= self._time_s * _QUICK), predicted)
        if found is None and spent_s >= self._time_s * _VERIFY:
            found = self._unverified(best, runs, runnable)
        return found

    def _unproven(self, best: Choice, runs: Ints, spent_s: float, runnable: Bools, predicted: Floats) -> int | None:
        """The largest part of the best choice that has not been run, once the time left is short for all of those."""
        parts = zip(best.arms, best.shares, strict=True)
        within = {arm: share for arm, share in parts if runs[arm] < LEAST_RUNS and share > SMALL and runnable[arm]}
        if not within or self._time_s - spent_s > _RESERVE * float(predicted[list(within)].sum()):
            return None
        return max(within, key=lambda arm: within[arm])

    def _untried(self, best: Choice, runs: Ints, within: Bools, predicted: Floats) -> int | None:
        """A size beside those of the best choice that was not run on a fair sample yet: a cliff of a cache or a kernel
        lies between two sizes, where no curve through others shows it.

        Of any shape those are all sizes in its mode, the quickest first; of fixed shapes the next larger and smaller
        one of each sequence, those first that take the most of the time.
        """
        if self._arms.fixed:
            shares = {
                near: share for arm, share in zip(best.arms, best.shares, strict=True) for near in self._near[arm]
            }
            untried = [arm for arm in shares if within[arm] and runs[arm] < LEAST_RUNS]
            return max(untried, key=lambda arm: shares[arm], default=None)
        same = self._arms.mode == self._arms.mode[best.arms[0]]
        sizes = map(int, np.flatnonzero(same & within & (runs < _FAIR_RUNS)))
        return min(sizes, key=lambda arm: float(predicted[arm]), default=None)

    def _unverified(self, best: Choice, runs: Ints, runnable: Bools) -> int | None:
        """The best size where it ran a few times only: of many, the one that looks best is likely to have been lucky.

        A ladder has too many parts for that.
        """
        few = [arm for arm in best.arms if runnable[arm] and runs[arm] < _VERIFIED_RUNS]
        return few[0] if few and not self._arms.fixed else None
