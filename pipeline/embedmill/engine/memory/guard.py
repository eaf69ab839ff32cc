"""Guard that keeps batches within memory while a run computes."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable
from typing import Self

from msgspec.structs import replace

from embedmill.base.results import Change, MemoryFacts
from embedmill.engine.machine.memory.probe import DEFAULT_FRACTION, Probe, UnknownProbe, reserve
from embedmill.engine.memory.pressure import Policy, Pressure
from embedmill.engine.memory.watch import Watch


class Guard:
    """Memory watch and batch scale; a context manager, thread-safe.

    Enter it when the sessions are open; leaving it closes the probe. Without a probe nothing is watched, and batches
    shrink only after a failure. `fraction` of the memory free at the beginning may be used. `on_change` receives each
    change as a sentence, in the thread that caused it. `device`: batches use device memory, not system memory.
    """

    def __init__(
        self,
        probe: Probe | None = None,
        *,
        fraction: float = DEFAULT_FRACTION,
        device: bool = True,
        on_change: Callable[[str], None] | None = None,
        every_s: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watched = probe is not None
        self._probe = probe or UnknownProbe("nothing", "memory is not watched")
        self._fraction, self._device = fraction, device
        # A driver may page device memory without an error; on the processor slowness has many other causes.
        self._slow_factor = Policy(reserve_bytes=0).slow_factor if device else math.inf
        self._on_change, self._clock = on_change, clock
        self._began_s = clock()
        self._reserve_bytes: int | None = None
        self._pressure = Pressure(Policy(reserve_bytes=0, slow_factor=self._slow_factor))
        self._watch = Watch(self._probe, every_s=every_s, clock=clock)
        self._entered = False
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        if not self._watched:
            return self
        first = self._probe.read()
        self._reserve_bytes = reserve(first, self._fraction)
        self._pressure = Pressure(Policy(reserve_bytes=self._reserve_bytes or 0, slow_factor=self._slow_factor), first)
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
        return self._observe(lambda pressure, at_s: pressure.observe_memory(reading, at_s))

    def ran(self, shape: Hashable, seconds: float) -> None:
        """Record a batch; durations are compared per `shape`."""
        self._observe(lambda pressure, at_s: pressure.observe_batch(shape, seconds, at_s))

    def failed(self, scale: float, reason: str) -> float:
        """Record an out-of-memory batch; return the next scale."""
        # Half of the scale at most. A quarter in system memory: a half that just fits would leave nothing for the
        # reading and writing of this process.
        tried = scale if self._device else scale / 2
        return self._observe(lambda pressure, at_s: pressure.observe_failure(tried, reason, at_s))

    def facts(self) -> MemoryFacts | None:
        """Return facts so far; None without watch and changes."""
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
            series=[replace(point, at_s=round(point.at_s, 1)) for point in summary.series],
        )

    def _observe(self, event: Callable[[Pressure, float], Change | None]) -> float:
        with self._lock:
            change = event(self._pressure, self._clock() - self._began_s)
            scale = self._pressure.scale
        if change is not None and self._on_change is not None:
            self._on_change(change.words)
        return scale
