"""Globs with `**` that end on folders linked in a circle, which the standard library's do not."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterator
from pathlib import Path


def has_magic(path: Path) -> bool:
    """Whether a path has `*`, `?` or `[`."""
    return glob.has_magic(str(path))


def split_pattern(pattern: Path) -> tuple[Path, tuple[str, ...]]:
    """A glob as the folder before the first part with magic, and the parts from there."""
    parts = pattern.parts
    first = next(at for at, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first]), parts[first:]


def expand(root: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    """What matches `parts` below `root`, in any order, each once; `**` stands for any depth of folders.

    As in a shell, wildcards leave out names that begin with a dot; a last `**` gives files only.
    """
    files_only = parts[-1] == "**"
    entered: set[tuple[str, int]] = set()
    waiting = [(root, (*parts, "*") if files_only else parts)]
    while waiting:
        folder, left = waiting.pop()
        state = (str(folder.resolve()), len(left))
        if state in entered or not folder.is_dir():
            continue
        entered.add(state)
        head, rest = left[0], left[1:]
        if head == "**":
            waiting.append((folder, rest))
            waiting += [(below, left) for below in reversed(_children(folder, "*"))]
        elif rest:
            waiting += [(child, rest) for child in reversed(_children(folder, head))]
        else:
            yield from (child for child in _children(folder, head) if not (files_only and child.is_dir()))


def _children(folder: Path, part: str) -> list[Path]:
    if not glob.has_magic(part):
        child = folder / part
        return [child] if os.path.lexists(child) else []
    names = sorted(entry.name for entry in os.scandir(folder))
    return [
        folder / name
        for name in names
        if fnmatch.fnmatch(name, part) and (part.startswith(".") or not name.startswith("."))
    ]
