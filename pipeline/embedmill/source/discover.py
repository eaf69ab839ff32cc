"""Discovery of input files."""

from __future__ import annotations

import glob
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path, PurePath

from msgspec import Struct

from embedmill.base.config import InputTable
from embedmill.base.errors import InputError
from embedmill.base.files.names import beyond_limit
from embedmill.base.records import InputFile
from embedmill.base.signals import checkpoint
from embedmill.source.compression import COMPRESSIONS, split_ending
from embedmill.source.digest import with_digests
from embedmill.source.formats import FORMATS
from embedmill.source.globbing import expand, real_path
from embedmill.source.partitions import partitioned

_FORMAT_OF_ENDING = {ending: name for name, format in FORMATS.items() for ending in format.ENDINGS}
_OUTPUT = "output of embedmill"
_HIDDEN_FOLDER = "hidden folder"
# Folders in which table formats keep their log. Data files of such a table may hold deleted and replaced rows.
_LOGS_OF_TABLES = {"_delta_log": "Delta Lake", ".hoodie": "Hudi"}
# A file whose digest is still to be made, and its path without symbolic links.
_Found = tuple[InputFile, str]


class Discovered(Struct, frozen=True):
    """Input files, and files of other kinds."""

    files: list[InputFile]
    left_out: dict[str, int]  # files by kind: `.md`, `no ending`, `hidden .jsonl`


def discover(config: InputTable) -> Discovered:
    """List the input files, sorted by name within each path.

    A folder is searched recursively for files with a known ending, and for those with an unknown one if
    `config.format` gives the format; names that begin with `.` or `_` are left out. A glob's files and a file named as
    such must have a known ending unless `config.format` gives the format. A file found twice is kept once. Raises
    InputError where a path matches nothing, names what is no readable regular file or has an unknown ending, and where
    two files would have the same name.
    """
    if not config.paths:
        raise InputError("no input is named; set `input.paths` in the config, or give --input")
    found: dict[str, InputFile] = {}
    left_out: Counter[str] = Counter()
    for pattern in config.paths:
        for file, real in sorted(_matches(pattern, config.format, left_out), key=lambda match: match[0].name):
            found.setdefault(real, file)
    files = list(found.values())
    _refuse_equal_names(files)
    return Discovered(with_digests(files), dict(sorted(left_out.items())))


def _format_and_compression(name: str, wanted: str) -> tuple[str, str] | None:
    """Return format and compression by a file's ending."""
    # A format that the config names wins over the ending, but for the compression.
    ending, packed = split_ending(name)
    format = _FORMAT_OF_ENDING.get(ending) if wanted == "auto" else wanted
    if format is None or (packed and not FORMATS[format].COMPRESSIBLE):
        return None if wanted == "auto" else (wanted, "")
    return format, COMPRESSIONS.get(packed, "")


def _matches(pattern: str, wanted: str, left_out: Counter[str]) -> list[_Found]:
    if not pattern.strip():
        raise InputError("an input path is empty; name a file, a folder or a glob")
    if "://" in pattern:
        raise InputError(f"{pattern}: only local files are read; copy the data to a local folder first")
    try:
        items = list(_located(pattern, wanted, left_out))
    except OSError as error:
        path = Path(error.filename or pattern)
        raise InputError(f"{path}: cannot be read: {beyond_limit(path) or error.strerror}") from error
    if not items:
        others = f" ({', '.join(left_out)} is left out)" if left_out else ""
        raise InputError(f"{pattern}: nothing to read there{others}; {_endings(wanted)}")
    return items


def _located(pattern: str, wanted: str, left_out: Counter[str]) -> Iterator[_Found]:
    path = Path(pattern)
    # Not `./~`, a folder of that name.
    if pattern.startswith("~") and path.parts[0] == "~":
        path = path.expanduser()
    if path.is_dir():
        yield from _in_folder(path, "", wanted, left_out)
    # Existing paths come before globs: a file may well be named `a[1].jsonl`.
    elif os.path.lexists(path):
        yield _explicit(path, path.name, real_path(path), wanted)
    elif glob.has_magic(str(path)):
        # Many files share a folder.
        is_output = cache(_is_output)
        for match, name, real in expand(path):
            if any(map(is_output, _found_folders(match, name))):
                left_out[_OUTPUT] += 1
            elif match.is_dir():
                yield from _in_folder(match, f"{name}/", wanted, left_out)
            else:
                yield _explicit(match, name, real, wanted)
    else:
        remedy = beyond_limit(path) or "check the path, and the folder the command runs in"
        raise InputError(f"{pattern}: no such file or folder; {remedy}")


