"""Keeps batches within memory: what is seen while a run computes, and the scale of the next batch."""

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


def _ignore(_: str) -> None:
    """No one is told."""


class Guard:
    """A watch and what follows from it; a context manager, safe to ask from several threads.

    It watches from entering the context, when the sessions are open, to leaving it, and then closes the probe. Without
    one nothing is watched, and batches shrink only when one has failed. `fraction` of what is free at the
    beginning may be taken. `on_change` is told each change in words, in the thread that met it.

    A `device` has memory of its own, which its driver may page without an error: batches that suddenly take twice their
    time are pressure. Elsewhere batches share memory with the rest of this process, which needs room beside them.
    """

    def __init__(
        self,
        probe: Probe | None = None,
        *,
        fraction: float = DEFAULT_FRACTION,
        device: bool = True,
        on_change: Callable[[str], None] = _ignore,
        every_s: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watched = probe is not None
        self._probe = probe or UnknownProbe("nothing", "memory is not watched")
        self._fraction = fraction
        self._device = device
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
        """The part of its size that the next batch may have, in (0, 1]: by the last reading and all that was met."""
        reading = self._watch.latest()
        return self._note(lambda pressure, at_s: pressure.reading(reading, at_s))

    def ran(self, shape: Hashable, seconds: float) -> None:
        """Take note of a batch: `seconds` are compared among those of the same `shape`."""
        self._note(lambda pressure, at_s: pressure.batch(shape, seconds, at_s))

    def failed(self, scale: float, why: str) -> float:
        """There was no memory for a batch cut to `scale`: the scale of the next ones.

        It is a half of that at most; where memory is shared a quarter, for a half that just fits leaves nothing to
        those who read and write.
        """
        tried = scale if self._device else scale / 2
        return self._note(lambda pressure, at_s: pressure.failed(tried, why, at_s))

    def facts(self) -> MemoryFacts | None:
        """What was seen and done so far; None where nothing was watched and nothing happened."""
        with self._lock:
            changes = list(self._pressure.changes)
        if not self._watched and not changes:
            return None
        seen = self._watch.seen()
        last = seen.last or self._watch.latest()
        return MemoryFacts(
            source=last.source,
            scope=last.scope,
            ceiling_bytes=last.ceiling_bytes,
            reserve_bytes=self._reserve_bytes,
            most_used_bytes=seen.used_bytes and seen.used_bytes[1],
            least_free_bytes=seen.free_bytes and seen.free_bytes[0],
            samples=seen.samples,
            unknown=seen.unknown,
            reasons=seen.reasons,
            changes=changes,
            series=[
                Point(at_s=round(point.at_s, 1), used_bytes=point.used_bytes, free_bytes=point.free_bytes)
                for point in seen.series
            ],
        )

    def _note(self, what: Callable[[Pressure, float], Change | None]) -> float:
        with self._lock:
            change = what(self._pressure, self._clock() - self._began_s)
            scale = self._pressure.scale
        if change is not None:
            self._on_change(change.words)
        return scale
