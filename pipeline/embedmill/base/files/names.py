"""Names of files and folders."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

# What Windows allows in no name, and names of its devices, with any ending.
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\0-\x1f]')
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.IGNORECASE | re.DOTALL)
_LONGEST_OF_WINDOWS = 259
# Before such a path Windows has no limit.
_UNLIMITED = "\\\\?\\"


def is_utf8(path: str | os.PathLike[str]) -> bool:
    """Tell if a path is valid UTF-8."""
    # Native libraries take no other. Python decodes other bytes to lone surrogates.
    return not any("\ud800" <= character <= "\udfff" for character in os.fspath(path))


def beyond_limit(path: Path, *, room: int = 0) -> str:
    """Describe why Windows takes no path so long, if so.

    `room` is for names of so many characters below the path.
    """
    limit, absolute = longest_path(), str(path.absolute())
    if limit is None or len(absolute) + room <= limit or str(path).startswith(_UNLIMITED):
        return ""
    return (
        f"Windows takes paths of {limit} characters here, and this needs {len(absolute) + room}; choose a shorter one,"
        f" write it as {_UNLIMITED}{absolute}, or set LongPathsEnabled in the registry"
    )


def longest_path() -> int | None:
    """Return the characters of the longest path, None without limit."""
    if sys.platform != "win32":
        return None
    import ctypes

    enabled = getattr(ctypes.WinDLL("ntdll"), "RtlAreLongPathsEnabled", None)
    if enabled is not None:
        enabled.restype = ctypes.c_ubyte
    return None if enabled is not None and enabled() else _LONGEST_OF_WINDOWS


def is_portable(name: str) -> bool:
    """Tell if every system takes a file's name."""
    return not (_FORBIDDEN.search(name) or _DEVICE.fullmatch(name) or name.endswith((".", " ")))


def portable(name: str) -> str:
    """Replace what some system forbids in names."""
    return f"{'_' if _DEVICE.fullmatch(name) else ''}{_FORBIDDEN.sub('_', name)}"
