"""Failures of file systems, of POSIX and Windows."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable

# A quota that is used up reports EDQUOT instead. FAT, some network and some container file systems have no hard links.
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS})
# Windows' own numbers of the same, most of which Python turns into that of an invalid argument: ERROR_HANDLE_DISK_FULL
# and ERROR_DISK_FULL; ERROR_INVALID_FUNCTION, ERROR_NOT_SUPPORTED and ERROR_TOO_MANY_LINKS.
_WINDOWS_DISK_FULL = frozenset({39, 112})
_WINDOWS_NO_HARD_LINKS = frozenset({1, 50, 1142})
# ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION and ERROR_LOCK_VIOLATION: a virus scanner, a backup or an indexer reads
# the file for a moment. Pauses double from 5 ms, 5 s in all.
_WINDOWS_HELD = frozenset({5, 32, 33})
_PAUSES_S = tuple(0.005 * 2**number for number in range(10))


def is_disk_full(error: OSError) -> bool:
    """Tell if a disk or quota is full."""
    return error.errno in _DISK_FULL or _windows_number(error) in _WINDOWS_DISK_FULL


def has_no_hard_links(error: OSError) -> bool:
    """Tell if a file system has no hard links."""
    return error.errno in _NO_HARD_LINKS or _windows_number(error) in _WINDOWS_NO_HARD_LINKS


def patiently(act: Callable[[], object], *, unless: Callable[[], bool] = lambda: False) -> None:
    """Try again while another program holds a file (Windows)."""
    for pause_s in _PAUSES_S:
        try:
            act()
        except OSError as error:
            if _windows_number(error) not in _WINDOWS_HELD or unless():
                raise
            time.sleep(pause_s)
        else:
            return
    act()


def _windows_number(error: OSError) -> int | None:
    return getattr(error, "winerror", None)
