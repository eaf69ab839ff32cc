"""Peak memory use, measured by polling a probe."""

from __future__ import annotations

import threading
from typing import Self

from msgspec import Struct

from embedmill.engine.machine.memory.probe import MemoryReading, Probe

_EVERY_S = 0.02
# A reading may hang in a driver; `stop` waits no longer than this for the thread.
_PATIENCE_S = 2.0


class PeakUsage(Struct, frozen=True, kw_only=True):
    """Peak bytes above the use before; None where unknown."""

    peak_bytes: int | None
    # Why the peak is unknown, or that it counts all processes.
    note: str = ""


class PeakMemory:
    """Poll a probe every 20 ms; `stop` closes the probe."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._poll, name="peak-memory", daemon=True)
        self._readings: list[MemoryReading] = []

    def __enter__(self) -> Self:
        self._readings = [self._probe.read()]
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Read a last time; a second call does nothing."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join(_PATIENCE_S)
        if not self._thread.is_alive():
            self._readings.append(self._probe.read())
            self._probe.close()

    def usage(self) -> PeakUsage:
        """Return the peak so far, including now."""
        if not self._stop.is_set():
            self._read()
        readings = list(self._readings)
        shared = "" if readings[0].scope == "process" else "of all processes on the device together"
        own, used = [one.own_bytes for one in readings], [one.used_bytes for one in readings]
        for sizes, note in ((own, ""), (used, shared)):
            known = [size for size in sizes if size is not None]
            if len(known) == len(sizes):
                return PeakUsage(peak_bytes=max(known) - known[0], note=note)
        return PeakUsage(peak_bytes=None, note=next((one.reason for one in readings if one.reason), "unknown"))

    def _poll(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self._read()

    def _read(self) -> None:
        with self._lock:
            self._readings.append(self._probe.read())
