"""Atomic, durable writes; only this module renames, links and syncs."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import stat
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

from embedmill.base.errors import Corrupt, OutputError
from embedmill.base.files.failures import has_no_hard_links, is_disk_full, patiently

if sys.platform != "win32":
    import fcntl

LOG = logging.getLogger("embedmill")
# The order is that of every database: write a temporary file of a unique name, fsync, rename, fsync the folder.

# `kept` of these functions is for the error: what a user need not fear for.

_LINK_TAGS = frozenset({getattr(stat, f"IO_REPARSE_TAG_{kind}", None) for kind in ("SYMLINK", "MOUNT_POINT")} - {None})
_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
_SCRATCH, _STALE_S = ".new-", 6 * 3600


class Pin(NamedTuple):
    """File or folder that is held."""

    path: Path
    descriptor: int | None
    place: tuple[int, int]  # device and inode


def write_file(path: Path, data: bytes | memoryview, *, scratch: Path, kept: str = "") -> None:
    """Write a file atomically, replacing any. Raises OutputError."""
    # `scratch` is a folder of the same file system. After an error (disk full, no permission) `path` is unchanged, or
    # removed where only the sync of its folder failed.
    with _failing_clearly(path, kept), _temporary(scratch, data) as temporary:
        patiently(lambda: os.replace(temporary, path))
        _sync_name(path)


def publish_file(path: Path, data: bytes | memoryview, *, scratch: Path, kept: str = "") -> None:
    """Write a new file, put-if-absent. Raises Corrupt or OutputError."""
    # Of several writers exactly one succeeds.
    with _failing_clearly(path, kept), _temporary(scratch, data) as temporary:
        try:
            _link(temporary, path)
        except FileExistsError as error:
            raise Corrupt(f"{path} exists already, and this run did not write it; move it elsewhere") from error
        _sync_name(path)


def write_note(path: Path, data: bytes) -> None:
    """Write a small file in place, without syncing. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        # A link, or another name of the file, is not written through.
        if stat.S_ISLNK(found.st_mode) or (stat.S_ISREG(found.st_mode) and found.st_nlink > 1):
            path.unlink()
        elif not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path} is not a regular file")
    path.write_bytes(data)


def is_flocked(path: Path) -> bool:
    """Return whether a file is locked. Raises OSError."""
    # Shared and for an instant, on a descriptor that only reads: nothing is changed.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def publish_folder(folder: Path, path: Path) -> bool:
    """Sync and rename a folder, unless `path` exists. Raises OutputError."""
    with _failing_clearly(path):
        for file in folder.iterdir():
            # rb+: Windows does not sync a file that is open for reading only.
            with file.open("rb+") as synced:
                os.fsync(synced.fileno())
        _sync_folder(folder)
        try:
            patiently(lambda: folder.rename(path), unless=path.is_dir)
        except OSError as error:
            # The error number of an existing folder differs by platform.
            if path.is_dir():
                return False
            raise error
        _sync_folder(path.parent)
        return True


