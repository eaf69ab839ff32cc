"""What every arm's time may be, from the times of those that ran.

A Gaussian process over the logarithm of the time per unit (Rasmussen and Williams, Gaussian Processes for Machine
Learning, 2006, equations 2.23 and 2.24). Its mean is a cost model: a launch, plus something per padded token and
per score of attention. What departs from it is thought of as the sum of a factor for each precision, each split into
streams and threads, each number of batches in flight, and each mode of them; a smooth curve over the sizes,
common to all modes, and another of each mode; a rougher one over the padded tokens of a batch, whatever their shape
(what fills a cache or saturates a device is their number); a cliff at one size, common to all modes, and one at a
single arm. Their sizes below are prior beliefs, not measurements.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from msgspec import Struct

from embedmill.tune.search.arms import Arms, makespan
from embedmill.tune.search.least_squares import Floats, Ints, nonnegative_fit
from embedmill.tune.search.space import Mode

_PRECISION, _SPLIT, _IN_FLIGHT, _OWN_FACTOR = 0.5, 1.0, 0.4, 0.08
# Two curves and two cliffs where any shape runs, and where shapes are fixed: common to all modes, and of each mode.
_CURVES, _OCTAVES = {False: (0.15, 0.15), True: (0.1, 0.1)}, 2.0
_CLIFFS = {False: (0.07, 0.04), True: (0.05, 0.03)}
# Batches of fixed shapes with as many tokens are alike whatever their shape.
_TOKENS_CURVE, _TOKENS_OCTAVES = {False: 0.0, True: 0.15}, 1.0
# Curves and cliffs may be so many times as large; twice is one standard deviation.
_ROUGHER = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
# Noise of one run, as if it had been seen in so many pairs of runs.
_NOISE, _NOISE_PAIRS = 0.08, 4
# What a run's batches, where they are larger or smaller than the arm's on average, may mislead by, of that difference.
_MISLED, _ALIKE = 0.25, 0.1
_ROUNDS = 4


class Run(Struct, frozen=True, kw_only=True):
    """A run's logarithm of seconds, what of each term it paid for (float64 [4]), and how unlike its arm's average
    its batches were: the logarithm of their mean size over that of all."""

    log: float
    terms: Floats
    unlike: float


class Surrogate:
    """The times of n arms, and what they say about all."""

    def __init__(self, arms: Arms) -> None:
        # Streams start batches side by side; all workers together compute.
        streams = np.array([one.mode.streams for one in arms.knobs], np.float64)
        workers = streams * np.array([max(one.mode.threads, 1) for one in arms.knobs])
        self._side_by_side = 1.0 / np.column_stack([workers, streams, workers, workers])
        self._terms, self._mode = arms.terms * self._side_by_side, arms.mode
        distance = np.square(arms.place[:, None, :] - arms.place[None, :, :]).sum(axis=2)
        smooth, same_size = np.exp(-distance / (2 * _OCTAVES**2)), distance == 0
        same_mode = arms.mode[:, None] == arms.mode[None, :]
        self._factors = (
            _alike(arms, lambda mode: mode.precision, _PRECISION)
            + _alike(arms, lambda mode: (mode.streams, mode.threads), _SPLIT)
            + _alike(arms, lambda mode: mode.in_flight, _IN_FLIGHT)
            + _OWN_FACTOR**2 * same_mode
        )
        (curve, own_curve), (cliff, own_cliff) = _CURVES[arms.fixed], _CLIFFS[arms.fixed]
        tokens = np.square(arms.place.sum(axis=1)[:, None] - arms.place.sum(axis=1)[None, :])
        self._shape = (
            (curve**2 + own_curve**2 * same_mode) * smooth
            + _TOKENS_CURVE[arms.fixed] ** 2 * np.exp(-tokens / (2 * _TOKENS_OCTAVES**2))
            + (cliff**2 + own_cliff**2 * same_mode) * same_size
        )
        self._runs: dict[int, list[Run]] = {}
        self.coefficients: Floats = np.array([1.0, 0.0, 0.0, 0.0])
        self._warm: set[int] = set()
        self._posterior: tuple[Floats, Floats] | None = None

    def observe(self, arm: int, seconds: float, batches: Floats, streams: int) -> None:
        """A run's seconds and the terms of its batches, float64 [batches, 4].

        The first run finds cold caches and shapes not compiled yet: it counts until the next one.
        """
        self._posterior = None
        if len(self._runs.get(arm, [])) == 1 and arm not in self._warm:
            self._runs[arm] = []
            self._warm.add(arm)
        # Streams that end early are this run's misfortune: in a job the next batches follow.
        terms = batches * self._side_by_side[arm]
        weights = terms @ self.coefficients
        idle = makespan(weights, streams) * streams / weights.sum()
        average = self._terms[arm] / self._terms[arm, 1] * self._side_by_side[arm, 1]
        unlike = abs(float(np.log(weights.mean() / (average @ self.coefficients))))
        run = Run(log=float(np.log(max(seconds, 1e-12))), terms=terms.sum(axis=0) * idle, unlike=unlike)
        self._runs.setdefault(arm, []).append(run)

    def average_batches(self, arm: int, batches: Floats) -> float:
        """How many average batches of an arm take as long as some, whose terms are float64 [batches, 4]."""
        terms = batches * self._side_by_side[arm]
        average = self._terms[arm] / self._terms[arm, 1] * self._side_by_side[arm, 1]
        return float((terms @ self.coefficients).sum() / (average @ self.coefficients))

    @property
    def noise(self) -> float:
        """The standard deviation of one run's logarithm, pooled over the arms that ran more than once."""
        alike = [[run for run in runs if run.unlike < _ALIKE] for runs in self._runs.values()]
        repeated = [self._departures(runs) for runs in alike if len(runs) > 1]
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
        seen, noise = np.array(sorted(self._runs)), self.noise
        weights = [self._weights(self._runs[arm], noise) for arm in seen]
        values = np.array(
            [each @ self._departures(self._runs[arm]) / each.sum() for arm, each in zip(seen, weights, strict=True)]
        )
        errors = np.array([1.0 / each.sum() for each in weights])
        # All modes may be slower or faster than the fit by the same factor.
        level = float(values.mean())
        values, expected = values - level, expected + level
        kernel = self._factors + self._rougher(seen, values, errors) ** 2 * self._shape
        across = kernel[:, seen]
        solved = np.linalg.solve(kernel[np.ix_(seen, seen)] + np.diag(errors), np.column_stack([values, across.T]))
        variance = kernel.diagonal() - np.einsum("ij,ji->i", across, solved[:, 1:])
        return expected + across @ solved[:, 0], np.sqrt(np.maximum(variance, 1e-12))

    def _rougher(self, seen: Ints, values: Floats, errors: Floats) -> float:
        """By how much curves and cliffs are larger than was believed: of `_ROUGHER` what makes the values likeliest.

        Rasmussen and Williams, equation 2.30.
        """
        factors, shape = (part[np.ix_(seen, seen)] for part in (self._factors, self._shape))
        likely = []
        for times in _ROUGHER:
            within = factors + times**2 * shape + np.diag(errors)
            likely.append(-values @ np.linalg.solve(within, values) - np.linalg.slogdet(within)[1])
        belief = np.square(np.log(_ROUGHER) / np.log(2.0))
        return _ROUGHER[int(np.argmax(np.array(likely) - belief))]

    def _weights(self, runs: list[Run], noise: float) -> Floats:
        """How sure each run is: one over its variance, float64 [runs]."""
        weights: Floats = 1.0 / (noise**2 + np.square([_MISLED * run.unlike for run in runs]))
        return weights

    def _departures(self, runs: list[Run]) -> Floats:
        """Logarithms of what runs took in relation to what the cost model says of their very batches, float64 [runs].

        So a sample that is not like all texts does no harm (a ratio estimate: Cochran, Sampling Techniques, 1977,
        chapter 6).
        """
        logs = np.array([run.log for run in runs])
        terms = np.array([run.terms for run in runs])
        departures: Floats = logs - np.log(terms @ self.coefficients)
        return departures

    def _fit(self) -> Floats:
        """The cost model's coefficients, float64 [4]: one fit over all modes and a factor for each, by turns."""
        runs = [run for each in self._runs.values() for run in each]
        modes = np.array([self._mode[arm] for arm, each in self._runs.items() for _ in each])
        logs, terms = np.array([run.log for run in runs]), np.array([run.terms for run in runs])
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
