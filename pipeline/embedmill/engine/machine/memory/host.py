"""Read system memory as limited for this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from embedmill.engine.machine.cgroups import Bound, cgroup_bounds
from embedmill.engine.machine.memory.reading import MemoryReading, Probe, unknown
from embedmill.engine.machine.procfs import read_text

_SOURCE = "host"
# Limits of setrlimit(2) in bytes of memory, and the limited lines of /proc/self/status. The kernel
# compares RLIMIT_DATA with private writable mappings since 4.7 (may_expand_vm in mm/mmap.c).
_LIMITED = {"RLIMIT_AS": "VmSize", "RLIMIT_DATA": "VmData"}


class HostProbe(Probe):
    """Probe of RAM for this process, below `root`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._closed = False

    def read(self) -> MemoryReading:
        """Read the resident set and room below the tightest limit."""
        if self._closed:
            return unknown(_SOURCE, "the probe was closed")
        try:
            status = _kilobytes(read_text(self._root / "proc/self/status"))
            bounds = [_ram(), *_committed(self._root), *cgroup_bounds(self._root), *_resource_limits(status)]
            own = status["VmRSS"] if "VmRSS" in status else psutil.Process().memory_info().rss
        except (OSError, ValueError, psutil.Error) as error:
            return unknown(_SOURCE, str(error))
        tightest = min(bounds, key=lambda bound: bound.free_bytes)
        return MemoryReading(
            used_bytes=own,
            free_bytes=tightest.free_bytes,
            ceiling_bytes=tightest.limit_bytes,
            scope="process",
            source=tightest.source,
            # A resource limit counts this process's allocations, which exceed the resident set, and no others.
            own_bytes=tightest.used_bytes if tightest.source in _LIMITED else own,
        )

    def close(self) -> None:
        """Make later readings unknown; no resource is held."""
        self._closed = True


def available_ram() -> int:
    """Return bytes of RAM available without swapping, for all processes.

    MemAvailable on Linux. Raises OSError where the system does not say.
    """
    return _ram().free_bytes


def _ram() -> Bound:
    memory = psutil.virtual_memory()
    return Bound(source="RAM", limit_bytes=memory.total, used_bytes=memory.total - memory.available)


def _committed(root: Path) -> Iterator[Bound]:
    # Mode 2 refuses allocations beyond CommitLimit (Documentation/mm/overcommit-accounting.rst).
    if read_text(root / "proc/sys/vm/overcommit_memory") == "2":
        lines = _kilobytes(read_text(root / "proc/meminfo"))
        yield Bound(
            source="CommitLimit",
            limit_bytes=_field(lines, "CommitLimit", "/proc/meminfo"),
            used_bytes=_field(lines, "Committed_AS", "/proc/meminfo"),
        )


def _resource_limits(status: dict[str, int]) -> Iterator[Bound]:
    # Other systems do not enforce these limits, or count something else.
    if sys.platform != "linux":
        return
    import resource

    for name, line in _LIMITED.items():
        limit = resource.getrlimit(getattr(resource, name))[0]
        if limit != resource.RLIM_INFINITY:
            yield Bound(source=name, limit_bytes=limit, used_bytes=_field(status, line, "/proc/self/status"))


def _kilobytes(text: str) -> dict[str, int]:
    lines = (line.split() for line in text.splitlines() if line.endswith("kB"))
    return {line[0].rstrip(":"): int(line[1]) << 10 for line in lines if len(line) == 3 and line[1].isdecimal()}


def _field(sizes: dict[str, int], name: str, file: str) -> int:
    if name not in sizes:
        raise ValueError(f"{file} has no {name}, so the memory left below that limit is unknown")
    return sizes[name]
