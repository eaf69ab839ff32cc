"""Memory limits and use of control groups, v1 and v2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from msgspec import Struct

from embedmill.engine.machine.procfs import read_text

# cgroup v1 says "no limit" with the largest multiple of a page below 2**63 bytes.
_NO_LIMIT = 1 << 62


class MemoryLimit(Struct, frozen=True, kw_only=True):
    """Memory limit and total use below the limit, in bytes."""

    source: str
    limit_bytes: int
    used_bytes: int

    @property
    def free_bytes(self) -> int:
        """Return what is left, at least 0."""
        return max(0, self.limit_bytes - self.used_bytes)


class _Version(Struct, frozen=True, kw_only=True):
    """File names of a cgroup version, and fields of memory.stat."""

    name: str
    mount: str
    limits: tuple[str, ...]
    usage: str
    # Precedes the fields that count nested groups too.
    prefix: str
    mapped: str
    dirty: tuple[str, ...]


# Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst of the kernel.
_V1 = _Version(
    name="cgroup v1",
    mount="sys/fs/cgroup/memory",
    limits=("memory.limit_in_bytes",),
    usage="memory.usage_in_bytes",
    prefix="total_",
    mapped="mapped_file",
    dirty=("dirty", "writeback"),
)
_V2 = _Version(
    name="cgroup v2",
    mount="sys/fs/cgroup",
    # Above memory.high the kernel throttles a group and reclaims from it, which a run should avoid too.
    limits=("memory.max", "memory.high"),
    usage="memory.current",
    prefix="",
    mapped="file_mapped",
    dirty=("file_dirty", "file_writeback"),
)


def cgroup_limits(root: Path) -> Iterator[MemoryLimit]:
    """Yield limits of this process's control group and ancestors.

    `root` holds /proc and /sys. Raises ValueError where the use of a limited group cannot be read.
    """
    for version, path, file, limit in _limits(root):
        source = f"{version.name} /{'' if path.name == '' else path} ({file})"
        yield MemoryLimit(source=source, limit_bytes=limit, used_bytes=_used(root / version.mount / path, version))


def lowest_cgroup_limit(root: Path) -> int | None:
    """Return the lowest limit, in bytes; None without one."""
    return min((limit for *_, limit in _limits(root)), default=None)


def _limits(root: Path) -> Iterator[tuple[_Version, PurePosixPath, str, int]]:
    # Each limit: the group as a path below the mount, the file, and bytes.
    for version, own in _groups(read_text(root / "proc/self/cgroup")):
        for path in (own, *own.parents):
            for file in version.limits:
                limit = read_text(root / version.mount / path / file)
                if limit.isdecimal() and int(limit) < _NO_LIMIT:
                    yield version, path, file, int(limit)


def _groups(text: str) -> Iterator[tuple[_Version, PurePosixPath]]:
    for line in text.splitlines():
        hierarchy, controllers, path = [*line.split(":", 2), "", ""][:3]
        # A group outside this namespace is shown as /../..; a container mounts its own group as the root.
        own = PurePosixPath() if ".." in path.split("/") else PurePosixPath(path.lstrip("/"))
        if hierarchy == "0" and not controllers:
            yield _V2, own
        elif "memory" in controllers.split(","):
            yield _V1, own


def _used(folder: Path, version: _Version) -> int:
    """Return a group's use without reclaimable page cache."""
    usage = read_text(folder / version.usage)
    if not usage.isdecimal():
        raise ValueError(f"{folder / version.usage} cannot be read, so the rest of the limit is unknown")
    lines = (line.split() for line in read_text(folder / "memory.stat").splitlines())
    stat = {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdecimal()}

    # The kernel charges every file that is read to the group until memory gets scarce: with the page cache a group that
    # only reads would look full (kubernetes/kubernetes issue 43916). Mapped pages (libraries, weights) and dirty ones
    # cannot simply be dropped, and stay counted.
    def of(*names: str) -> int:
        return sum(stat.get(version.prefix + name, 0) for name in names)

    cache = of("inactive_file", "active_file") - of(version.mapped, *version.dirty)
    return max(0, int(usage) - max(0, cache))
