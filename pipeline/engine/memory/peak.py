"""The most that a piece of work held, by looking often while it runs."""

from __future__ import annotations

import threading
from typing import Self

from pipeline.engine.memory.reading import MemoryReading, Probe

# A runtime's arena keeps what it took, so that the last look sees the peak too; this one is for what it gives back.
_EVERY_S = 0.01


class Peak:
    """Looks through a probe from entering the context to leaving it; the probe stays its owner's."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._most: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="memory-peak", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._keep(self._probe.read())

    @property
    def bytes(self) -> int | None:
        """The most that was held (see `held`); None where it was never known."""
        return self._most

    def _look(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self._keep(self._probe.read())

    def _keep(self, reading: MemoryReading) -> None:
        now = held(reading)
        if now is not None:
            self._most = now if self._most is None else max(self._most, now)


def held(reading: MemoryReading) -> int | None:
    """Bytes that this process holds; where the means cannot tell it apart, what all processes hold; else None."""
    return reading.used_bytes if reading.own_bytes is None else reading.own_bytes
