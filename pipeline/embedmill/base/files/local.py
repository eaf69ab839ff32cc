"""Files that are whole or not there at all: the only place that renames, links and syncs.

The order is that of every database: write to a unique temporary name, fsync the file, give it its
final name, fsync the folder. After a failed fsync the file is thrown away and never retried (the
kernel may have dropped its pages: "fsyncgate").
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedmill.base.errors import Corrupt, OutputError

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS})


def write_file(path: Path, data: bytes | memoryview, *, scratch: Path) -> None:
    """Put `data` at `path`, in place of what is there. `scratch` is a folder of the same file system.

    Raises OutputError (disk full, no permission); `path` is then as it was, or gone where only its folder
    could not be synced.
    """
    with _failing_clearly(path), _temporary(scratch, data) as temporary:
        os.replace(temporary, path)
        _sync_name(path)


def publish_file(path: Path, data: bytes | memoryview, *, scratch: Path) -> None:
    """Put `data` at `path`, which must not exist yet: of several writers exactly one succeeds.

    Raises Corrupt if it exists, OutputError as `write_file` does.
    """
    with _failing_clearly(path), _temporary(scratch, data) as temporary:
        try:
            _link(temporary, path)
        except FileExistsError as error:
            raise Corrupt(f"{path} is there already: another run has written to this folder") from error
        _sync_name(path)


def publish_folder(folder: Path, path: Path) -> bool:
    """Give the finished `folder` its final name; False if `path` exists by then. Raises OutputError."""
    with _failing_clearly(path):
        for file in folder.iterdir():
            _sync_file(file)
        sync_folder(folder)
        try:
            folder.rename(path)
        except OSError as error:
            if path.is_dir():
                return False
            raise error
        sync_folder(path.parent)
        return True


def check_writable(path: Path) -> None:
    """Raises OutputError where `write_file` could not put a file at `path`, whose folder must be there."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with _temporary(path.parent, b""):
            return
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}; name another place") from error


def make_folder(path: Path) -> None:
    """Make a folder and those above it, durably. Raises OutputError.

    One that is there is made durable, too: who made it may have been killed before that.
    """
    with _failing_clearly(path):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        _sync_there(missing[-1].parent if missing else path)
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            sync_folder(folder.parent)


def _sync_there(folder: Path) -> None:
    """Make the name of a folder durable that was there before; one above it that cannot be read is not ours."""
    with contextlib.suppress(PermissionError):
        sync_folder(folder.parent)


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there. Raises OutputError."""
    with _failing_clearly(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def sync_names(folder: Path) -> None:
    """Make durable what names in a folder another process may have left unsynced. Raises OutputError."""
    with _failing_clearly(folder):
        sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Windows has no such call; NTFS journals its names."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_name(path: Path) -> None:
    """Make the name of a file durable, or take it back: after a failed sync, a later one may succeed without it."""
    try:
        sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def _temporary(scratch: Path, data: bytes | memoryview) -> Iterator[Path]:
    """A synced file with `data` under a unique name; it is gone when the block ends, whatever happens."""
    path = scratch / f"{uuid.uuid4().hex}.tmp"
    try:
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _link(source: Path, path: Path) -> None:
    """`os.link` is put-if-absent everywhere; a file system without hard links gets an exclusive rename.

    That fallback looks first and renames then, which is safe here because the run lock is held.
    """
    try:
        os.link(source, path)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        if path.exists():
            raise FileExistsError(path) from error
        os.replace(source, path)


@contextmanager
def _failing_clearly(path: Path) -> Iterator[None]:
    """An OSError as one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise OutputError(
                f"no space left to write {path}; everything committed is kept: free some and run again"
            ) from error
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}; everything committed is kept"
        ) from error
