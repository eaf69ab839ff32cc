"""Keep batches within memory by scaling the next batch."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable
from typing import Self

from embedmill.base.results import Change, MemoryFacts, Point
from embedmill.engine.machine.memory.reading import DEFAULT_FRACTION, Probe, UnknownProbe, reserve
from embedmill.engine.memory.pressure import Policy, Pressure
from embedmill.engine.memory.watch import Watch


class Guard:
    """Thread-safe context manager that maps memory pressure to batch scales.

    Entered once the sessions are open; leaving closes the probe. Without a probe batches shrink only after a failure.
    `fraction` of the memory free at entry may be used. `on_change` receives each change as text, in the thread that
    caused the change. `device`: batches use device memory, not memory shared with the rest of this process.
    """

    def __init__(
        self,
        probe: Probe | None = None,
        *,
        fraction: float = DEFAULT_FRACTION,
        device: bool = True,
        on_change: Callable[[str], None] = lambda _: None,
        every_s: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watched = probe is not None
        self._probe = probe or UnknownProbe("nothing", "memory is not watched")
        self._fraction = fraction
        self._device = device
        # Only a device's driver pages without an error, so that slow batches mean pressure; a CPU has other causes.
        self._cliff = Policy(reserve_bytes=0).cliff if device else math.inf
        self._on_change = on_change
        self._clock = clock
        self._began_s = clock()
        self._reserve_bytes: int | None = None
        self._pressure = Pressure(Policy(reserve_bytes=0, cliff=self._cliff))
        self._watch = Watch(self._probe, every_s=every_s, clock=clock)
        self._entered = False
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        if not self._watched:
            return self
        first = self._probe.read()
        self._reserve_bytes = reserve(first, self._fraction)
        self._pressure = Pressure(Policy(reserve_bytes=self._reserve_bytes or 0, cliff=self._cliff), first)
        self._began_s = self._clock()
        self._watch.__enter__()
        self._entered = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._entered:
            self._watch.__exit__()
        self._probe.close()

    def scale(self) -> float:
        """Return the scale of the next batch, in (0, 1]."""
        reading = self._watch.latest()
        return self._apply(lambda pressure, at_s: pressure.reading(reading, at_s))

    def ran(self, shape: Hashable, seconds: float) -> None:
        """Record a batch; `seconds` are compared within the same `shape`."""
        self._apply(lambda pressure, at_s: pressure.batch(shape, seconds, at_s))

    def failed(self, scale: float, why: str) -> float:
        """Record an out-of-memory failure at `scale`; return the next scale."""
        # Half at most; in shared memory a quarter, as a half that just fits leaves no memory to reading and writing.
        tried = scale if self._device else scale / 2
        return self._apply(lambda pressure, at_s: pressure.failed(tried, why, at_s))

    def facts(self) -> MemoryFacts | None:
        """Return readings and changes so far; None without any."""
        with self._lock:
            changes = list(self._pressure.changes)
        if not self._watched and not changes:
            return None
        summary = self._watch.summary()
        last = summary.last or self._watch.latest()
        return MemoryFacts(
            source=last.source,
            scope=last.scope,
            ceiling_bytes=last.ceiling_bytes,
            reserve_bytes=self._reserve_bytes,
            most_used_bytes=summary.used_bytes and summary.used_bytes[1],
            least_free_bytes=summary.free_bytes and summary.free_bytes[0],
            samples=summary.samples,
            unknown=summary.unknown,
            reasons=summary.reasons,
            changes=changes,
            series=[
                Point(at_s=round(point.at_s, 1), used_bytes=point.used_bytes, free_bytes=point.free_bytes)
                for point in summary.series
            ],
        )

    def _apply(self, observation: Callable[[Pressure, float], Change | None]) -> float:
        with self._lock:
            change = observation(self._pressure, self._clock() - self._began_s)
            scale = self._pressure.scale
        if change is not None:
            self._on_change(change.words)
        return scale
