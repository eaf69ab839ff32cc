"""Count the cores that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

import psutil

from embedmill.engine.machine.procfs import read_text


def usable_cores(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the least of physical cores, affinity and cgroup quota."""
    # Not hyper-threads: two streams of matrix products on one core share its arithmetic units.
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, allowed, _cgroup_cores(root)))


def _cgroup_cores(root: Path) -> int:
    v1 = (read_text(root / f"cpu/cpu.cfs_{name}_us") for name in ("quota", "period"))
    try:
        # Microseconds of CPU per period, and the period. No limit is `max` in v2 and -1 in v1.
        quota, period = map(int, read_text(root / "cpu.max").split() or v1)
    except ValueError:
        quota = period = 0
    return math.ceil(quota / period) if quota > 0 and period > 0 else os.cpu_count() or 1
