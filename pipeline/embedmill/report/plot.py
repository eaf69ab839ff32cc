"""Scatter and line plots as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from msgspec import Struct

_WIDTH, _HEIGHT = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 168, 12, 44
# The palette of Okabe and Ito, distinguishable with colour blindness.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#b8a900")
# Smaller values are drawn as zero.
_LEAST = 1e-9
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


class Curve(Struct, frozen=True, kw_only=True):
    """Named points (x, y), optionally `joined` by a line."""

    name: str
    points: tuple[tuple[float, float], ...]
    joined: bool = True


class Plot(Struct, frozen=True, kw_only=True):
    """Content of a plot."""

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    log_x: bool = False  # an axis of powers of two
    level: tuple[float, str] | None = None  # a dashed horizontal line with a label
    marked: tuple[tuple[float, float], ...] = ()  # points with a ring
    failed: tuple[float, ...] = ()  # the x of crosses at the bottom


def svg(plot: Plot) -> str:
    """Draw a plot as an SVG element; empty without points."""
    xs = [x for curve in plot.curves for x, _ in curve.points] + list(plot.failed)
    ys = [y for curve in plot.curves for _, y in curve.points] + ([plot.level[0]] if plot.level else [])
    if not xs:
        return ""
    axes = _Axes(xs, ys or [1.0], log_x=plot.log_x)
    parts = [*axes.drawn(plot.x_label, plot.y_label)]
    if plot.level is not None:
        parts.append(axes.level(*plot.level))
    for number, curve in enumerate(plot.curves):
        parts += axes.curve(curve, _COLOURS[number % len(_COLOURS)], number)
    parts += [axes.ring(*point) for point in plot.marked]
    parts += [axes.cross(x) for x in plot.failed]
    return (
        f"<svg role='img' aria-label='{escape(plot.title)}' viewBox='0 0 {_WIDTH} {_HEIGHT}' width='100%'"
        " xmlns='http://www.w3.org/2000/svg' font-family='system-ui, sans-serif' font-size='11' fill='currentColor'>"
        f"<title>{escape(plot.title)}</title>{''.join(parts)}</svg>"
    )


def ticks(most: float) -> list[float]:
    """Return about five round values from 0 past `most`."""
    most = most if most > _LEAST else 1.0
    raw = most / 5
    power = 10.0 ** math.floor(math.log10(raw))
    # 0.999: a value that rounding put just above a step still takes that step.
    step = next(one * power for one in _STEPS if one * power >= raw * 0.999)
    return [step * count for count in range(math.ceil(most / step - 1e-9) + 1)]


def short_number(value: float) -> str:
    """Format 12000 as 12k, 2048 as 2048."""
    # Thousands from 10,000 on: batch sizes are powers of two, which people know by their digits.
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= unit:
            scale = 1e3 if name == "k" else unit
            return f"{value / scale:.3g}{name}"
    return f"{value:.4g}"


class _Axes:
    """Axes: from values to pixels."""

    def __init__(self, xs: Sequence[float], ys: Sequence[float], *, log_x: bool) -> None:
        self._log = log_x
        low, high = self._x_value(min(xs)), self._x_value(max(xs))
        # Room for the rings; a fixed one where all x are equal.
        room = max((high - low) * 0.04, 0.25 if log_x else 0.5)
        self._x = (low - room, high + room)
        self._y_ticks = ticks(max(ys))
        self._y_most = self._y_ticks[-1]

    def _x_value(self, x: float) -> float:
        return math.log2(x) if self._log else x

    def x(self, x: float) -> float:
        low, high = self._x
        return _LEFT + (self._x_value(x) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, y: float) -> float:
        return _HEIGHT - _BOTTOM - y / self._y_most * (_HEIGHT - _TOP - _BOTTOM)

    def drawn(self, x_label: str, y_label: str) -> Iterable[str]:
        right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
        for tick in self._y_ticks:
            y = self.y(tick)
            yield f"<path d='M{_LEFT} {y:.1f}H{right}' stroke='currentColor' stroke-opacity='.15'/>"
            yield f"<text x='{_LEFT - 6}' y='{y + 4:.1f}' text-anchor='end' opacity='.75'>{short_number(tick)}</text>"
        for tick in self._x_ticks():
            x = self.x(tick)
            yield f"<path d='M{x:.1f} {bottom}v4' stroke='currentColor' stroke-opacity='.5'/>"
            yield f"<text x='{x:.1f}' y='{bottom + 16}' text-anchor='middle' opacity='.75'>{short_number(tick)}</text>"
        middle = (_LEFT + right) / 2
        yield f"<text x='{middle:.0f}' y='{_HEIGHT - 8}' text-anchor='middle'>{escape(x_label)}</text>"
        across = (_TOP + bottom) / 2
        yield f"<text transform='translate(14 {across:.0f}) rotate(-90)' text-anchor='middle'>{escape(y_label)}</text>"

    def _x_ticks(self) -> list[float]:
        low, high = self._x
        if self._log:
            step = max(1, round((high - low) / 8))
            return [2.0**power for power in range(math.ceil(low), math.floor(high) + 1, step)]
        return [tick for tick in ticks(high) if low <= tick <= high and tick == round(tick)]

    def level(self, y: float, label: str) -> str:
        place = self.y(y)
        return (
            f"<path d='M{_LEFT} {place:.1f}H{_WIDTH - _RIGHT}' stroke='currentColor' stroke-dasharray='6 4'/>"
            f"<text x='{_WIDTH - _RIGHT + 8}' y='{place + 4:.1f}'>{escape(label)}</text>"
        )

    def curve(self, curve: Curve, colour: str, number: int) -> Iterable[str]:
        places = [(self.x(x), self.y(y)) for x, y in curve.points]
        if curve.joined and len(places) > 1:
            line = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
            yield f"<path d='M{line}' fill='none' stroke='{colour}' stroke-width='1.5'/>"
        yield from (f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{colour}'/>" for x, y in places)
        # Legend entries start below the label of a dashed line at the top.
        place = _TOP + 44 + number * 16
        yield f"<circle cx='{_WIDTH - _RIGHT + 12}' cy='{place - 4}' r='3.5' fill='{colour}'/>"
        yield f"<text x='{_WIDTH - _RIGHT + 22}' y='{place}'>{escape(curve.name)}</text>"

    def ring(self, x: float, y: float) -> str:
        across, down = self.x(x), self.y(y)
        return f"<circle cx='{across:.1f}' cy='{down:.1f}' r='7' fill='none' stroke='currentColor' stroke-width='1.5'/>"

    def cross(self, x: float) -> str:
        left, bottom = self.x(x), _HEIGHT - _BOTTOM
        return f"<path d='M{left - 4:.1f} {bottom - 9}l8 8m0-8l-8 8' stroke='#d00000' stroke-width='1.5'/>"
