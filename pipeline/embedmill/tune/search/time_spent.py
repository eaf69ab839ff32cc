"""The seconds that trials took, and what the next ones may take."""

from __future__ import annotations

import numpy as np

from embedmill.tune.search.arms import Arms, least_batches
from embedmill.tune.search.least_squares import Floats
from embedmill.tune.search.space import Session
from embedmill.tune.search.types import Observation, Trial

# A first run counts as compiling where it takes so much longer than the next; less is noise.
_COMPILED = 1.5
# ... and at least this part of it was not.
_LEAST_WARM = 0.2
# Trials may take longer than expected by this much.
_ALLOWANCE = 1.15


class Spent:
    """Seconds of sessions, first runs and runs of n arms."""

    def __init__(self, arms: Arms) -> None:
        self._arms = arms
        self.seconds = 0.0
        # The first runs hold the largest batches: how much larger they are than the others.
        self._heavy = arms.demand[:, 1] / arms.demand[:, 0] * arms.terms[:, 1] / arms.terms[:, 0]
        self._least_batches = np.array([least_batches(one) for one in arms.knobs])
        self._opened: dict[Session, list[float]] = {}
        self._current: Session | None = None
        self._first: dict[int, tuple[float, int]] = {}
        self._compiled: list[tuple[float, int]] = []
        self._number = {session: i for i, session in enumerate(dict.fromkeys(one.session for one in arms.knobs))}
        self._session = np.array([self._number[one.session] for one in arms.knobs])

    def observe(self, arm: int, trial: Trial, observation: Observation) -> None:
        """A trial of an arm, failed or not."""
        self.seconds += observation.seconds + observation.open_seconds
        session = self._arms.knobs[arm].session
        if session != self._current:
            self._opened.setdefault(session, []).append(observation.open_seconds)
        self._current = session
        if observation.failure is not None:
            return
        if trial.repetition == 1:
            self._first[arm] = (observation.seconds, _shapes(trial))
        elif trial.repetition == 2:
            seconds, shapes = self._first[arm]
            warm = observation.seconds
            self._compiled.append((seconds - warm if seconds > _COMPILED * warm else 0.0, shapes))

    @property
    def compile_seconds(self) -> float:
        """What a shape costs when it is met for the first time."""
        shapes = sum(count for _, count in self._compiled)
        return sum(seconds for seconds, _ in self._compiled) / shapes if shapes else 0.0

    def warm_seconds(self, trial: Trial, observation: Observation) -> float:
        """Seconds of a trial without what a first run is thought to have compiled."""
        if trial.repetition > 1:
            return observation.seconds
        compiled = self.compile_seconds * _shapes(trial)
        return max(observation.seconds - compiled, observation.seconds * _LEAST_WARM)

    def opening(self) -> Floats:
        """Seconds to open the session of each arm for the first time, float64 [n]; 0.0 before one was."""
        known = [opened[0] for opened in self._opened.values()]
        seconds = np.full(len(self._number), float(np.mean(known)) if known else 0.0)
        for session, opened in self._opened.items():
            seconds[self._number[session]] = opened[0]
        of_arms: Floats = seconds[self._session]
        return of_arms

    def reopening(self) -> Floats:
        """Seconds to open the session of each arm now, float64 [n]; 0.0 for the session of the last trial."""
        again = [seconds for opened in self._opened.values() for seconds in opened[1:]]
        seconds = self.opening()
        if again:
            seconds[np.isin(self._session, [self._number[session] for session in self._opened])] = float(np.mean(again))
        if self._current is not None:
            seconds[self._session == self._number[self._current]] = 0.0
        return seconds

    def once(self) -> Floats:
        """Seconds that a job with each arm pays once: its session and all its shapes, float64 [n]."""
        return self.opening() + self.compile_seconds * self._arms.shapes

    def predicted(self, batch_seconds: Floats, runs_left: Floats, trial_seconds: float) -> Floats:
        """Seconds of the next `runs_left` runs of each arm, its session included, float64 [n].

        `batch_seconds` is what a batch may take, `trial_seconds` what a trial should.
        """
        run = np.maximum(self._least_batches, np.round(trial_seconds / batch_seconds)) * batch_seconds
        fresh = np.isin(np.arange(len(run)), list(self._first), invert=True)
        run = run * np.where(runs_left > 1, self._heavy, 1.0)
        compiling = self.compile_seconds * np.minimum(self._arms.shapes, self._least_batches) * fresh
        total: Floats = _ALLOWANCE * (self.reopening() + compiling + runs_left * run)
        return total


def _shapes(trial: Trial) -> int:
    return len({(batch.size, batch.sequence) for batch in trial.batches})
