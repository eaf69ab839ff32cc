"""RAM for this process, within control groups and rlimits."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from embedmill.engine.machine.cgroups import MemoryLimit, cgroup_limits
from embedmill.engine.machine.memory.probe import MemoryReading, Probe, unknown
from embedmill.engine.machine.procfs import read_text

_SOURCE = "host"
# Limits of setrlimit(2) on bytes of memory, with the lines of /proc/self/status that they limit. The kernel compares
# RLIMIT_DATA with private writable mappings since 4.7 (may_expand_vm in mm/mmap.c).
_LIMITED = {"RLIMIT_AS": "VmSize", "RLIMIT_DATA": "VmData"}


class HostProbe(Probe):
    """Probe of RAM; `root` holds /proc and /sys."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root, self._closed = root, False

    def read(self) -> MemoryReading:
        """Read resident memory, and the rest of the tightest limit."""
        if self._closed:
            return unknown(_SOURCE, "the probe was closed")
        try:
            # proc_pid_status(5); empty on other systems.
            status = _kilobytes(read_text(self._root / "proc/self/status"))
            limits = [_ram(), *_committed(self._root), *cgroup_limits(self._root), *_resource_limits(status)]
            own = status["VmRSS"] if "VmRSS" in status else psutil.Process().memory_info().rss
        except (OSError, ValueError, psutil.Error) as error:
            return unknown(_SOURCE, str(error))
        tightest = min(limits, key=lambda limit: limit.free_bytes)
        return MemoryReading(
            used_bytes=own,
            free_bytes=tightest.free_bytes,
            ceiling_bytes=tightest.limit_bytes,
            scope="process",
            source=tightest.source,
            # A resource limit counts memory reserved by this process alone, which is more than is resident.
            own_bytes=tightest.used_bytes if tightest.source in _LIMITED else own,
        )

    def close(self) -> None:
        """Mark the probe as closed."""
        self._closed = True


def available_ram() -> int:
    """Return bytes of RAM available without swapping. Raises OSError."""
    return _ram().free_bytes


def _ram() -> MemoryLimit:
    memory = psutil.virtual_memory()
    return MemoryLimit(source="RAM", limit_bytes=memory.total, used_bytes=memory.total - memory.available)


def _committed(root: Path) -> Iterator[MemoryLimit]:
    # Mode 2 of Documentation/mm/overcommit-accounting.rst: Linux reserves no more memory than there is.
    if read_text(root / "proc/sys/vm/overcommit_memory") == "2":
        lines = _kilobytes(read_text(root / "proc/meminfo"))
        yield MemoryLimit(
            source="CommitLimit",
            limit_bytes=_required(lines, "CommitLimit", "/proc/meminfo"),
            used_bytes=_required(lines, "Committed_AS", "/proc/meminfo"),
        )


def _resource_limits(status: dict[str, int]) -> Iterator[MemoryLimit]:
    # Other systems do not enforce these limits, or count something else.
    if sys.platform != "linux":
        return
    import resource

    for name, line in _LIMITED.items():
        limit = resource.getrlimit(getattr(resource, name))[0]
        if limit != resource.RLIM_INFINITY:
            yield MemoryLimit(source=name, limit_bytes=limit, used_bytes=_required(status, line, "/proc/self/status"))


def _kilobytes(text: str) -> dict[str, int]:
    lines = (line.split() for line in text.splitlines() if line.endswith("kB"))
    return {line[0].rstrip(":"): int(line[1]) << 10 for line in lines if len(line) == 3 and line[1].isdecimal()}


def _required(sizes: dict[str, int], name: str, file: str) -> int:
    if name not in sizes:
        raise ValueError(f"{file} does not show {name}, so the rest of the limit is unknown")
    return sizes[name]
