"""Find the longest sequence of a graph by trial."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from embedmill.base.errors import DeviceError, OutOfMemory
from embedmill.base.records import Batch, TokenArray, Tokens
from embedmill.engine.machine.memory.host import HostProbe
from embedmill.engine.sessions.session import Session

_FIRST = 64
# A trial that would take longer, or more of the free memory, is left out.
_MOST_S = 20.0
_MEMORY_FRACTION = 0.5


def longest_sequence(takes: Callable[[int], bool], most: int) -> int:
    """Return the longest sequence up to `most` that `takes` accepts.

    0 if there is none. Lengths are doubled until one fails; a graph that takes a length takes any shorter one. From
    there the search goes down in growing steps: a limit is often near, and lengths that fail cost little.
    """
    taken, tried = 0, min(_FIRST, most)
    while takes(tried):
        taken, tried = tried, min(2 * tried, most)
        if taken == most:
            return most
    step = 1
    while tried - step > taken and not takes(tried - step):
        tried, step = tried - step, 2 * step
    taken = max(taken, tried - step)
    while tried - taken > 1:
        middle = (taken + tried) // 2
        taken, tried = (middle, tried) if takes(middle) else (taken, middle)
    return taken


class LengthTrial:
    """Runs of one row, as long as asked for.

    Attention takes time and memory by the square of the length, so a trial that would take too much is foreseen from
    the one before. It counts as accepted, and its length as `untried`.
    """

    def __init__(self, session: Session, ids: TokenArray) -> None:
        """Repeat the tokens `ids` to the lengths that are tried."""
        self._session, self._ids = session, ids
        self._probe = HostProbe()
        self._before_bytes = self._probe.read().used_bytes or 0
        self._last, self._last_s = 0, 0.0
        self.untried = 0

    def __call__(self, length: int) -> bool:
        """Run a row of `length` tokens; False on failure."""
        if self._costs_too_much(length):
            self.untried = self.untried or length
            return True
        tokens = Tokens(
            ids=np.resize(self._ids, length), offsets=np.array([0, length]), truncated=np.zeros(1, np.bool_)
        )
        busy_s = self._session.busy_s
        try:
            self._session.run(tokens, Batch(rows=np.array([0]), size=1, sequence=length))
        except OutOfMemory:
            self.untried = self.untried or length
            return True
        except DeviceError:
            return False
        self._last, self._last_s = length, self._session.busy_s - busy_s
        return True

    def _costs_too_much(self, length: int) -> bool:
        if self._last == 0 or length <= self._last:
            return False
        growth = (length / self._last) ** 2
        reading = self._probe.read()
        own_bytes = (reading.used_bytes or 0) - self._before_bytes
        too_large = reading.free_bytes is not None and own_bytes * growth > reading.free_bytes * _MEMORY_FRACTION
        return too_large or self._last_s * growth > _MOST_S
