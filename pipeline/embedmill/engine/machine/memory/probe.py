"""Memory readings, probes, and ceiling and reserve."""

from __future__ import annotations

from typing import Literal, Protocol

from msgspec import Struct

Scope = Literal["machine", "process", "device", "unknown"]

# Part of free memory; the rest covers errors of the prediction, and growth of other processes.
DEFAULT_FRACTION = 0.85


class MemoryReading(Struct, frozen=True, kw_only=True):
    """Memory at one moment, in bytes; None where unknown.

    used_bytes     use of all processes on the machine or device, or of this one: see `scope`
    free_bytes     available to this process now, other processes accounted for
    ceiling_bytes  size or limit that bounds `free_bytes`: of RAM, of a control group, of the device
    scope          whose use `used_bytes` counts
    source         interface that was read, and the tightest limit
    own_bytes      this process's part of the use, where known
    reason         why a value is unknown
    """

    used_bytes: int | None
    free_bytes: int | None
    ceiling_bytes: int | None
    scope: Scope
    source: str
    own_bytes: int | None = None
    reason: str = ""

    @property
    def others_bytes(self) -> int | None:
        """Return the use of other processes; None where unknown."""
        if self.ceiling_bytes is None or self.free_bytes is None or self.own_bytes is None:
            return None
        return max(0, self.ceiling_bytes - self.free_bytes - self.own_bytes)


class Probe(Protocol):
    """Interface of memory probes; one thread reads at a time."""

    def read(self) -> MemoryReading:
        """Read memory; failures give an unknown reading with the reason."""

    def close(self) -> None:
        """Release resources; further calls are harmless, later readings unknown."""


class UnknownProbe(Probe):
    """Probe of a device without a memory report."""

    def __init__(self, source: str, reason: str) -> None:
        self._reading = unknown(source, reason)

    def read(self) -> MemoryReading:
        """Return the same unknown reading."""
        return self._reading

    def close(self) -> None:
        """Do nothing."""


def unknown(source: str, reason: str) -> MemoryReading:
    """Return an unknown reading with the reason."""
    return MemoryReading(
        used_bytes=None, free_bytes=None, ceiling_bytes=None, scope="unknown", source=source, reason=reason
    )


def ceiling(reading: MemoryReading, fraction: float = DEFAULT_FRACTION) -> int | None:
    """Return the most bytes to allocate: `fraction` of free memory.

    What this process already holds (weights) is not part of it. None where free memory is unknown. Raises ValueError
    unless the fraction is in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"{fraction} is no fraction of free memory: more than 0, at most 1")
    return None if reading.free_bytes is None else min(reading.free_bytes, int(reading.free_bytes * fraction))


def reserve(reading: MemoryReading, fraction: float = DEFAULT_FRACTION) -> int | None:
    """Return bytes to keep free: half of the ceiling's rest."""
    # A run within the ceiling never touches the reserve: only other processes or a failed prediction do.
    most = ceiling(reading, fraction)
    return None if most is None or reading.free_bytes is None else (reading.free_bytes - most) // 2
