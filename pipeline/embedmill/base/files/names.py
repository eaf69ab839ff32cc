"""Names of files and folders."""

from __future__ import annotations

import os


def is_utf8(path: str | os.PathLike[str]) -> bool:
    """Tell if a path is valid UTF-8."""
    # Native libraries take no other. Python decodes other bytes to lone surrogates.
    return not any("\ud800" <= character <= "\udfff" for character in os.fspath(path))