def check_writable(path: Path) -> None:
    """Raise OutputError unless `path`, in an existing folder, is writable."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        # What is written replaces it.
        if path.exists() and not path.is_file():
            raise OSError("it is not a regular file")
        with _temporary(path.parent, b""):
            return
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}; choose another place") from error


def make_folder(path: Path, *, kept: str = "") -> None:
    """Create a folder and parents durably. Raises OutputError."""
    with _failing_clearly(path, kept):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        # A process killed before its sync may have created the last one that exists. A folder above it
        # that cannot be read belongs to somebody else, and was not created by us.
        with contextlib.suppress(PermissionError):
            _sync_folder((missing[-1].parent if missing else path).parent)
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            _sync_folder(folder.parent)


def pin(path: Path) -> Pin:
    """Hold a file or folder for `is_pinned`. Raises OSError."""
    # Open, because some network file systems number anew what nobody holds. Windows holds no folder open.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW) if os.name != "nt" else None
    found = os.fstat(descriptor) if descriptor is not None else path.lstat()
    return Pin(path, descriptor, (found.st_dev, found.st_ino))


def is_pinned(pin: Pin) -> bool:
    """Return whether a path leads to what was pinned."""
    try:
        found = pin.path.lstat()
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == pin.place


def unpin(pin: Pin) -> None:
    """Let go of a file or folder."""
    if pin.descriptor is not None:
        os.close(pin.descriptor)


def no_folder(path: Path) -> str | None:
    """Describe a link or file in place of a folder."""
    try:
        found = path.lstat()
    except OSError:
        return None
    # On Windows a junction is a folder with a tag.
    if stat.S_ISLNK(found.st_mode) or getattr(found, "st_reparse_tag", 0) in _LINK_TAGS:
        return "a link"
    return None if stat.S_ISDIR(found.st_mode) else "not a folder"


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder below `folder`. Raises OutputError."""
    make_folder(folder)
    for old in folder.glob(f"{_SCRATCH}*"):
        # Of a process that was killed: none takes so long.
        with contextlib.suppress(OSError):
            if no_folder(old) is None and time.time() - old.stat().st_mtime > _STALE_S:
                shutil.rmtree(old, ignore_errors=True)
    with _failing_clearly(folder):
        scratch = tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=folder, ignore_cleanup_errors=True)
    with scratch as name:
        yield Path(name)


def remove(path: Path, *, kept: str = "") -> None:
    """Remove a file or folder, if present. Raises OutputError."""
    with _failing_clearly(path, kept):
        if path.is_dir() and not path.is_symlink():
            patiently(lambda: shutil.rmtree(path))
        else:
            patiently(lambda: path.unlink(missing_ok=True))


def retire(folder: Path, scratch: Path) -> None:
    """Move a folder below `scratch`, to be removed."""
    # Windows leaves one where it is that somebody uses.
    with contextlib.suppress(OSError):
        folder.rename(scratch / f"{_SCRATCH}{uuid.uuid4().hex}")


def sync_names(folder: Path, *, kept: str = "") -> None:
    """Sync names left by another process. Raises OutputError."""
    with _failing_clearly(folder, kept):
        _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    # Windows cannot sync a folder; NTFS journals names.
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FUSE file systems sync names by themselves, or not at all.
        if error.errno not in _NO_FOLDER_SYNC:
            raise
        _warn_of_folder_sync(folder.stat().st_dev)
    finally:
        os.close(descriptor)


@cache
def _warn_of_folder_sync(device: int) -> None:
    # Once for each file system.
    LOG.warning("the file system of the output syncs no folders: a power loss may take back the last names written")


def _sync_name(path: Path) -> None:
    """Sync the name of a file, or remove the file."""
    try:
        _sync_folder(path.parent)
    except OSError:
        # Never retried: the kernel may have dropped the pages, and a later fsync succeeds without them ("fsyncgate").
        with contextlib.suppress(OSError):
            path.unlink()
        raise


@contextmanager
def _temporary(scratch: Path, data: bytes | memoryview) -> Iterator[Path]:
    """Write and sync a uniquely named file; remove on leaving."""
    path = scratch / f"{uuid.uuid4().hex}.tmp"
    try:
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield path
    finally:
        # os.replace has moved the file away. The next run removes what is held for long.
        with contextlib.suppress(PermissionError):
            patiently(lambda: path.unlink(missing_ok=True))


def _link(source: Path, path: Path) -> None:
    try:
        patiently(lambda: os.link(source, path))
    except OSError as error:
        if not has_no_hard_links(error):
            raise
        # Check and rename are two steps without hard links; safe here, because the run lock is held.
        if path.exists():
            raise FileExistsError(path) from error
        patiently(lambda: os.replace(source, path))


@contextmanager
def _failing_clearly(path: Path, kept: str = "") -> Iterator[None]:
    """Raise an OSError as OutputError, which names what is `kept`."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            problem = f"no space left to write {path}; {kept or 'what was there'} is kept: free some and run again"
        else:
            problem = f"{path} cannot be written: {error.strerror or error}{f'; {kept} is kept' if kept else ''}"
        raise OutputError(problem) from error
