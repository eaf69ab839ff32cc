"""Measure peak memory above the use before."""

from __future__ import annotations

import threading
from typing import Self

from msgspec import Struct

from embedmill.engine.machine.memory.reading import MemoryReading, Probe

_PERIOD_S = 0.02
# A read may hang in a driver; the caller waits no longer than this.
_JOIN_TIMEOUT_S = 2.0


class PeakUsage(Struct, frozen=True, kw_only=True):
    """Peak bytes above the use before; None where unknown.

    `words` says why, or that only the use of all processes together is known.
    """

    peak_bytes: int | None
    words: str = ""


class PeakMemory:
    """Sampler of a probe (every 20 ms), closed on exit."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._stop, self._sampling = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, name="peak-memory", daemon=True)
        self._readings: list[MemoryReading] = []

    def __enter__(self) -> Self:
        self._readings = [self._probe.read()]
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Take a last sample and close the probe; idempotent."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join(_JOIN_TIMEOUT_S)
        if not self._thread.is_alive():
            self._readings.append(self._probe.read())
            self._probe.close()

    def taken(self) -> PeakUsage:
        """Return the peak so far, including a sample taken now."""
        if not self._stop.is_set():
            self._sample()
        readings = list(self._readings)
        own = [reading.own_bytes for reading in readings]
        if all(value is not None for value in own):
            return _above_first(own, "")
        used = [reading.used_bytes for reading in readings]
        if all(value is not None for value in used):
            own_only = readings[0].scope == "process"
            return _above_first(used, "" if own_only else "of all processes on the device together")
        reasons = (reading.reason for reading in readings if reading.reason)
        return PeakUsage(peak_bytes=None, words=next(reasons, "memory use was not reported"))

    def _run(self) -> None:
        while not self._stop.wait(_PERIOD_S):
            self._sample()

    def _sample(self) -> None:
        # A probe serves one thread at a time.
        with self._sampling:
            self._readings.append(self._probe.read())


def _above_first(values: list[int | None], words: str) -> PeakUsage:
    known = [value for value in values if value is not None]
    return PeakUsage(peak_bytes=max(known) - known[0], words=words)
