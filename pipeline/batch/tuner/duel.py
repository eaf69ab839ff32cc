"""Whether a pick beats the choice that a run would make untuned: runs of both by turns, told apart pair by pair.

A machine may be busy now and idle then: of what ran at different times, that says who was lucky. Two runs one after the
other meet the same machine.
"""

from __future__ import annotations

import numpy as np

from pipeline.batch.tuner.checks import LEAST_RUNS
from pipeline.batch.tuner.fit import Bools, Ints

# Standard errors of the mean pair beyond which it is no chance: after the first pair, the second, and those after.
_BEYOND = (2.0, 1.5, 1.0)
_MOST_PAIRS = 16
# The noise of a pair that is known from other trials counts like so many pairs.
_NOISE_PAIRS = 2


class Duel:
    """Turns of two arms, `pick` and `default`, of so many runs each.

    By how much the pick looks faster from all trials before (`ahead`, a logarithm) counts like one pair.
    """

    def __init__(self, pick: int, default: int, *, runs: int, ahead: float) -> None:
        self.pick, self.default = pick, default
        self._runs, self._ahead = runs, ahead
        self._logs: list[float] = []

    @property
    def turn(self) -> int:
        """The arm that runs next: pick, default, default, pick, and so on, so that a session serves two turns."""
        return self.pick if len(self._logs) // self._runs % 4 in (0, 3) else self.default

    def observe(self, seconds: float) -> None:
        """Seconds per unit of work of a run of the arm whose turn it was."""
        self._logs.append(float(np.log(seconds)))

    def won(self, noise: float) -> bool:
        """Whether the pick is faster, by the pairs and by what it was ahead; `noise` is one run's, from all trials."""
        return self._lead(noise) > 0.0

    def decided(self, noise: float) -> bool:
        """Whether more pairs would hardly change that."""
        return abs(self._lead(noise)) > 1.0 or len(self._pairs()) >= _MOST_PAIRS

    @property
    def met(self) -> bool:
        """Whether each had a turn."""
        return bool(self._pairs())

    def _pairs(self) -> list[float]:
        """How much faster the pick was in each pair of turns, as a logarithm."""
        whole = len(self._logs) // (2 * self._runs) * 2
        turns = np.reshape(self._logs[: whole * self._runs], (whole, self._runs)).mean(axis=1)
        return [float(turns[i + 1] - turns[i]) * (1 if i % 4 == 0 else -1) for i in range(0, whole, 2)]

    def _lead(self, noise: float) -> float:
        """By how many times what may be chance the pick is faster; 0.0 before the first pair."""
        if not self.met:
            return 0.0
        pairs = np.array([self._ahead, *self._pairs()])
        squares = float(np.square(pairs - pairs.mean()).sum()) + _NOISE_PAIRS * 2 * noise**2 / self._runs
        error = np.sqrt(squares / (len(pairs) - 1 + _NOISE_PAIRS) / len(pairs))
        return float(pairs.mean() / error) / _BEYOND[min(len(pairs) - 1, len(_BEYOND)) - 1]


def next_towards(default: int | None, runs: Ints, allowed: Bools, affordable: Bools, stones: Ints) -> int | None:
    """The default, or the stone that brings it closer, where it has not run yet and may; all of arms [n]."""
    if default is None or runs[default] >= LEAST_RUNS:
        return None
    if allowed[default]:
        return default if affordable[default] else None
    return int(stones[default]) if stones[default] >= 0 else None
