"""What a disk may hold after a power loss, by the calls that were made before it.

The contents of a file are safe after its fsync, a name after the fsync of its folder; anything else may be there,
be lost, or be torn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from tests.crash.watch import Call

# A folder's names: file or folder by number.
Names = dict[str, int]
# What is on a disk: path -> contents, None for a folder.
Tree = dict[str, bytes | None]


@dataclass
class _Node:
    """A file or folder: as the running system sees it, and what is safe of it."""

    folder: bool = False
    now: bytes = b""
    safe: bytes = b""
    names: Names = field(default_factory=dict)
    safe_names: Names = field(default_factory=dict)


class Disk:
    """A disk on which calls are made; everything in the folder `top`, which is safe from the start."""

    def __init__(self, top: str) -> None:
        self._top = PurePosixPath(top)
        self._nodes = [_Node(folder=True)]

    def make(self, call: Call) -> None:
        """Do what a call did."""
        if call.name == "fsync":
            node = self._nodes[self._find(call.paths[0])]
            node.safe, node.safe_names = node.now, dict(node.names)
        elif call.name == "write":
            self._nodes[self._find(call.paths[0])].now += call.data
        else:
            self._rename(call.name, *call.paths)

    def _rename(self, name: str, path: str, target: str = "") -> None:
        names, last = self._place(path)
        match name:
            case "create" | "mkdir":
                self._nodes.append(_Node(folder=name == "mkdir"))
                names[last] = len(self._nodes) - 1
            case "unlink" | "rmdir":
                # The note of an attempt is written in another thread, past the watch, and need not be safe.
                names.pop(last, None)
            case "link" | "replace" | "rename":
                into, as_name = self._place(target)
                into[as_name] = names[last] if name == "link" else names.pop(last)

    def tree(self) -> Tree:
        """What the running system sees."""
        return dict(self._walk(0, "", safe=False))

    def losses(self) -> Iterator[tuple[str, Tree]]:
        """What may be left if the power fails now, in words and as it is."""
        yield "all that is not synced is lost", dict(self._walk(0, "", safe=True))
        for number, node in enumerate(self._nodes):
            if node.names != node.safe_names:
                tree = dict(self._walk(0, "", safe=True, but=number))
                yield f"the names of one folder are kept (of {len(node.names)})", tree
        yield "names are kept, contents are not", dict(self._walk(0, "", safe=False, torn=0))
        yield "names are kept, contents are torn at half", dict(self._walk(0, "", safe=False, torn=2))

    def _walk(
        self, number: int, path: str, *, safe: bool, torn: int | None = None, but: int | None = None
    ) -> Iterator[tuple[str, bytes | None]]:
        node = self._nodes[number]
        for name, child in (node.safe_names if safe and number != but else node.names).items():
            inner, place = self._nodes[child], f"{path}/{name}".lstrip("/")
            if inner.folder:
                yield place, None
                yield from self._walk(child, place, safe=safe, torn=torn, but=but)
            elif torn is None:
                yield place, inner.safe if safe else inner.now
            else:
                rest = inner.now[len(inner.safe) :]
                yield place, inner.safe + (rest[: len(rest) // torn] if torn else b"")

    def _place(self, path: str) -> tuple[Names, str]:
        whole = PurePosixPath(path)
        return self._nodes[self._find(str(whole.parent))].names, whole.name

    def _find(self, path: str) -> int:
        number = 0
        for name in PurePosixPath(path).relative_to(self._top).parts:
            number = self._nodes[number].names[name]
        return number


def inside(calls: Iterable[Call], top: str) -> list[Call]:
    """The calls that went well and are about what lies in `top`."""
    return [
        call
        for call in calls
        if not call.failed and all(path == top or PurePosixPath(path).is_relative_to(top) for path in call.paths)
    ]


def below(tree: Mapping[str, bytes | None], folder: str) -> Tree:
    """The part of a tree that lies in a folder."""
    return {path.removeprefix(f"{folder}/"): data for path, data in tree.items() if path.startswith(f"{folder}/")}
