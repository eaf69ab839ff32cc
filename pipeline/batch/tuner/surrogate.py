"""What every arm's time may be, from the times of those that ran.

A Gaussian process over the logarithm of the time per unit (Rasmussen and Williams, Gaussian Processes for Machine
Learning, 2006, equations 2.23 and 2.24). Its mean is a cost model: a launch, plus something per padded token and
per score of attention. What departs from it is thought of as the sum of a factor for each precision, each split into
streams and threads, each number of batches in flight, and each mode of them; a smooth curve over the sizes,
common to all modes, and another of each mode; a cliff at one size, common to all modes, and one at a single
arm. Their sizes below are prior beliefs, not measurements.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np

from pipeline.batch.tuner.arms import Arms
from pipeline.batch.tuner.fit import Floats, nonnegative_fit
from pipeline.batch.tuner.space import Mode

_PRECISION, _SPLIT, _IN_FLIGHT, _OWN_FACTOR = 0.5, 1.0, 0.4, 0.08
_CURVE, _OWN_CURVE, _OCTAVES = 0.15, 0.15, 2.0
_CLIFF, _OWN_CLIFF = 0.07, 0.04
# Noise of one run, as if it had been seen in so many pairs of runs.
_NOISE, _NOISE_PAIRS = 0.08, 4
_ROUNDS = 4


class Surrogate:
    """The times of n arms, and what they say about all."""

    def __init__(self, arms: Arms) -> None:
        self._terms, self._mode = arms.terms, arms.mode
        distance = np.square(arms.place[:, None, :] - arms.place[None, :, :]).sum(axis=2)
        smooth, same_size = np.exp(-distance / (2 * _OCTAVES**2)), distance == 0
        same_mode = arms.mode[:, None] == arms.mode[None, :]
        self._kernel = (
            _alike(arms, lambda mode: mode.precision, _PRECISION)
            + _alike(arms, lambda mode: (mode.streams, mode.threads), _SPLIT)
            + _alike(arms, lambda mode: mode.in_flight, _IN_FLIGHT)
            + _OWN_FACTOR**2 * same_mode
            + (_CURVE**2 + _OWN_CURVE**2 * same_mode) * smooth
            + (_CLIFF**2 + _OWN_CLIFF**2 * same_mode) * same_size
        )
        self._runs: dict[int, list[tuple[float, Floats]]] = {}
        self.coefficients: Floats = np.array([1.0, 0.0, 0.0])
        self._warm: set[int] = set()
        self._posterior: tuple[Floats, Floats] | None = None

    def observe(self, arm: int, seconds: float, batches: Floats, streams: int) -> None:
        """A run's seconds and the terms of its batches, float64 [batches, 3].

        The first run finds cold caches and shapes not compiled yet: it counts until the next one.
        """
        self._posterior = None
        if len(self._runs.get(arm, [])) == 1 and arm not in self._warm:
            self._runs[arm] = []
            self._warm.add(arm)
        # Streams that end early are this run's misfortune: in a job the next batches follow.
        weights = batches @ self.coefficients
        idle = makespan(weights, streams) * streams / weights.sum()
        self._runs.setdefault(arm, []).append((float(np.log(max(seconds, 1e-12))), batches.sum(axis=0) * idle))

    def average_batches(self, arm: int, batches: Floats) -> float:
        """How many average batches of an arm take as long as some, whose terms are float64 [batches, 3]."""
        average = self._terms[arm] / self._terms[arm, 1]
        return float((batches @ self.coefficients).sum() / (average @ self.coefficients))

    @property
    def noise(self) -> float:
        """The standard deviation of one run's logarithm, pooled over the arms that ran more than once."""
        repeated = [self._departures(runs) for runs in self._runs.values() if len(runs) > 1]
        squares = sum(float(np.var(logs)) * len(logs) for logs in repeated)
        freedom = sum(len(logs) - 1 for logs in repeated)
        return float(np.sqrt((squares + _NOISE_PAIRS * _NOISE**2) / (freedom + _NOISE_PAIRS)))

    def posterior(self) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the logarithm of every arm's seconds per unit: float64 [n] each.

        At least one arm must have been observed.
        """
        if self._posterior is None:
            self._posterior = self._condition()
        return self._posterior

    def _condition(self) -> tuple[Floats, Floats]:
        expected = np.log(self._terms @ self._fit())
        seen = np.array(sorted(self._runs))
        counts = np.array([len(self._runs[arm]) for arm in seen])
        values = np.array([self._departures(self._runs[arm]).mean() for arm in seen])
        # All modes may be slower or faster than the fit by the same factor.
        level = float(values.mean())
        values, expected = values - level, expected + level
        across = self._kernel[:, seen]
        within = self._kernel[np.ix_(seen, seen)] + np.diag(self.noise**2 / counts)
        solved = np.linalg.solve(within, np.column_stack([values, across.T]))
        variance = self._kernel.diagonal() - np.einsum("ij,ji->i", across, solved[:, 1:])
        return expected + across @ solved[:, 0], np.sqrt(np.maximum(variance, 1e-12))

    def _departures(self, runs: list[tuple[float, Floats]]) -> Floats:
        """Logarithms of what runs took in relation to what the cost model says of their very batches, float64 [runs].

        So a sample that is not like all texts does no harm (a ratio estimate: Cochran, Sampling Techniques, 1977,
        chapter 6).
        """
        logs = np.array([log for log, _ in runs])
        terms = np.array([terms for _, terms in runs])
        departures: Floats = logs - np.log(terms @ self.coefficients)
        return departures

    def _fit(self) -> Floats:
        """The cost model's coefficients, float64 [3]: one fit over all modes and a factor for each, by turns."""
        runs = [run for each in self._runs.values() for run in each]
        modes = np.array([self._mode[arm] for arm, each in self._runs.items() for _ in each])
        logs, terms = np.array([log for log, _ in runs]), np.array([terms for _, terms in runs])
        factor = np.zeros(self._mode.max() + 1)
        for _ in range(_ROUNDS):
            self.coefficients = nonnegative_fit(terms, np.exp(logs - factor[modes]))
            departures = logs - np.log(terms @ self.coefficients)
            for mode in np.unique(modes):
                factor[mode] = float(np.mean(departures[modes == mode]))
        return self.coefficients


def _alike(arms: Arms, trait: Callable[[Mode], object], deviation: float) -> Floats:
    """Covariance of arms whose modes share a trait: float64 [n, n]."""
    traits = [trait(mode) for mode in arms.space.modes]
    number = np.array([traits.index(one) for one in traits])[arms.mode]
    covariance: Floats = deviation**2 * (number[:, None] == number[None, :])
    return covariance


def makespan(seconds: Floats, streams: int) -> float:
    """When the last stream ends if each takes the next batch as soon as it is free."""
    free = [0.0] * streams
    for one in seconds:
        heapq.heapreplace(free, free[0] + float(one))
    return max(free)
