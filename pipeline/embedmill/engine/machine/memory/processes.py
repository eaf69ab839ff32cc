"""Memory of other processes."""

from __future__ import annotations

import psutil


def resident_bytes(process: int) -> int | None:
    """Return resident memory of a process; None if unknown."""
    try:
        return int(psutil.Process(process).memory_info().rss)
    except psutil.Error:
        return None
