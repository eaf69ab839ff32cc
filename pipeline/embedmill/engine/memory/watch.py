"""Memory is looked at in the background while a run computes."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

from msgspec import Struct

from embedmill.base.results import Point
from embedmill.engine.machine.memory.reading import MemoryReading, Probe, unknown
from embedmill.engine.memory.series import Series

# The watch looks less often where looks cost so much that it would take more than this share of a core, apart from
# what beginning costs.
_MOST_SHARE, _BEGINNING_S = 0.004, 0.05
# A last reading that is older than this, and than several rounds, says nothing of now.
_STALE_S, _STALE_ROUNDS = 5.0, 4
# A look may hang in a driver; the run does not wait longer than this for its end.
_PATIENCE_S = 2.0
_REASONS_KEPT = 8


class Watched(Struct, frozen=True, kw_only=True):
    """What a watch saw, for the report; bytes, and seconds since it began.

    samples, unknown      readings, and those of them that did not know what is free
    used_bytes, free_bytes  least and most; None where no reading knew
    last                  the last reading that knew what is free
    reasons               why readings knew less than all, and how often; the first few of them
    series                the readings as a line of at most some hundred points
    cpu_s, wall_s         processor time that the watch took, and how long it has watched
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
    """Looks through a probe every `every_s` seconds in a thread of its own, from entering the context to leaving it.

    The probe stays its owner's, who closes it after the watch. `clock` tells seconds.
    """

    def __init__(self, probe: Probe, *, every_s: float = 0.5, clock: Callable[[], float] = time.monotonic) -> None:
        self._probe = probe
        self._every_s = self._period_s = every_s
        self._clock = clock
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._look, name="memory-watch", daemon=True)
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
        self._thread.join(_PATIENCE_S)

    def latest(self) -> MemoryReading:
        """The last reading; unknown where there is none yet, or none anymore because a look hangs or failed badly."""
        with self._lock:
            latest, stale_s = self._latest, max(_STALE_S, _STALE_ROUNDS * self._period_s)
        if latest is None:
            return unknown("watch", "memory has not been looked at yet")
        age_s = self._clock() - latest[0]
        return latest[1] if age_s <= stale_s else unknown(latest[1].source, f"the last look was {age_s:.0f} s ago")

    def seen(self) -> Watched:
        """All that was seen so far."""
        with self._lock:
            return Watched(
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

    def _look(self) -> None:
        while True:
            self._keep(self._probe.read(), self._clock())
            if self._stop.wait(self._period_s):
                return

    def _keep(self, reading: MemoryReading, at_s: float) -> None:
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
            self._cpu_s = time.thread_time()
            earned_s = (self._cpu_s - _BEGINNING_S) / _MOST_SHARE
            self._period_s = max(self._every_s, earned_s - (at_s - self._began_s))


def _extremes(known: tuple[int, int] | None, value: int | None) -> tuple[int, int] | None:
    if value is None:
        return known
    return (value, value) if known is None else (min(known[0], value), max(known[1], value))
