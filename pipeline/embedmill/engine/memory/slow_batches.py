"""Detection of paging by batches that suddenly slow down. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from statistics import median

# Durations kept per shape, and needed for a meaningful median (the first batches compile).
_KEPT, _NEEDED = 31, 5
# Shapes kept; the least recently used one is dropped first.
_SHAPES = 256


class SlowBatches:
    """Count of consecutive batches slower than `factor` times the median.

    The median is over earlier batches of the same shape.
    """

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._seconds: dict[Hashable, deque[float]] = {}
        self.in_a_row = 0

    def add(self, shape: Hashable, seconds: float) -> None:
        """Count a batch; new shapes neither extend nor end rows."""
        if not seconds > 0:
            return
        before = self._seconds.pop(shape, None) or deque(maxlen=_KEPT)
        if len(before) >= _NEEDED:
            self.in_a_row = self.in_a_row + 1 if seconds >= self._factor * median(before) else 0
        # Slow ones enter the median too: lasting slowness (a lowered clock) becomes the new normal.
        before.append(seconds)
        self._seconds[shape] = before
        if len(self._seconds) > _SHAPES:
            del self._seconds[next(iter(self._seconds))]
