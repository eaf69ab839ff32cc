"""The most memory that something took: looked at all the while, against what was in use before."""

from __future__ import annotations

import threading
from typing import Self

from msgspec import Struct

from embedmill.engine.machine.memory.reading import MemoryReading, Probe

_EVERY_S = 0.02
# A look may hang in a driver; no one waits longer than this for its end.
_PATIENCE_S = 2.0


class PeakUsage(Struct, frozen=True, kw_only=True):
    """Bytes at most above what was in use before; None where that is not known, and `words` says why. Where only the
    use of all processes together is known, `words` says so too."""

    peak_bytes: int | None
    words: str = ""


class PeakMemory:
    """Looks through a probe every 20 ms, from entering the context to `stop` or leaving it; then closes the probe."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._stop, self._looking = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._look, name="peak-memory", daemon=True)
        self._readings: list[MemoryReading] = []

    def __enter__(self) -> Self:
        self._readings = [self._probe.read()]
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Look a last time; a second call does nothing."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join(_PATIENCE_S)
        if not self._thread.is_alive():
            self._readings.append(self._probe.read())
            self._probe.close()

    def taken(self) -> PeakUsage:
        """What was seen so far, and is seen now."""
        if not self._stop.is_set():
            self._keep()
        readings = list(self._readings)
        own = [reading.own_bytes for reading in readings]
        if all(value is not None for value in own):
            return _above_first(own, "")
        used = [reading.used_bytes for reading in readings]
        if all(value is not None for value in used):
            alone = readings[0].scope == "process"
            return _above_first(used, "" if alone else "of all processes on the device together")
        return PeakUsage(peak_bytes=None, words=next((one.reason for one in readings if one.reason), "it was not told"))

    def _look(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self._keep()

    def _keep(self) -> None:
        with self._looking:
            self._readings.append(self._probe.read())


def _above_first(values: list[int | None], words: str) -> PeakUsage:
    known = [value for value in values if value is not None]
    return PeakUsage(peak_bytes=max(known) - known[0], words=words)
