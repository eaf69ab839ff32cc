"""Time series of bounded length. Pure."""

from __future__ import annotations

from embedmill.base.results import Point


class Series:
    """Series of at most `keep` + 1 points, `keep` even."""

    def __init__(self, keep: int = 240) -> None:
        self._keep, self._stride, self._merged = keep, 1, 0
        self._points: list[Point] = []
        self._last: Point | None = None

    def add(self, point: Point) -> None:
        """Append a point; a full series merges neighbours in pairs."""
        self._last = point if self._last is None else _merge(self._last, point)
        self._merged += 1
        if self._merged < self._stride:
            return
        self._points.append(self._last)
        self._last, self._merged = None, 0
        if len(self._points) >= self._keep:
            pairs = zip(self._points[::2], self._points[1::2], strict=True)
            self._points = [_merge(*pair) for pair in pairs]
            self._stride *= 2

    def points(self) -> tuple[Point, ...]:
        """Return the series so far; extremes are preserved."""
        return (*self._points, *([] if self._last is None else [self._last]))


def _merge(one: Point, other: Point) -> Point:
    used = [value for value in (one.used_bytes, other.used_bytes) if value is not None]
    free = [value for value in (one.free_bytes, other.free_bytes) if value is not None]
    return Point(at_s=one.at_s, used_bytes=max(used, default=None), free_bytes=min(free, default=None))
