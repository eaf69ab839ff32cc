"""Read small text files of /proc, /sys and /etc."""

from __future__ import annotations

from pathlib import Path


def read_text(path: Path) -> str:
    """Return a file's stripped text; empty if not readable."""
    try:
        return path.read_text("utf-8", errors="replace").strip("\0 \n\t")
    except OSError:
        return ""
