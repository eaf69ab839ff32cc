"""Gaussian process over the times of all arms.

It models the logarithm of the seconds of a batch (Rasmussen and Williams, Gaussian Processes for Machine Learning,
2006, equations 2.23 and 2.24). The mean is a cost model: a launch, plus something per padded token and per score of
attention. Departures from it are the sum of a factor for each precision, each number of batches in flight and each
mode; a smooth curve over the sizes, common to all modes, and another of each mode; a rougher one over the padded tokens
of a batch, whatever their shape (what fills a cache or saturates a device is their number); a cliff at one size, common
to all modes, and one at a single arm. Their sizes below are prior beliefs, not measurements.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from embedmill.tune.search.arms import Arms
from embedmill.tune.search.least_squares import Floats, nonnegative_fit
from embedmill.tune.search.space import Mode

_LEVEL, _PRECISION, _IN_FLIGHT, _OWN_FACTOR = 1.0, 0.5, 0.4, 0.08
# Two curves and two cliffs: common to all modes, and of each mode.
_CURVE, _OWN_CURVE, _OCTAVES = 0.1, 0.1, 2.0
_CLIFF, _OWN_CLIFF = 0.05, 0.03
_TOKENS_CURVE, _TOKENS_OCTAVES = 0.15, 1.0
# Noise of one run, as if it had been measured in so many pairs of runs.
_NOISE, _NOISE_PAIRS = 0.08, 4
_ROUNDS = 4


class Surrogate:
    """Posterior of the times of n arms."""

    def __init__(self, arms: Arms) -> None:
        self._terms, self._mode = arms.terms, arms.mode
        distance = np.square(arms.place[:, None, :] - arms.place[None, :, :]).sum(axis=2)
        smooth, same_size = np.exp(-distance / (2 * _OCTAVES**2)), distance == 0
        same_mode = arms.mode[:, None] == arms.mode[None, :]
        tokens = np.square(arms.place.sum(axis=1)[:, None] - arms.place.sum(axis=1)[None, :])
        self._kernel = (
            _LEVEL**2
            + _alike(arms, lambda mode: mode.precision, _PRECISION)
            + _alike(arms, lambda mode: mode.in_flight, _IN_FLIGHT)
            + _OWN_FACTOR**2 * same_mode
            + (_CURVE**2 + _OWN_CURVE**2 * same_mode) * smooth
            + _TOKENS_CURVE**2 * np.exp(-tokens / (2 * _TOKENS_OCTAVES**2))
            + (_CLIFF**2 + _OWN_CLIFF**2 * same_mode) * same_size
        )
        # Logarithms of seconds per batch, run by run.
        self._logs: dict[int, list[float]] = {}
        self._warm: set[int] = set()
        self._posterior: tuple[Floats, Floats] | None = None

    def observe(self, arm: int, seconds: float) -> None:
        """Add a run's seconds per batch.

        The first run finds cold caches and shapes not compiled yet: it counts until the next one.
        """
        self._posterior = None
        if len(self._logs.get(arm, [])) == 1 and arm not in self._warm:
            self._logs[arm] = []
            self._warm.add(arm)
        self._logs.setdefault(arm, []).append(float(np.log(max(seconds, 1e-12))))

    @property
    def noise(self) -> float:
        """Standard deviation of one run's logarithm, pooled over arms."""
        squares = sum(float(np.var(logs)) * len(logs) for logs in self._logs.values())
        freedom = sum(len(logs) - 1 for logs in self._logs.values())
        return float(np.sqrt((squares + _NOISE_PAIRS * _NOISE**2) / (freedom + _NOISE_PAIRS)))

    def posterior(self) -> tuple[Floats, Floats]:
        """Return mean and deviation of log seconds per batch.

        They are float64 [n] each. At least one arm must have been observed.
        """
        if self._posterior is None:
            self._posterior = self._condition()
        return self._posterior

    def _condition(self) -> tuple[Floats, Floats]:
        expected = np.log(self._terms @ self._fit())
        seen = np.array(sorted(self._logs))
        values = np.array([np.mean(self._logs[arm]) for arm in seen]) - expected[seen]
        errors = np.array([self.noise**2 / len(self._logs[arm]) for arm in seen])
        # All modes may be slower or faster than the fit by the same factor.
        level = float(values.mean())
        values, expected = values - level, expected + level
        across = self._kernel[:, seen]
        among = self._kernel[np.ix_(seen, seen)] + np.diag(errors)
        solved = np.linalg.solve(among, np.column_stack([values, across.T]))
        variance = self._kernel.diagonal() - np.einsum("ij,ji->i", across, solved[:, 1:])
        return expected + across @ solved[:, 0], np.sqrt(np.maximum(variance, 1e-12))

    def _fit(self) -> Floats:
        """Return the cost model's coefficients, float64 [4]."""
        # One fit over all modes and a factor for each, by turns.
        arms = np.array([arm for arm, logs in self._logs.items() for _ in logs])
        logs = np.array([log for each in self._logs.values() for log in each])
        terms, modes = self._terms[arms], self._mode[arms]
        factor = np.zeros(self._mode.max() + 1)
        for _ in range(_ROUNDS):
            coefficients = nonnegative_fit(terms, np.exp(logs - factor[modes]))
            departures = logs - np.log(terms @ coefficients)
            for mode in np.unique(modes):
                factor[mode] = float(np.mean(departures[modes == mode]))
        return coefficients


def _alike(arms: Arms, trait: Callable[[Mode], object], deviation: float) -> Floats:
    """Return the covariance of arms with a common trait."""
    traits = [trait(mode) for mode in arms.space.modes]
    number = np.array([traits.index(one) for one in traits])[arms.mode]
    covariance: Floats = deviation**2 * (number[:, None] == number[None, :])
    return covariance