def _is_output(folder: Path) -> bool:
    return (folder / "_ledger").is_dir()


def _found_folders(path: Path, name: str) -> list[Path]:
    """List a match and the folders below the wildcard."""
    return [path, *path.parents][: len(PurePath(name).parts)]


def _explicit(path: Path, name: str, real: Path, wanted: str) -> _Found:
    known = _format_and_compression(name, wanted)
    found = _found(str(path), name, str(real), path.stat(), known or ("", ""))
    if known is None:
        raise InputError(f"{path}: its ending is not known; {_endings(wanted)}, so set `input.format`, or name less")
    return found


def _in_folder(folder: Path, prefix: str, wanted: str, left_out: Counter[str]) -> Iterator[_Found]:
    """Yield readable files in `folder` and below; count others."""
    entered: set[Path] = set()
    waiting = [(folder, prefix)]
    while waiting:
        checkpoint()
        folder, prefix = waiting.pop()
        real = real_path(folder)
        # Links may form a circle, and an output of embedmill may lie in its own input.
        if real in entered:
            continue
        if entered and _is_output(folder):
            left_out[_OUTPUT] += 1
            continue
        entered.add(real)
        subfolders, files = _listing(folder)
        _refuse_table(folder, subfolders)
        shown = [name for name in subfolders if not _is_hidden(name)]
        if len(shown) < len(subfolders):
            left_out[_HIDDEN_FOLDER] += len(subfolders) - len(shown)
        waiting += [(folder / name, f"{prefix}{name}/") for name in reversed(shown)]
        for entry in files:
            known, kind = _in_folder_as(entry.name, wanted)
            if known is not None:
                # A symbolic link costs a system call to resolve; most entries are none.
                target = real_path(Path(entry.path)) if entry.is_symlink() else real / entry.name
                yield _found(entry.path, prefix + entry.name, str(target), entry.stat(), known)
            elif kind:
                left_out[kind] += 1


def _in_folder_as(name: str, wanted: str) -> tuple[tuple[str, str] | None, str]:
    """Return format and compression, or the kind left out."""
    ending, packed = split_ending(name)
    own = _FORMAT_OF_ENDING.get(ending)
    if _is_hidden(name):
        # `_SUCCESS` and `.part-0.crc` are no data, and no news.
        return None, f"hidden {ending}{packed}" if own else ""
    known = _format_and_compression(name, wanted) if wanted == "auto" or own in (wanted, None) else None
    return known, "" if known else ending + packed or "no ending"


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def _refuse_table(folder: Path, subfolders: Sequence[str]) -> None:
    """Raise InputError for a table of Delta, Hudi or Iceberg."""
    kinds = [kind for name, kind in _LOGS_OF_TABLES.items() if name in subfolders]
    if "metadata" in subfolders and any((folder / "metadata").glob("*.metadata.json")):
        kinds.append("Iceberg")
    if kinds:
        raise InputError(
            f"{folder} is a table of {kinds[0]}, whose files may hold rows that were deleted or replaced; export it to"
            f" Parquet first, or name its files: {folder / '**' / '*.parquet'}"
        )


def _listing(folder: Path) -> tuple[list[str], list[os.DirEntry[str]]]:
    """List names of subfolders, sorted, and all other entries."""
    with os.scandir(folder) as entries:
        shown = list(entries)
    subfolders = sorted(entry.name for entry in shown if entry.is_dir())
    return subfolders, [entry for entry in shown if not entry.is_dir()]


def _found(path: str, name: str, real: str, status: os.stat_result, known: tuple[str, str]) -> _Found:
    # Opening a pipe would wait for a writer, and a device may never end.
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: not a regular file; only regular files are read, so leave it out")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{path!r}: the file name is not valid UTF-8; rename the file") from error
    format, compression = known
    file = InputFile(
        path=path,
        name=partitioned(path, name),
        format=format,
        compression=compression,
        size_bytes=status.st_size,
        digest="",
    )
    return file, real


def _endings(wanted: str) -> str:
    known = ", ".join(ending for ending, format in _FORMAT_OF_ENDING.items() if wanted in ("auto", format))
    compressible = wanted == "auto" or FORMATS[wanted].COMPRESSIBLE
    packed = f" (text also with {', '.join(COMPRESSIONS)})" if compressible else ""
    return f"known endings are {known}{packed}"


def _refuse_equal_names(files: Sequence[InputFile]) -> None:
    by_name: dict[str, InputFile] = {}
    for file in files:
        other = by_name.setdefault(file.name, file)
        if other is not file:
            raise InputError(
                f"{other.path} and {file.path} would both be named {file.name!r}; give their common parent"
                " folder in `input.paths` instead"
            )
