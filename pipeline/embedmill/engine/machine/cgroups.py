"""Read memory limits and use of (nested) control groups.

Files of v1 and v2: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from msgspec import Struct

from embedmill.engine.machine.procfs import read_text

# cgroup v1 says "no limit" with the largest multiple of a page below 2**63 bytes.
_NO_LIMIT = 1 << 62


class Bound(Struct, frozen=True, kw_only=True):
    """One memory limit and the use counted against that limit."""

    source: str
    limit_bytes: int
    used_bytes: int

    @property
    def free_bytes(self) -> int:
        """Bytes below the limit; 0 where use exceeds the limit."""
        return max(0, self.limit_bytes - self.used_bytes)


class _Version(Struct, frozen=True, kw_only=True):
    """File names of a cgroup version."""

    name: str
    mount: str
    limits: tuple[str, ...]
    usage: str
    # Before the fields of memory.stat that include child groups.
    prefix: str
    mapped: str
    unwritten: tuple[str, ...]


_V1 = _Version(
    name="cgroup v1",
    mount="sys/fs/cgroup/memory",
    limits=("memory.limit_in_bytes",),
    usage="memory.usage_in_bytes",
    prefix="total_",
    mapped="mapped_file",
    unwritten=("dirty", "writeback"),
)
_V2 = _Version(
    name="cgroup v2",
    mount="sys/fs/cgroup",
    # Above memory.high the kernel throttles a group and reclaims its pages, which a run should avoid too.
    limits=("memory.max", "memory.high"),
    usage="memory.current",
    prefix="",
    mapped="file_mapped",
    unwritten=("file_dirty", "file_writeback"),
)


def cgroup_bounds(root: Path) -> Iterator[Bound]:
    """Yield the limits of this process's group and all ancestors.

    `root` holds /proc and /sys. Raises ValueError where a group with a limit does not report its use.
    """
    for version, path, file, limit in _limits(root):
        source = f"{version.name} /{'' if path.name == '' else path} ({file})"
        yield Bound(source=source, limit_bytes=limit, used_bytes=_used(root / version.mount / path, version))


def cgroup_limit(root: Path) -> int | None:
    """Return the least limit in bytes; None without one."""
    return min((limit for *_, limit in _limits(root)), default=None)


def _limits(root: Path) -> Iterator[tuple[_Version, PurePosixPath, str, int]]:
    """Yield (version, group below mount, file, bytes) per limit."""
    for version, own in _groups(read_text(root / "proc/self/cgroup")):
        for path in (own, *own.parents):
            for file in version.limits:
                limit = read_text(root / version.mount / path / file)
                if limit.isdecimal() and int(limit) < _NO_LIMIT:
                    yield version, path, file, int(limit)


def _groups(text: str) -> Iterator[tuple[_Version, PurePosixPath]]:
    """Yield the groups of /proc/self/cgroup that may limit memory."""
    for line in text.splitlines():
        hierarchy, controllers, path = [*line.split(":", 2), "", ""][:3]
        # A group outside this namespace is shown as /../..; a container mounts its own group as the root.
        own = PurePosixPath() if ".." in path.split("/") else PurePosixPath(path.lstrip("/"))
        if hierarchy == "0" and not controllers:
            yield _V2, own
        elif "memory" in controllers.split(","):
            yield _V1, own


def _used(folder: Path, version: _Version) -> int:
    """Return the bytes in use, without reclaimable page cache."""
    usage = read_text(folder / version.usage)
    if not usage.isdecimal():
        raise ValueError(f"{folder / version.usage} cannot be read, so the memory left below the limit is unknown")
    lines = (line.split() for line in read_text(folder / "memory.stat").splitlines())
    stat = {fields[0]: int(fields[1]) for fields in lines if len(fields) == 2 and fields[1].isdecimal()}

    def total(*names: str) -> int:
        return sum(stat.get(version.prefix + name, 0) for name in names)

    # The kernel charges every file that is read to the group until memory gets scarce: counted as used, a group that
    # only reads would fill up (kubernetes/kubernetes issue 43916). Mapped pages (libraries, weights) and pages not yet
    # written cannot be dropped at once, and stay counted.
    cache = total("inactive_file", "active_file") - total(version.mapped, *version.unwritten)
    return max(0, int(usage) - max(0, cache))
