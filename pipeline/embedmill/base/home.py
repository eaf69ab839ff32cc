"""Home of models and measurements, and JSON records there."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from platformdirs import user_cache_path

from embedmill.base.errors import OutputError
from embedmill.base.files import local
from embedmill.base.files.names import is_utf8
from embedmill.base.files.sealed import read_regular

LOG = logging.getLogger("embedmill")
Record = TypeVar("Record", bound=msgspec.Struct)

VARIABLE = "EMBEDMILL_HOME"
_REMEDY = f"; set {VARIABLE} to a folder that can be written"


def key_of(parts: Any) -> str:
    """Hash a JSON value to a cache key."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def read_record(path: Path, kind: type[Record]) -> Record | None:
    """Read a cached record; None if absent or unreadable."""
    try:
        return msgspec.json.decode(read_regular(path), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        # A cache only saves time: a record that another version wrote is measured again, not an error.
        LOG.warning("%s is damaged or of another version, and will be replaced (%s)", path, error)
        return None


def write_record(path: Path, record: msgspec.Struct) -> None:
    """Cache a record; log a warning where that fails."""
    for home in homes():
        if path.is_relative_to(home):
            path = home_folder() / path.relative_to(home)
    try:
        local.make_folder(path.parent)
        local.write_file(path, msgspec.json.format(msgspec.json.encode(record)), scratch=path.parent)
    except OutputError as error:
        LOG.warning("a measurement is not kept: %s%s", error, _REMEDY)


def home_folder() -> Path:
    """Return the folder for new models and measurements. Raises OutputError."""
    return homes()[-1]


def in_home(*parts: str) -> Path:
    """Find a path in a home, or name another."""
    # What was made since comes before what cannot be changed.
    paths = [home.joinpath(*parts) for home in reversed(homes())]
    return next((path for path in paths if os.path.lexists(path)), paths[0])


def homes() -> list[Path]:
    """List folders of models and measurements, the writable one last.

    That is `$EMBEDMILL_HOME` or the user's cache folder; where it cannot be written, a private folder of the system's
    temporary folder comes after it. Raises OutputError where there is none.
    """
    if given := os.environ.get(VARIABLE):
        if not is_utf8(given):
            raise OutputError(f"{given!r} is not valid UTF-8{_REMEDY}")
        return [Path(given)]
    own = _users_folder()
    if own is not None and _may_write(own):
        return [own]
    return _with_private_folder(own)


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder in the home. Raises OutputError."""
    # Below it, because publishing is a rename.
    with _naming_the_variable(), local.scratch_folder(folder) as scratch:
        yield scratch


def temporary_folder() -> Path:
    """Return a folder for temporary files. Raises OutputError."""
    # The home stands in for a system without one.
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        folder = home_folder() / "temporary"
        with _naming_the_variable():
            local.make_folder(folder)
        return folder


@contextmanager
def _naming_the_variable() -> Iterator[None]:
    try:
        yield
    except OutputError as error:
        raise OutputError(f"{error}{_REMEDY}" if VARIABLE not in str(error) else str(error)) from error


def _users_folder() -> Path | None:
    """Return the folder in the user's cache, if usable."""
    try:
        own = user_cache_path("embedmill", appauthor=False)
    except RuntimeError:
        return None
    # Earlier versions of platformdirs leave `~` as it is.
    return own if own.is_absolute() and is_utf8(own) else None


def _may_write(folder: Path) -> bool:
    """Tell if a folder can be written or made."""
    there = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), folder)
    return _allows(there, os.W_OK)


def _allows(folder: Path, mode: int) -> bool:
    # The dot is found in a folder only, not in a file.
    return os.access(f"{folder}/.", mode | os.X_OK)


def _with_private_folder(own: Path | None) -> list[Path]:
    """List a readable home and a private one. Raises OutputError."""
    problem = "there is no home folder" if own is None else f"{own} cannot be written"
    read_only = [own] if own is not None and _allows(own, os.R_OK) else []
    try:
        private = _private_folder()
    except OSError as error:
        if read_only:
            return read_only
        raise OutputError(
            f"{problem}, and no private folder can be made for temporary files ({error.strerror or error}){_REMEDY}"
        ) from error
    _warn(f"{problem}, so models and measurements are in {private}{_REMEDY}")
    return [*read_only, private]


def _private_folder() -> Path:
    """Make the user's own folder of temporary files. Raises OSError."""
    user = getattr(os, "geteuid", int)()
    folder = Path(tempfile.gettempdir()) / f"embedmill-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    # Anybody may make a folder or a link of this name first, and put models of their own into it.
    if not stat.S_ISDIR(found.st_mode) or (os.name != "nt" and (found.st_uid != user or found.st_mode & 0o077)):
        raise PermissionError(errno.EPERM, f"{folder} is not a folder of this user alone")
    return folder


@cache
def _warn(sentence: str) -> None:
    LOG.warning("%s", sentence)
