"""The limits of control groups, and what of them is used: cgroup v1 and v2, nested ones too.

Files: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from msgspec import Struct

from embedmill.engine.machine.procfs import read_text

# cgroup v1 says "no limit" with the largest multiple of a page below 2**63 bytes.
_NO_LIMIT = 1 << 62


class Bound(Struct, frozen=True, kw_only=True):
    """One limit on memory, in bytes, and what is used of it by all that it holds for."""

    source: str
    limit_bytes: int
    used_bytes: int

    @property
    def free_bytes(self) -> int:
        """What is left; 0 where more is used than the limit allows."""
        return max(0, self.limit_bytes - self.used_bytes)


class _Version(Struct, frozen=True, kw_only=True):
    """The names of a version's files; `prefix` is before the fields of memory.stat that count groups below too."""

    name: str
    mount: str
    limits: tuple[str, ...]
    usage: str
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
    # Above memory.high a group is slowed down and reclaimed from, which a run should not meet either.
    limits=("memory.max", "memory.high"),
    usage="memory.current",
    prefix="",
    mapped="file_mapped",
    unwritten=("file_dirty", "file_writeback"),
)


def cgroup_bounds(root: Path) -> Iterator[Bound]:
    """Each limit of this process's control group and of those above it; `root` is where /proc and /sys are.

    Raises ValueError where a group has a limit and does not say what it uses.
    """
    for version, path, file, limit in _limits(root):
        source = f"{version.name} /{'' if path.name == '' else path} ({file})"
        yield Bound(source=source, limit_bytes=limit, used_bytes=_used(root / version.mount / path, version))


def cgroup_limit(root: Path) -> int | None:
    """The least of these limits, in bytes; None where there is none."""
    return min((limit for *_, limit in _limits(root)), default=None)


def _limits(root: Path) -> Iterator[tuple[_Version, PurePosixPath, str, int]]:
    """Each limit: its group as a path below the mount, its file, and bytes."""
    for version, own in _groups(read_text(root / "proc/self/cgroup")):
        for path in (own, *own.parents):
            for file in version.limits:
                limit = read_text(root / version.mount / path / file)
                if limit.isdecimal() and int(limit) < _NO_LIMIT:
                    yield version, path, file, int(limit)


def _groups(text: str) -> Iterator[tuple[_Version, PurePosixPath]]:
    """The groups of /proc/self/cgroup that may limit memory, as paths below the mount."""
    for line in text.splitlines():
        hierarchy, controllers, path = [*line.split(":", 2), "", ""][:3]
        # A group outside this namespace is shown as /../..; a container mounts its own group as the root.
        own = PurePosixPath() if ".." in path.split("/") else PurePosixPath(path.lstrip("/"))
        if hierarchy == "0" and not controllers:
            yield _V2, own
        elif "memory" in controllers.split(","):
            yield _V1, own


def _used(folder: Path, version: _Version) -> int:
    """What a group uses without the page cache that the kernel would give up for it.

    The kernel charges every file that is read to the group until memory gets scarce; who counts that as used sees a
    group fill up that only reads (kubernetes/kubernetes issue 43916). What is mapped (libraries, weights) or not yet
    written cannot just be given up, and stays counted.
    """
    usage = read_text(folder / version.usage)
    if not usage.isdecimal():
        raise ValueError(f"{folder / version.usage} cannot be read, so what is left of the limit is not known")
    lines = (line.split() for line in read_text(folder / "memory.stat").splitlines())
    stat = {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdecimal()}

    def of(*names: str) -> int:
        return sum(stat.get(version.prefix + name, 0) for name in names)

    cache = of("inactive_file", "active_file") - of(version.mapped, *version.unwritten)
    return max(0, int(usage) - max(0, cache))
