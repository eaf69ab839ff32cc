"""Memory section of the HTML report: summary, plot, scale changes."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup

from embedmill.base.results import MemoryFacts, Point, portion
from embedmill.report.page import table
from embedmill.report.units import duration, size

_WIDTH, _HEIGHT = 720, 120
_SCOPES = {"process": "this process", "device": "all processes", "machine": "all processes"}


def memory_section(memory: MemoryFacts | None) -> Markup:
    """Render the section; empty where memory was not watched."""
    if memory is None:
        return Markup()
    return Markup("<h3>Memory</h3><p>{}</p>{}{}").format(_sentence(memory), _line(memory), _changes(memory))


def _sentence(memory: MemoryFacts) -> str:
    samples = f"{memory.samples:,} samples"
    if memory.least_free_bytes is None:
        return f"Unknown ({memory.source}, {samples}){_reasons(memory)}."
    ceiling = "" if memory.ceiling_bytes is None else f" of {size(memory.ceiling_bytes)}"
    scope = _SCOPES.get(memory.scope, memory.scope)
    used = "" if memory.most_used_bytes is None else f"at most {size(memory.most_used_bytes)} in use by {scope}, "
    reserve = "" if memory.reserve_bytes is None else f"; reserve {size(memory.reserve_bytes)}"
    return (
        f"{memory.source}: {used}at least {size(memory.least_free_bytes)} free{ceiling}{reserve}"
        f" ({samples}, {memory.unknown} of them failed){_reasons(memory)}."
    )


def _reasons(memory: MemoryFacts) -> str:
    return "".join(f"; {reason} ({count} times)" for reason, count in memory.reasons.items())


def _changes(memory: MemoryFacts) -> Markup:
    if not memory.changes:
        return Markup()
    rows = (
        (duration(max(one.at_s, 0)), portion(one.from_scale), portion(one.to_scale), one.reason)
        for one in memory.changes
    )
    return table(rows, head=["after", "batches from", "to", "because"], numbers=[0])


def _line(memory: MemoryFacts) -> Markup:
    """Plot memory as SVG; empty for fewer than two samples."""
    points = memory.series
    known = [value for point in points for value in (point.used_bytes, point.free_bytes) if value is not None]
    if len(points) < 2 or not max(known, default=0):
        return Markup()
    most, until_s = max(known), max(points[-1].at_s, 1e-9)

    def path(values: Iterable[tuple[Point, int | None]]) -> str:
        commands, pen = [], "M"
        for point, value in values:
            if value is None:
                # A gap, not a line across a time without samples.
                pen = "M"
                continue
            x, y = point.at_s / until_s * _WIDTH, _HEIGHT - value / most * (_HEIGHT - 4)
            commands.append(f"{pen}{x:.1f} {y:.1f}")
            pen = "L"
        return " ".join(commands)

    used = path((point, point.used_bytes) for point in points)
    free = path((point, point.free_bytes) for point in points)
    plot = Markup(
        "<svg viewBox='0 0 {} {}' width='100%' role='img' fill='none' stroke-width='2'"
        " aria-label='memory used and free over the run'><path stroke='var(--fill)' d='{}'/>"
        "<path stroke='var(--soft)' stroke-dasharray='5 4' d='{}'/></svg>"
    ).format(_WIDTH, _HEIGHT, used, free)
    said = f"In use (line) and free (dashes) over {duration(until_s)}; the top is {size(most)}."
    return Markup("{}<p>{}</p>").format(plot, said)
