"""Readings for tests."""

from __future__ import annotations

from embedmill.engine.machine.memory.probe import MemoryReading, Scope, unknown

MIB = 1 << 20
GIB = 1 << 30
LOST = unknown("NVML", "GPU is lost")


def device(free: int, *, own: int | None = None, size: int = 8 * GIB, scope: Scope = "device") -> MemoryReading:
    """A device of `size` bytes with so many free."""
    return MemoryReading(
        used_bytes=size - free, free_bytes=free, ceiling_bytes=size, scope=scope, source="NVML", own_bytes=own
    )
