"""The small files in which a Linux kernel tells of itself: /proc and /sys."""

from __future__ import annotations

from pathlib import Path


def read_text(path: Path) -> str:
    """The text of a file of /proc, /sys or /etc, without the space around it; empty where it cannot be read."""
    try:
        return path.read_text("utf-8", errors="replace").strip("\0 \n\t")
    except OSError:
        return ""
