"""The memory of a run on its page: a sentence, a line over time, and what changed."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from embedmill.base.results import MemoryFacts, Point, portion
from embedmill.report.units import duration, size

_WIDTH, _HEIGHT = 720, 120
_WHOSE = {"process": "this process", "device": "all processes", "machine": "all processes"}


def memory_section(memory: MemoryFacts | None) -> str:
    """HTML; empty where memory was not watched."""
    if memory is None:
        return ""
    return f"<h3>Memory</h3><p>{escape(_sentence(memory))}</p>{_line(memory)}{_changes(memory)}"


def _sentence(memory: MemoryFacts) -> str:
    looks = f"{memory.samples:,} looks"
    if memory.least_free_bytes is None:
        return f"Not known ({memory.source}, {looks}){_reasons(memory)}."
    ceiling = "" if memory.ceiling_bytes is None else f" of {size(memory.ceiling_bytes)}"
    used = (
        ""
        if memory.most_used_bytes is None
        else f"at most {size(memory.most_used_bytes)} in use by {_WHOSE.get(memory.scope, 'someone')}, "
    )
    kept = "" if memory.reserve_bytes is None else f"; {size(memory.reserve_bytes)} should stay free"
    return (
        f"{memory.source}: {used}at least {size(memory.least_free_bytes)} free{ceiling}{kept}"
        f" ({looks}, {memory.unknown} of them in vain){_reasons(memory)}."
    )


def _reasons(memory: MemoryFacts) -> str:
    return "".join(f"; {reason} ({count} times)" for reason, count in memory.reasons.items())


def _changes(memory: MemoryFacts) -> str:
    if not memory.changes:
        return ""
    rows = "".join(
        f"<tr><td class='number'>{duration(max(change.at_s, 0))}</td><td>{portion(change.from_scale)}</td>"
        f"<td>{portion(change.to_scale)}</td><td>{escape(change.reason)}</td></tr>"
        for change in memory.changes
    )
    head = "<tr><th class='number'>after</th><th>batches from</th><th>to</th><th>because</th></tr>"
    return f"<table>{head}{rows}</table>"


def _line(memory: MemoryFacts) -> str:
    """What was used and what was free over the run, as SVG; nothing for fewer than two looks."""
    points = memory.series
    known = [value for point in points for value in (point.used_bytes, point.free_bytes) if value is not None]
    if len(points) < 2 or not max(known, default=0):
        return ""
    most, until_s = max(known), max(points[-1].at_s, 1e-9)

    def path(values: Iterable[tuple[Point, int | None]]) -> str:
        """Moves where nothing is known, lines elsewhere."""
        words, pen = [], "M"
        for point, value in values:
            if value is None:
                pen = "M"
                continue
            x, y = point.at_s / until_s * _WIDTH, _HEIGHT - value / most * (_HEIGHT - 4)
            words.append(f"{pen}{x:.1f} {y:.1f}")
            pen = "L"
        return " ".join(words)

    used = path((point, point.used_bytes) for point in points)
    free = path((point, point.free_bytes) for point in points)
    return (
        f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' width='100%' role='img' fill='none' stroke-width='2'"
        f" aria-label='memory used and free over the run'><path stroke='var(--fill)' d='{used}'/>"
        f"<path stroke='var(--soft)' stroke-dasharray='5 4' d='{free}'/></svg>"
        f"<p>In use (line) and free (dashes) over {duration(until_s)}; the top is {size(most)}.</p>"
    )
