"""Sample memory in the background during a run."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

from msgspec import Struct

from embedmill.base.results import Point
from embedmill.engine.machine.memory.reading import MemoryReading, Probe, unknown
from embedmill.engine.memory.series import Series

# Sampling slows down where it would take more than this share of a core, start-up cost aside.
_MAX_CPU_SHARE, _STARTUP_S = 0.004, 0.05
# A last reading older than this, and than several periods, is stale.
_STALE_S, _STALE_ROUNDS = 5.0, 4
# A read may hang in a driver; the run waits no longer than this.
_JOIN_TIMEOUT_S = 2.0
_MAX_REASONS = 8


class WatchSummary(Struct, frozen=True, kw_only=True):
    """Summary of a watch for the report (bytes, seconds).

    samples, unknown        readings, and readings without free memory
    used_bytes, free_bytes  (least, most); None where unknown in every reading
    last                    the last reading with free memory
    reasons                 the first few reasons for unknown figures, with counts
    series                  the readings, downsampled to some hundred points
    cpu_s, wall_s           CPU time and duration of the watch
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
    """Context manager that samples a probe in a background thread.

    Every `every_s` seconds, on the `clock`'s seconds. The caller closes the probe after the watch.
    """

    def __init__(self, probe: Probe, *, every_s: float = 0.5, clock: Callable[[], float] = time.monotonic) -> None:
        self._probe = probe
        self._every_s = self._period_s = every_s
        self._clock = clock
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="memory-watch", daemon=True)
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
        self._thread.join(_JOIN_TIMEOUT_S)

    def latest(self) -> MemoryReading:
        """Return the last reading; unknown where missing or stale."""
        with self._lock:
            latest, stale_s = self._latest, max(_STALE_S, _STALE_ROUNDS * self._period_s)
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

    def _run(self) -> None:
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
            if reading.reason and (reading.reason in self._reasons or len(self._reasons) < _MAX_REASONS):
                self._reasons[reading.reason] += 1
            self._used = _extremes(self._used, reading.used_bytes)
            self._free = _extremes(self._free, reading.free_bytes)
            self._series.add(
                Point(at_s=at_s - self._began_s, used_bytes=reading.used_bytes, free_bytes=reading.free_bytes)
            )
            self._cpu_s = time.thread_time()
            earned_s = (self._cpu_s - _STARTUP_S) / _MAX_CPU_SHARE
            self._period_s = max(self._every_s, earned_s - (at_s - self._began_s))


def _extremes(known: tuple[int, int] | None, value: int | None) -> tuple[int, int] | None:
    if value is None:
        return known
    return (value, value) if known is None else (min(known[0], value), max(known[1], value))
