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


def expand(pattern: Path) -> Iterator[tuple[Path, str, Path]]:
    """What a glob matches, each once, in any order; `**` stands for any depth of folders.

    Gives the path, its name below the last folder before any magic, and the path without symbolic
    links. As in a shell, wildcards leave out names that begin with a dot; a last `**` gives files
    only. Raises OSError.
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
            waiting.append((folder, prefix, rest))
            rest = left
        for name in _children(folder, "*" if head == "**" else head):
            if rest:
                waiting.append((folder / name, f"{prefix}{name}/", rest))
            elif not (files_only and (folder / name).is_dir()):
                child = folder / name
                yield child, prefix + name, real_path(child) if child.is_symlink() else real / name


def real_path(path: Path) -> Path:
    """The path without symbolic links; unlike Path.resolve, it leaves links in a circle to who opens them."""
    return Path(os.path.realpath(path))


def _split(pattern: Path) -> tuple[Path, tuple[str, ...]]:
    """A glob as the folder before the first part with magic, and the parts from there."""
    parts = pattern.parts
    first = next(at for at, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first]), parts[first:]


def _children(folder: Path, part: str) -> list[str]:
    """Names in `folder` that one part of a glob matches, in descending order."""
    if not glob.has_magic(part):
        return [part] if os.path.lexists(folder / part) else []
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    dots = part.startswith(".")
    return sorted((name for name in names if fnmatch.fnmatch(name, part) and (dots or name[0] != ".")), reverse=True)
