"""Memory reading, probe interface, and the limits that follow."""

from __future__ import annotations

from typing import Literal, Protocol

from msgspec import Struct

Scope = Literal["machine", "process", "device", "unknown"]

# Of free memory: the rest covers prediction errors and the growth of other processes.
DEFAULT_FRACTION = 0.85


class MemoryReading(Struct, frozen=True, kw_only=True):
    """Memory at one moment, in bytes; None where unknown.

    used_bytes     in use within `scope`: by all processes of the machine or device, or by this one
    free_bytes     still available to this process, given the use of all others
    ceiling_bytes  the size or limit at which `free_bytes` ends: of RAM, of a control group, of the device
    scope          of `used_bytes`
    source         the interface, and the limit that binds
    own_bytes      used by this process, where the interface reports that
    reason         why a figure is unknown
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
    """Interface that reads memory, one thread at a time."""

    def read(self) -> MemoryReading:
        """Read now; a failure gives an unknown reading, no exception."""

    def close(self) -> None:
        """Release all handles (idempotent); later readings are unknown."""


class UnknownProbe(Probe):
    """Probe of a device without memory reports."""

    def __init__(self, source: str, reason: str) -> None:
        self._reading = unknown(source, reason)

    def read(self) -> MemoryReading:
        """Return the same unknown reading each time."""
        return self._reading

    def close(self) -> None:
        """Do nothing: no resource is held."""


def unknown(source: str, reason: str) -> MemoryReading:
    """Return a reading without figures, and the reason."""
    return MemoryReading(
        used_bytes=None, free_bytes=None, ceiling_bytes=None, scope="unknown", source=source, reason=reason
    )


def ceiling(reading: MemoryReading, fraction: float = DEFAULT_FRACTION) -> int | None:
    """Return the most bytes to allocate: `fraction` of free memory.

    Memory that this process already holds (weights) is in use and not part of the result. None where free memory is
    unknown. Raises ValueError where the fraction is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"{fraction} is no fraction of free memory: it must be above 0 and at most 1")
    return None if reading.free_bytes is None else min(reading.free_bytes, int(reading.free_bytes * fraction))


def reserve(reading: MemoryReading, fraction: float = DEFAULT_FRACTION) -> int | None:
    """Return the reserve: half the free memory above `ceiling`."""
    # A run below the ceiling never touches the reserve: another process does, or a prediction failed.
    most = ceiling(reading, fraction)
    return None if most is None or reading.free_bytes is None else (reading.free_bytes - most) // 2
