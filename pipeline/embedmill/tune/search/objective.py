"""The best set of arms for given times: one budget, or a ladder of buckets."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from msgspec import Struct

from embedmill.tune.search.arms import Arms
from embedmill.tune.search.least_squares import Floats

# Memory of a ladder is counted in so many parts of the ceiling, each bucket rounded up to whole ones.
_PARTS = 128


class Choice(Struct, frozen=True, kw_only=True):
    """Arms that serve all texts together, the seconds per useful token with them, and the share of those
    seconds that each takes."""

    arms: tuple[int, ...]
    seconds_per_token: float
    shares: tuple[float, ...]


class Costs(Struct, frozen=True, kw_only=True):
    """What a choice rests on: seconds per unit, one-off seconds (sessions, compiled shapes) and bytes of
    every arm, float64 [n] each; infinite times for those that are out. `ceiling` in bytes."""

    seconds: Floats
    once: Floats
    peak_bytes: Floats
    ceiling: float


class Objective(Protocol):
    """Finds the best choice."""

    def best(self, costs: Costs) -> Choice | None:
        """The cheapest choice for the job; None where no set of arms serves all texts below the ceiling."""

    def seconds_per_token(self, arms: tuple[int, ...], costs: Costs) -> float:
        """What a choice costs at other times than it was made for."""


class OneBudget:
    """Any shape runs: one arm serves all texts. Its unit is the useful token."""

    def __init__(self, expected_tokens: float) -> None:
        self._tokens = expected_tokens

    def best(self, costs: Costs) -> Choice | None:
        """The arm of the least time."""
        total = costs.seconds + costs.once / self._tokens
        total = np.where(costs.peak_bytes <= costs.ceiling, total, np.inf)
        arm = int(np.argmin(total))
        if not np.isfinite(total[arm]):
            return None
        return Choice(arms=(arm,), seconds_per_token=float(total[arm]), shares=(1.0,))

    def seconds_per_token(self, arms: tuple[int, ...], costs: Costs) -> float:
        """Its time and its one-off time."""
        return float(costs.seconds[arms[0]] + costs.once[arms[0]] / self._tokens)


class OneLadder:
    """Fixed shapes: each sequence used takes the texts down to the next shorter one used.

    As the packer fills batches to the last row, a group of texts takes its number divided by a batch's rows.
    The cheapest ladder is found by dynamic programming over the sequences and the memory left, which all
    sessions of a ladder share; mode by mode.
    """

    def __init__(self, arms: Arms, expected_tokens: float) -> None:
        self._mode = arms.mode
        self._sequence = np.array([one.bucket.sequence for one in arms.knobs if one.bucket is not None])
        self._rows = np.array([one.bucket.rows for one in arms.knobs if one.bucket is not None])
        self._heights = np.unique(self._sequence)
        ordered = np.sort(arms.lengths)
        total = float(ordered.sum())
        # Texts up to each sequence, per useful token of all.
        self._texts = np.concatenate([[0.0], np.searchsorted(ordered, self._heights, side="right") / total])
        self._tokens = expected_tokens

    def best(self, costs: Costs) -> Choice | None:
        """The cheapest ladder of any one mode."""
        ladders = [self._of_mode(mode, costs) for mode in np.unique(self._mode)]
        found = [(self.seconds_per_token(arms, costs), arms) for arms in ladders if arms]
        if not found:
            return None
        seconds, arms = min(found)
        shares = tuple(part / seconds for part in self._parts(arms, costs))
        return Choice(arms=arms, seconds_per_token=seconds, shares=shares)

    def seconds_per_token(self, arms: tuple[int, ...], costs: Costs) -> float:
        """The sum over its buckets."""
        return sum(self._parts(arms, costs))

    def _parts(self, arms: tuple[int, ...], costs: Costs) -> list[float]:
        """Seconds per useful token that each bucket of a ladder takes, one-off seconds included."""
        above = self._texts[np.searchsorted(self._heights, self._sequence[list(arms)]) + 1]
        texts = np.diff(above, prepend=0.0)
        return [
            float(count / self._rows[arm] * costs.seconds[arm] + costs.once[arm] / self._tokens)
            for arm, count in zip(arms, texts, strict=True)
        ]

    def _of_mode(self, mode: int, costs: Costs) -> tuple[int, ...]:
        """Its cheapest ladder, by rising sequence; empty where there is none."""
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
    """The arms on the way to the last row's place `left`, in the order in which they were taken."""
    taken: list[int] = []
    high = len(came) - 1
    while high > 0:
        high, left, arm = (int(number) for number in came[high, left])
        taken.append(arm)
    return tuple(reversed(taken))
