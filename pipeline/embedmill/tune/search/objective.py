"""The cheapest ladder of buckets for given times."""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from embedmill.tune.search.arms import Arms
from embedmill.tune.search.least_squares import Floats

# Memory of a ladder is counted in so many parts of the ceiling, each bucket rounded up to whole ones.
_PARTS = 128


class CostedLadder(Struct, frozen=True, kw_only=True):
    """Arms that serve all texts, with seconds and shares."""

    arms: tuple[int, ...]
    seconds_per_token: float
    shares: tuple[float, ...]


class Costs(Struct, frozen=True, kw_only=True):
    """Costs of every arm, float64 [n] each; `ceiling` in bytes.

    Seconds per batch are infinite for arms that are out; `once` are seconds that a job pays once per session.
    """

    seconds: Floats
    once: Floats
    peak_bytes: Floats
    ceiling: float


class Objective:
    """Dynamic programming over sequences and memory, mode by mode.

    Each sequence used takes the texts down to the next shorter one used. As the packer fills batches to the last row,
    a group of texts takes its number divided by a batch's rows. All sessions of a ladder share the memory.
    """

    def __init__(self, arms: Arms, expected_tokens: float) -> None:
        self._mode = arms.mode
        self._sequence = np.array([bucket.sequence for bucket in arms.buckets])
        self._rows = np.array([bucket.rows for bucket in arms.buckets])
        self._heights = np.unique(self._sequence)
        ordered = np.sort(arms.lengths)
        # Texts up to each sequence, per useful token of all.
        self._texts = np.concatenate(
            [[0.0], np.searchsorted(ordered, self._heights, side="right") / float(ordered.sum())]
        )
        self._tokens = expected_tokens

    def best(self, costs: Costs) -> CostedLadder | None:
        """Return the cheapest ladder below the ceiling; None without any."""
        ladders = [self._of_mode(mode, costs) for mode in np.unique(self._mode)]
        found = [(self.seconds_per_token(arms, costs), arms) for arms in ladders if arms]
        if not found:
            return None
        seconds, arms = min(found)
        shares = tuple(part / seconds for part in self._parts(arms, costs))
        return CostedLadder(arms=arms, seconds_per_token=seconds, shares=shares)

    def seconds_per_token(self, arms: tuple[int, ...], costs: Costs) -> float:
        """Return the cost of a ladder at given times."""
        return sum(self._parts(arms, costs))

    def _parts(self, arms: tuple[int, ...], costs: Costs) -> list[float]:
        """Return seconds per useful token of each bucket, sessions included."""
        above = self._texts[np.searchsorted(self._heights, self._sequence[list(arms)]) + 1]
        texts = np.diff(above, prepend=0.0)
        return [
            float(count / self._rows[arm] * costs.seconds[arm] + costs.once[arm] / self._tokens)
            for arm, count in zip(arms, texts, strict=True)
        ]

    def _of_mode(self, mode: int, costs: Costs) -> tuple[int, ...]:
        """Return a mode's cheapest ladder by rising sequence, or nothing."""
        parts = _PARTS if np.isfinite(costs.ceiling) else 0
        usable = (self._mode == mode) & np.isfinite(costs.seconds) & (costs.peak_bytes <= costs.ceiling)
        # least[i, m]: the cheapest way to serve the texts up to sequence i with at most m parts of memory.
        least = np.full((len(self._heights) + 1, parts + 1), np.inf)
        least[0] = 0.0
        came = np.zeros((*least.shape, 3), np.int64)
        for arm in np.flatnonzero(usable):
            high = int(np.searchsorted(self._heights, self._sequence[arm])) + 1
            need = int(np.ceil(costs.peak_bytes[arm] / costs.ceiling * parts)) if parts else 0
            texts = (self._texts[high] - self._texts[:high])[:, None]
            once = costs.once[arm] / self._tokens
            through = least[:high, : parts + 1 - need] + texts * (costs.seconds[arm] / self._rows[arm]) + once
            low = through.argmin(axis=0)
            cheapest = through[low, np.arange(len(low))]
            better = np.flatnonzero(cheapest < least[high, need:])
            least[high, need + better] = cheapest[better]
            came[high, need + better] = np.column_stack([low[better], better, np.full(len(better), arm)])
        return _trace(came, int(np.argmin(least[-1]))) if np.isfinite(least[-1]).any() else ()


def _trace(came: np.ndarray[tuple[int, int, int], np.dtype[np.int64]], left: int) -> tuple[int, ...]:
    """Return the arms on the way to place `left`."""
    taken: list[int] = []
    high = len(came) - 1
    while high > 0:
        high, left, arm = (int(number) for number in came[high, left])
        taken.append(arm)
    return tuple(reversed(taken))
