"""Glob expansion that ends on circular links."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterator
from pathlib import Path


# The standard library's globs follow folders that are linked in a circle again and again.
def expand(pattern: Path) -> Iterator[tuple[Path, str, Path]]:
    """Yield each match of a glob once, in any order.

    Gives the path, its name below the last folder before any magic, and the path without symbolic links. `**` is any
    depth of folders, a last one gives files only. As in a shell, wildcards leave out dot files. Raises OSError.
    """
    root, parts = _split(pattern)
    files_only = parts[-1] == "**"
    entered: set[tuple[Path, int]] = set()
    waiting = [(root, "", (*parts, "*") if files_only else parts)]
    while waiting:
        folder, prefix, left = waiting.pop()
        if not folder.is_dir():
            continue
        real = real_path(folder)
        if (real, len(left)) in entered:
            continue
        entered.add((real, len(left)))
        head, rest = left[0], left[1:]
        if head == "**":
            # `**` matches no folder at all, too.
            waiting.append((folder, prefix, rest))
            rest = left
        for name in _children(folder, "*" if head == "**" else head):
            if rest:
                waiting.append((folder / name, f"{prefix}{name}/", rest))
            elif not (files_only and (folder / name).is_dir()):
                child = folder / name
                yield child, prefix + name, real_path(child) if child.is_symlink() else real / name


def real_path(path: Path) -> Path:
    """Return the path without symbolic links."""
    # Path.resolve raises where links form a circle; opening the file will name it.
    return Path(os.path.realpath(path))


def _split(pattern: Path) -> tuple[Path, tuple[str, ...]]:
    """Split a glob before the first part with magic."""
    parts = pattern.parts
    first = next(at for at, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first]), parts[first:]


def _children(folder: Path, part: str) -> list[str]:
    """List the names in `folder` that match, in descending order."""
    # A plain part needs no listing, which the user may have no right to.
    if not glob.has_magic(part):
        return [part] if os.path.lexists(folder / part) else []
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    dots = part.startswith(".")
    return sorted((name for name in names if fnmatch.fnmatch(name, part) and (dots or name[0] != ".")), reverse=True)
