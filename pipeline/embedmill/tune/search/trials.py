"""Trials of one tuning, run and recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from embedmill.base.config import MIB
from embedmill.base.records import Batch, IntArray
from embedmill.tune.search.space import Knobs, Mode
from embedmill.tune.search.types import OUT_OF_MEMORY, Limits, Observation, Observed, Trial

# A trial lasts about this part of the time for all.
TRIAL_PART = 1 / 150


class Trials:
    """Journal of trials, run by an injected function.

    ceiling    bytes that no trial may need; infinite where the device does not report its memory
    seconds    spent so far, opening sessions included
    """

    def __init__(self, lengths: IntArray, limits: Limits, observe: Callable[[Trial], Observation]) -> None:
        """Take the tokens of each text, int64 [texts]."""
        self.lengths, self.limits = np.maximum(lengths, 1), limits
        self.ceiling = np.inf if limits.ceiling_bytes is None else float(limits.ceiling_bytes)
        self.seconds = 0.0
        self.observed: list[Observed] = []
        self._observe = observe
        self._runs: Counter[Knobs] = Counter()

    def run(self, knobs: Knobs, batches: Sequence[Batch], *, peak_bytes: float) -> tuple[Trial, Observation]:
        """Run a trial; `peak_bytes` is the prediction."""
        self._runs[knobs] += 1
        trial = Trial(
            number=len(self.observed),
            knobs=knobs,
            batches=tuple(batches),
            repetition=self._runs[knobs],
            useful_tokens=sum(int(self.lengths[batch.rows].sum()) for batch in batches),
            padded_tokens=sum(map(padded, batches)),
            predicted_peak_bytes=int(peak_bytes) if np.isfinite(self.ceiling) else None,
        )
        observation = self._observe(trial)
        self.observed.append(Observed(trial=trial, observation=observation))
        self.seconds += observation.seconds + observation.open_seconds
        if observation.ceiling_bytes is not None:
            self.ceiling = observation.ceiling_bytes
        return trial, observation

    @property
    def know_memory(self) -> bool:
        """True once a trial has reported a peak."""
        return any(one.observation.peak_bytes is not None for one in self.observed)

    def is_open(self, knobs: Knobs) -> bool:
        """Return whether the session of `knobs` is still open."""
        last = self.observed[-1] if self.observed else None
        return last is not None and not last.observation.failure and _session(last.trial.knobs) == _session(knobs)

    @property
    def opening(self) -> float:
        """Mean seconds of opening a session; 0.0 before any was."""
        opened = [one.observation.open_seconds for one in self.observed if one.observation.open_seconds]
        return float(np.mean(opened)) if opened else 0.0

    def opening_of(self, knobs: Knobs) -> float:
        """Return the expected seconds of opening the session now."""
        return 0.0 if self.is_open(knobs) else self.opening

    def no_room(self, mode: Mode, padded_tokens: float, need: float) -> str:
        """Return the message for a space of which nothing works."""
        failures = [one.observation.failure for one in self.observed if one.observation.failure]
        if failures and failures[-1] != OUT_OF_MEMORY:
            return f"every trial failed, the last one with: {failures[-1]}"
        return (
            f"no batch fits: the smallest one ({mode.precision}, {padded_tokens:.0f} padded tokens) needs up to"
            f" {need / MIB:.0f} MiB and {self.ceiling / MIB:.0f} MiB may be used; free memory, allow more of it, or"
            " choose a smaller model"
        )


def padded(batch: Batch) -> int:
    """Return the tokens of a batch, padding included."""
    return batch.size * batch.sequence


def _session(knobs: Knobs) -> tuple[object, ...]:
    return knobs.session, knobs.mode.streams, knobs.mode.in_flight
