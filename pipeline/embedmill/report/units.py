"""Formatting of numbers with units."""

from __future__ import annotations

from embedmill.base.results import counted


def short(number: float) -> str:
    """Format 12345 as 12.3k."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return f"{number:.0f}"


def size(count: float) -> str:
    """Format bytes in KiB, MiB or GiB."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} bytes"


def times(count: int) -> str:
    """Format 1 as once, 3 as 3 times."""
    return "once" if count == 1 else f"{count:,} times"


def left_out_lines(left_out: dict[str, int]) -> list[str]:
    """Describe unread files of input folders, if any."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in left_out.items())
    total = sum(left_out.values())
    verb = "was" if total == 1 else "were"
    return [f"{counted(total, 'file')} in the input folders {verb} not read: {kinds}"] if left_out else []


def duration(seconds: float) -> str:
    """Format 83 as 1m23s."""
    if seconds < 60:
        return f"{seconds:.1f}s" if seconds < 10 else f"{seconds:.0f}s"
    # Rounded before the split: 119.7 is 2m00s, not 1m60s.
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"
