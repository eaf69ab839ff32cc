"""Names of files and folders."""

from __future__ import annotations

import os
import re

# What Windows allows in no name, and names of its devices, with any ending.
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\0-\x1f]')
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.IGNORECASE | re.DOTALL)


def is_utf8(path: str | os.PathLike[str]) -> bool:
    """Tell if a path is valid UTF-8."""
    # Native libraries take no other. Python decodes other bytes to lone surrogates.
    return not any("\ud800" <= character <= "\udfff" for character in os.fspath(path))


def is_portable(name: str) -> bool:
    """Tell if every system takes a file's name."""
    return not (_FORBIDDEN.search(name) or _DEVICE.fullmatch(name) or name.endswith((".", " ")))


def portable(name: str) -> str:
    """Replace what some system forbids in names."""
    return f"{'_' if _DEVICE.fullmatch(name) else ''}{_FORBIDDEN.sub('_', name)}"
