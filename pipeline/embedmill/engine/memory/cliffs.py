"""Detect sudden slowdowns of batches (latency cliffs). Pure.

Where a driver pages memory without an error, batches suddenly take about twice the time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from statistics import median

# Durations kept per shape, and the least number for a meaningful median (the first batches compile).
_WINDOW, _MIN_SAMPLES = 31, 5
# Shapes kept; the least recently used is evicted first.
_MAX_SHAPES = 256


class Cliffs:
    """Counter of consecutive slow batches.

    A batch is slow that takes `factor` times the median of earlier batches of the same shape.
    """

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._seconds: dict[Hashable, deque[float]] = {}
        self.in_a_row = 0

    def add(self, shape: Hashable, seconds: float) -> None:
        """Record a batch; a new shape leaves the count unchanged."""
        if not seconds > 0:
            return
        before = self._seconds.pop(shape, None) or deque(maxlen=_WINDOW)
        if len(before) >= _MIN_SAMPLES:
            self.in_a_row = self.in_a_row + 1 if seconds >= self._factor * median(before) else 0
        # Slow batches count in the median too: a lasting slowdown (a lower clock rate) becomes the new normal.
        before.append(seconds)
        self._seconds[shape] = before
        if len(self._seconds) > _MAX_SHAPES:
            del self._seconds[next(iter(self._seconds))]
