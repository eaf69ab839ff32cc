"""What differs between the systems that the tests run on."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

WINDOWS = sys.platform == "win32"
# Under Windows the lock of a run is removed with it, and folders are not synced.
LEFT_LOCK = [] if WINDOWS else ["_run.lock"]


def at(path: str) -> str:
    """Return a pattern of a path as this system writes it."""
    return re.escape(str(Path(path)))


def make_odd(path: Path, kind: str) -> None:
    """Put what is no regular file in a file's place."""
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "socket":
            os.mknod(path, 0o140600)
        case _:
            path.mkdir()
