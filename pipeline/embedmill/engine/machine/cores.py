"""Number of cores that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

import psutil


def usable_cores(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the least of physical cores, affinity and cgroup quota."""
    # Hyper-threads do not count: two streams of matrix products on one core share its arithmetic units.
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    return max(1, min(physical, _allowed_cores() or physical, _cgroup_cores(root)))


def _allowed_cores() -> int:
    # macOS has no affinity.
    try:
        return len(psutil.Process().cpu_affinity())
    except (AttributeError, psutil.Error, OSError):
        return 0


def _cgroup_cores(root: Path) -> int:
    quota, period = _read_quota(root)
    return math.ceil(quota / period) if quota > 0 and period > 0 else os.cpu_count() or 1


def _read_quota(root: Path) -> tuple[int, int]:
    # Microseconds of CPU per period, and the period, by cgroup v2 or else v1; (0, 0) without a limit.
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((root / file).read_text() for file in files).split()
            return (int(quota), int(period)) if quota != "max" else (0, 0)
        except (OSError, ValueError):
            continue
    return 0, 0
