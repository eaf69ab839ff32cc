"""Memory of the machine, as this process may use it: the least of RAM, control groups and resource limits."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from embedmill.engine.machine.cgroups import Bound, cgroup_bounds
from embedmill.engine.machine.memory.reading import MemoryReading, Probe, unknown
from embedmill.engine.machine.procfs import read_text

_SOURCE = "host"
# Limits of setrlimit(2) that count bytes of memory, and the lines of /proc/self/status that they limit. The kernel
# compares RLIMIT_DATA with private writable mappings since 4.7 (may_expand_vm in mm/mmap.c).
_LIMITED = {"RLIMIT_AS": "VmSize", "RLIMIT_DATA": "VmData"}


class HostProbe(Probe):
    """RAM for this process. `root` is where /proc and /sys are."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._closed = False

    def read(self) -> MemoryReading:
        """What this process uses (its resident set), and what the tightest of all limits leaves to it."""
        if self._closed:
            return unknown(_SOURCE, "the probe was closed")
        try:
            status = _status(self._root)
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
            # Such a limit counts what was promised to this process, which is more than is resident; no one else's.
            own_bytes=tightest.used_bytes if tightest.source in _LIMITED else own,
        )

    def close(self) -> None:
        """Nothing is held."""
        self._closed = True


def available_ram() -> int:
    """Bytes of RAM that could be had now without swapping (MemAvailable on Linux), for all processes together.

    Raises OSError where the system does not say.
    """
    return _ram().free_bytes


def _ram() -> Bound:
    memory = psutil.virtual_memory()
    return Bound(source="RAM", limit_bytes=memory.total, used_bytes=memory.total - memory.available)


def _committed(root: Path) -> Iterator[Bound]:
    """The limit of a Linux that promises no more than it has (Documentation/mm/overcommit-accounting.rst, mode 2)."""
    if read_text(root / "proc/sys/vm/overcommit_memory") == "2":
        lines = _kilobytes(read_text(root / "proc/meminfo"))
        yield Bound(
            source="CommitLimit",
            limit_bytes=_told(lines, "CommitLimit", "/proc/meminfo"),
            used_bytes=_told(lines, "Committed_AS", "/proc/meminfo"),
        )


def _resource_limits(status: dict[str, int]) -> Iterator[Bound]:
    """The soft limits of this process. Elsewhere than on Linux they do not hold, or count something else."""
    if sys.platform != "linux":
        return
    import resource

    for name, line in _LIMITED.items():
        limit = resource.getrlimit(getattr(resource, name))[0]
        if limit != resource.RLIM_INFINITY:
            yield Bound(source=name, limit_bytes=limit, used_bytes=_told(status, line, "/proc/self/status"))


def _status(root: Path) -> dict[str, int]:
    """The sizes in /proc/self/status, in bytes (proc_pid_status(5)); none where there is no such file."""
    return _kilobytes(read_text(root / "proc/self/status"))


def _kilobytes(text: str) -> dict[str, int]:
    lines = (line.split() for line in text.splitlines() if line.endswith("kB"))
    return {words[0].rstrip(":"): int(words[1]) << 10 for words in lines if len(words) == 3 and words[1].isdecimal()}


def _told(sizes: dict[str, int], name: str, file: str) -> int:
    if name not in sizes:
        raise ValueError(f"{file} does not tell {name}, so what is left of its limit is not known")
    return sizes[name]
