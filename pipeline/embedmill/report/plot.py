"""Scatter and line plots as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup
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


def svg(plot: Plot) -> Markup:
    """Draw a plot as an SVG element; empty without points."""
    xs = [x for curve in plot.curves for x, _ in curve.points] + list(plot.failed)
    ys = [y for curve in plot.curves for _, y in curve.points] + ([plot.level[0]] if plot.level else [])
    if not xs:
        return Markup()
    axes = _Axes(xs, ys or [1.0], log_x=plot.log_x)
    parts = [*axes.drawn(plot.x_label, plot.y_label)]
    if plot.level is not None:
        parts.append(axes.level(*plot.level))
    for number, curve in enumerate(plot.curves):
        parts += axes.curve(curve, _COLOURS[number % len(_COLOURS)], number)
    parts += [axes.ring(*point) for point in plot.marked]
    parts += [axes.cross(x) for x in plot.failed]
    return Markup(
        "<svg role='img' aria-label='{}' viewBox='0 0 {} {}' width='100%' xmlns='http://www.w3.org/2000/svg'"
        " font-family='system-ui, sans-serif' font-size='11' fill='currentColor'><title>{}</title>{}</svg>"
    ).format(plot.title, _WIDTH, _HEIGHT, plot.title, Markup().join(parts))


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
        return math.log2(max(x, _LEAST)) if self._log else x

    def x(self, x: float) -> float:
        low, high = self._x
        return _LEFT + (self._x_value(x) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, y: float) -> float:
        return _HEIGHT - _BOTTOM - y / self._y_most * (_HEIGHT - _TOP - _BOTTOM)

    def drawn(self, x_label: str, y_label: str) -> Iterable[Markup]:
        right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
        for tick in self._y_ticks:
            y = self.y(tick)
            yield _path(f"M{_LEFT} {y:.1f}H{right}", "stroke-opacity='.15'")
            yield _text(_LEFT - 6, y + 4, short_number(tick), "text-anchor='end' opacity='.75'")
        for tick in self._x_ticks():
            x = self.x(tick)
            yield _path(f"M{x:.1f} {bottom}v4", "stroke-opacity='.5'")
            yield _text(x, bottom + 16, short_number(tick), "text-anchor='middle' opacity='.75'")
        yield _text((_LEFT + right) / 2, _HEIGHT - 8, x_label, "text-anchor='middle'")
        turned = f"transform='translate(14 {(_TOP + bottom) / 2:.0f}) rotate(-90)' text-anchor='middle'"
        yield _text(0, 0, y_label, turned)

    def _x_ticks(self) -> list[float]:
        low, high = self._x
        if self._log:
            step = max(1, round((high - low) / 8))
            return [2.0**power for power in range(math.ceil(low), math.floor(high) + 1, step)]
        return [tick for tick in ticks(high) if low <= tick <= high and tick == round(tick)]

    def level(self, y: float, label: str) -> Markup:
        place = self.y(y)
        line = _path(f"M{_LEFT} {place:.1f}H{_WIDTH - _RIGHT}", "stroke-dasharray='6 4'")
        return line + _text(_WIDTH - _RIGHT + 8, place + 4, label)

    def curve(self, curve: Curve, colour: str, number: int) -> Iterable[Markup]:
        places = [(self.x(x), self.y(y)) for x, y in curve.points]
        if curve.joined and len(places) > 1:
            line = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
            yield Markup("<path d='M{}' fill='none' stroke='{}' stroke-width='1.5'/>").format(line, colour)
        yield from (_dot(x, y, 3, colour) for x, y in places)
        # Legend entries start below the label of a dashed line at the top.
        place = _TOP + 44 + number * 16
        yield _dot(_WIDTH - _RIGHT + 12, place - 4, 3.5, colour)
        yield _text(_WIDTH - _RIGHT + 22, place, curve.name)

    def ring(self, x: float, y: float) -> Markup:
        ring = Markup("<circle cx='{:.1f}' cy='{:.1f}' r='7' fill='none' stroke='currentColor' stroke-width='1.5'/>")
        return ring.format(self.x(x), self.y(y))

    def cross(self, x: float) -> Markup:
        cross = Markup("<path d='M{:.1f} {}l8 8m0-8l-8 8' stroke='#d00000' stroke-width='1.5'/>")
        return cross.format(self.x(x) - 4, _HEIGHT - _BOTTOM - 9)


def _path(line: str, attributes: str) -> Markup:
    return Markup("<path d='{}' stroke='currentColor' {}/>").format(line, Markup(attributes))


def _text(x: float, y: float, text: str, attributes: str = "") -> Markup:
    return Markup("<text x='{:.1f}' y='{:.1f}' {}>{}</text>").format(x, y, Markup(attributes), text)


def _dot(x: float, y: float, radius: float, colour: str) -> Markup:
    return Markup("<circle cx='{:.1f}' cy='{:.1f}' r='{}' fill='{}'/>").format(x, y, radius, colour)
