"""What a look at memory says, and what may be taken of it."""

from __future__ import annotations

from typing import Literal, Protocol

from msgspec import Struct

Scope = Literal["machine", "process", "device", "unknown"]

# Of what is free: the rest is for what a prediction leaves out, and for others that grow.
DEFAULT_FRACTION = 0.85


class MemoryReading(Struct, frozen=True, kw_only=True):
    """Memory at one moment, in bytes; None where it is not known.

    used_bytes     in use by whom `scope` names: the machine's or device's processes together, or this one
    free_bytes     what this process could still have now; other processes are taken into account
    ceiling_bytes  the size or limit at which `free_bytes` ends: of RAM, of a control group, of the device
    scope          whose use `used_bytes` is
    source         by which means it is known, and which limit binds
    own_bytes      this process's part of what is in use, where the means tells it apart
    reason         why something is not known
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
        """What neither is free for this process nor used by it; None where a part is not known."""
        if self.ceiling_bytes is None or self.free_bytes is None or self.own_bytes is None:
            return None
        return max(0, self.ceiling_bytes - self.free_bytes - self.own_bytes)


class Probe(Protocol):
    """A means of looking; one thread looks at a time."""

    def read(self) -> MemoryReading:
        """Look now. What fails makes a reading that says `unknown` and why; nothing is raised."""

    def close(self) -> None:
        """Give back what the means holds; a second time does nothing, and what is read afterwards is unknown."""


class UnknownProbe(Probe):
    """The probe of a device of which no one reports the memory."""

    def __init__(self, source: str, reason: str) -> None:
        self._reading = unknown(source, reason)

    def read(self) -> MemoryReading:
        """The same each time."""
        return self._reading

    def close(self) -> None:
        """Nothing is held."""


def unknown(source: str, reason: str) -> MemoryReading:
    """The reading of a means that could not say, and why."""
    return MemoryReading(
        used_bytes=None, free_bytes=None, ceiling_bytes=None, scope="unknown", source=source, reason=reason
    )


def ceiling(reading: MemoryReading, fraction: float = DEFAULT_FRACTION) -> int | None:
    """The most bytes to take on top of what is in use at the reading: `fraction` of what is free then.

    What this process already holds (weights) is in use at the reading and not part of it. None where it is not known
    what is free. Raises ValueError where the fraction is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"{fraction} is no fraction of what is free: more than 0, at most 1")
    return None if reading.free_bytes is None else min(reading.free_bytes, int(reading.free_bytes * fraction))


def reserve(reading: MemoryReading, fraction: float = DEFAULT_FRACTION) -> int | None:
    """The bytes that should stay free while up to `ceiling` is in use: half of what the ceiling leaves.

    A run that keeps to the ceiling never touches it, so that what does is someone else, or a prediction that failed.
    """
    most = ceiling(reading, fraction)
    return None if most is None or reading.free_bytes is None else (reading.free_bytes - most) // 2
