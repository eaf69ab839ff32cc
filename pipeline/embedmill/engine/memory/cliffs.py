"""Batches that suddenly take twice their time: what paging looks like where a driver pages without an error. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from statistics import median

# Seconds of a shape's last batches; below the lesser number their median means nothing yet (the first compile).
_KEPT, _NEEDED = 31, 5
# Shapes that are remembered; the one seen longest ago is forgotten first.
_SHAPES = 256


class Cliffs:
    """Counts the batches in a row that took `factor` times the median of those of the same shape before them.

    Slow ones enter the median too: what stays slow (a clock that was lowered) becomes the new measure.
    """

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._seconds: dict[Hashable, deque[float]] = {}
        self.in_a_row = 0

    def add(self, shape: Hashable, seconds: float) -> None:
        """Take note of a batch. One of a shape that is new says nothing, and ends no row."""
        if not seconds > 0:
            return
        before = self._seconds.pop(shape, None) or deque(maxlen=_KEPT)
        if len(before) >= _NEEDED:
            self.in_a_row = self.in_a_row + 1 if seconds >= self._factor * median(before) else 0
        before.append(seconds)
        self._seconds[shape] = before
        if len(self._seconds) > _SHAPES:
            del self._seconds[next(iter(self._seconds))]
