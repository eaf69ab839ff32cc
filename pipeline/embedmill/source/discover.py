"""Turns the paths of a config into the list of input files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from msgspec import Struct

from embedmill.base.config import InputTable
from embedmill.base.errors import InputError
from embedmill.base.records import InputFile
from embedmill.base.signals import checkpoint
from embedmill.source.digest import digests
from embedmill.source.globbing import expand, has_magic, real_path

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}


class _Found(Struct, frozen=True):
    """A file before it is read: `real` is its path without symbolic links."""

    path: str
    name: str
    real: str
    size_bytes: int


def discover(config: InputTable) -> list[InputFile]:
    """The files that `config.paths` name: in the order of the paths, and by name within each path.

    A folder is searched recursively for files with a known ending, leaving out names that begin with
    `.` or `_`. A glob's files and a file named as such must have a known ending unless
    `config.format` says what they are. A file found twice is kept once.

    Raises InputError where a path matches nothing, names what is no readable regular file or has an
    unknown ending, and where two files would have the same name.
    """
    if not config.paths:
        raise InputError("no input is named; set `input.paths` in the config, or give --input")
    found: dict[str, _Found] = {}
    for pattern in config.paths:
        for item in sorted(_matches(pattern, config.format), key=lambda item: item.name):
            found.setdefault(item.real, item)
    items = list(found.values())
    _refuse_equal_names(items)
    return _identified(items, config.format)


def kind(name: str, wanted: str = "auto") -> tuple[str, str] | None:
    """The (format, compression) of a file by its name; None where the ending says nothing known.

    A `wanted` format other than "auto" is taken as said; only the compression goes by the ending then.
    """
    path = PurePath(name.lower())
    compression = COMPRESSIONS.get(path.suffix, "")
    ending = PurePath(path.stem).suffix if compression else path.suffix
    if wanted != "auto":
        return wanted, "" if wanted == "parquet" else compression
    found = FORMATS.get(ending)
    return None if found is None or (found == "parquet" and compression) else (found, compression)


def _matches(pattern: str, wanted: str) -> list[_Found]:
    """What one path names, in any order."""
    if not pattern.strip():
        raise InputError("an input path is empty; name a file, a folder or a glob")
    if "://" in pattern:
        raise InputError(f"{pattern}: only local files are read; copy the data to a local folder first")
    try:
        items = list(_located(pattern, wanted))
    except OSError as error:
        raise InputError(f"{error.filename or pattern}: cannot be read: {error.strerror}") from error
    if not items:
        raise InputError(f"{pattern}: nothing to read there; {_endings(wanted)}")
    return items


def _located(pattern: str, wanted: str) -> Iterator[_Found]:
    path = Path(pattern).expanduser() if pattern.startswith("~/") else Path(pattern)
    if path.is_dir():
        yield from _in_folder(path, "", wanted)
    elif os.path.lexists(path):
        yield _explicit(path, path.name, real_path(path), wanted)
    elif has_magic(path):
        for match, name, real in expand(path):
            if match.is_dir():
                yield from _in_folder(match, f"{name}/", wanted)
            else:
                yield _explicit(match, name, real, wanted)
    else:
        raise InputError(f"{pattern}: no such file or folder; check the path, and the folder the command runs in")


def _explicit(path: Path, name: str, real: Path, wanted: str) -> _Found:
    found = _found(str(path), name, str(real), path.stat())
    if kind(name, wanted) is None:
        raise InputError(f"{path}: its ending is not known; {_endings(wanted)}, so set `input.format`")
    return found


def _in_folder(folder: Path, prefix: str, wanted: str) -> Iterator[_Found]:
    """The files with a known ending in `folder` and below; each real folder is entered once.

    A folder below that is an output of embedmill is left out, so that an output may lie in its input.
    """
    entered: set[Path] = set()
    waiting = [(folder, prefix)]
    while waiting:
        checkpoint()
        folder, prefix = waiting.pop()
        real = real_path(folder)
        if real in entered or (entered and (folder / "_ledger").is_dir()):
            continue
        entered.add(real)
        below, files = _listing(folder)
        waiting += [(folder / name, f"{prefix}{name}/") for name in reversed(below)]
        for entry in files:
            known = kind(entry.name)
            if known is not None and wanted in ("auto", known[0]):
                target = real_path(Path(entry.path)) if entry.is_symlink() else real / entry.name
                yield _found(entry.path, prefix + entry.name, str(target), entry.stat())


def _listing(folder: Path) -> tuple[list[str], list[os.DirEntry[str]]]:
    """The sorted names of the folders in `folder`, and the other entries."""
    with os.scandir(folder) as entries:
        shown = [entry for entry in entries if not entry.name.startswith((".", "_"))]
    below = sorted(entry.name for entry in shown if entry.is_dir())
    return below, [entry for entry in shown if not entry.is_dir()]


def _found(path: str, name: str, real: str, status: os.stat_result) -> _Found:
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: not a regular file; only regular files are read, so leave it out")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{path!r}: the file name is not valid UTF-8; rename the file") from error
    return _Found(path, name, real, status.st_size)


def _endings(wanted: str) -> str:
    known = ", ".join(ending for ending, found in FORMATS.items() if wanted in ("auto", found))
    packed = "" if wanted == "parquet" else f" (text also with {' or '.join(COMPRESSIONS)})"
    return f"known endings are {known}{packed}"


def _refuse_equal_names(items: Iterable[_Found]) -> None:
    by_name: dict[str, _Found] = {}
    for item in items:
        other = by_name.setdefault(item.name, item)
        if other is not item:
            raise InputError(
                f"{other.path} and {item.path} would both be named {item.name!r}; give their common parent"
                " folder in `input.paths` instead"
            )


def _identified(items: list[_Found], wanted: str) -> list[InputFile]:
    try:
        marks = digests([(item.path, item.size_bytes) for item in items])
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read: {error.strerror}; check permissions") from error
    return [_input_file(item, wanted, mark) for item, mark in zip(items, marks, strict=True)]


def _input_file(item: _Found, wanted: str, mark: str) -> InputFile:
    known = kind(item.name, wanted)
    assert known is not None, "files of unknown kind are refused when found"
    return InputFile(
        path=item.path,
        name=item.name,
        format=known[0],
        compression=known[1],
        size_bytes=item.size_bytes,
        digest=mark,
    )
