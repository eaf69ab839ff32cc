"""Background watch of memory while a run computes."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

from msgspec import Struct

from embedmill.base.results import Point
from embedmill.engine.machine.memory.probe import MemoryReading, Probe, unknown
from embedmill.engine.memory.series import Series

# The watch may use this share of a core, after the cost of starting up: expensive readings become less frequent.
_MOST_SHARE, _START_S = 0.004, 0.05
# A reading is stale when older than this, and than several periods.
_STALE_S, _STALE_PERIODS = 5.0, 4
_REASONS_KEPT = 8


class WatchSummary(Struct, frozen=True, kw_only=True):
    """Summary of a watch; bytes, and seconds from the start.

    samples, unknown        number of readings, and of those with unknown free memory
    used_bytes, free_bytes  minimum and maximum; None where unknown
    last                    the last reading with known free memory
    reasons                 causes of incomplete readings with counts; the first few
    series                  the readings as at most some hundred points
    cpu_s, wall_s           processor time of the watch, and its duration
    """

    samples: int
    unknown: int
    used_bytes: tuple[int, int] | None
    free_bytes: tuple[int, int] | None
    last: MemoryReading | None
    reasons: dict[str, int]
    series: tuple[Point, ...]
    cpu_s: float
    wall_s: float


class Watch:
    """Thread that reads a probe periodically; a context manager.

    The caller closes the probe after the watch. `clock` returns seconds. The exit waits `patience_s` seconds for a
    reading that hangs in a driver.
    """

    def __init__(
        self,
        probe: Probe,
        *,
        every_s: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
        patience_s: float = 2.0,
    ) -> None:
        self._probe = probe
        self._every_s = self._period_s = every_s
        self._clock, self._patience_s = clock, patience_s
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._poll, name="memory-watch", daemon=True)
        self._began_s = self._ended_s = clock()
        self._latest: tuple[float, MemoryReading] | None = None
        self._last: MemoryReading | None = None
        self._samples = self._unknown = 0
        self._used: tuple[int, int] | None = None
        self._free: tuple[int, int] | None = None
        self._reasons: Counter[str] = Counter()
        self._series = Series()
        self._cpu_s = 0.0

    def __enter__(self) -> Watch:
        self._began_s = self._ended_s = self._clock()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(self._patience_s)

    def latest(self) -> MemoryReading:
        """Return the last reading; unknown before the first, when stale."""
        with self._lock:
            latest, stale_s = self._latest, max(_STALE_S, _STALE_PERIODS * self._period_s)
        if latest is None:
            return unknown("watch", "memory has not been read yet")
        age_s = self._clock() - latest[0]
        return latest[1] if age_s <= stale_s else unknown(latest[1].source, f"the last reading is {age_s:.0f} s old")

    def summary(self) -> WatchSummary:
        """Return a summary of all readings so far."""
        with self._lock:
            return WatchSummary(
                samples=self._samples,
                unknown=self._unknown,
                used_bytes=self._used,
                free_bytes=self._free,
                last=self._last,
                reasons=dict(self._reasons),
                series=self._series.points(),
                cpu_s=self._cpu_s,
                wall_s=self._ended_s - self._began_s,
            )

    def _poll(self) -> None:
        while True:
            self._record(self._probe.read(), self._clock())
            if self._stop.wait(self._period_s):
                return

    def _record(self, reading: MemoryReading, at_s: float) -> None:
        with self._lock:
            self._latest, self._ended_s = (at_s, reading), at_s
            self._samples += 1
            if reading.free_bytes is None:
                self._unknown += 1
            else:
                self._last = reading
            if reading.reason and (reading.reason in self._reasons or len(self._reasons) < _REASONS_KEPT):
                self._reasons[reading.reason] += 1
            self._used = _extremes(self._used, reading.used_bytes)
            self._free = _extremes(self._free, reading.free_bytes)
            self._series.add(
                Point(at_s=at_s - self._began_s, used_bytes=reading.used_bytes, free_bytes=reading.free_bytes)
            )
            # The next reading waits until the processor time so far is within the share.
            self._cpu_s = time.thread_time()
            due_s = (self._cpu_s - _START_S) / _MOST_SHARE
            self._period_s = max(self._every_s, due_s - (at_s - self._began_s))


def _extremes(known: tuple[int, int] | None, value: int | None) -> tuple[int, int] | None:
    if value is None:
        return known
    return (value, value) if known is None else (min(known[0], value), max(known[1], value))
