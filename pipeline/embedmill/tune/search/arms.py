"""Fixed shapes of a space as arrays, with batches."""

from __future__ import annotations

import numpy as np

from embedmill.base.errors import ConfigError
from embedmill.base.records import Batch, Bucket, IntArray, Packing
from embedmill.tune.search.least_squares import Floats
from embedmill.tune.search.space import Knobs, Space, knobs_of

_MOST_BATCHES = 512
# Matrix units work on so many rows at once (8 or 16; NVIDIA's matrix multiplication guide, "tile quantization").
TILE_ROWS = 8


class Arms:
    """Arms: the n points of a space of fixed shapes.

    lengths    int64 [texts]
    knobs      of each arm; `mode` int64 [n] the number of the mode, `group` int64 [n] that of the precision
    first      int64 [modes]: the arm that each mode begins with, the smallest that can take every text
    demand     float64 [n, 3], what memory grows with: lanes; padded tokens in them; padded tokens times
               sequence in them (scores of attention)
    terms      float64 [n, 4], what time grows with per batch: padded tokens, batches, tokens times sequence,
               padded tokens of whole tiles
    place      float64 [n, 2]: logarithms to the base 2 of rows and sequence
    """

    def __init__(self, space: Space, lengths: IntArray) -> None:
        """Raises ConfigError for lengths that no bucket holds."""
        self.lengths, self.space = lengths, space
        buckets = _useful(space.buckets, lengths)
        self.buckets = [bucket for _ in space.modes for bucket in buckets]
        self.mode = np.repeat(np.arange(len(space.modes)), len(buckets))
        packing = Packing(budget_tokens=0, buckets=tuple(buckets))
        self.knobs = [knobs for mode in space.modes for knobs in knobs_of(mode, packing)]
        precisions = [mode.precision for mode in space.modes]
        self.group = np.array([precisions.index(one.mode.precision) for one in self.knobs])
        lanes = np.array([one.mode.lanes for one in self.knobs], np.float64)
        rows = np.array([bucket.rows for bucket in self.buckets], np.float64)
        sequence = np.array([bucket.sequence for bucket in self.buckets], np.float64)
        tokens, tiles = rows * sequence, np.ceil(rows / TILE_ROWS) * TILE_ROWS * sequence
        self.demand: Floats = np.column_stack([lanes, lanes * tokens, lanes * tokens * sequence])
        self.terms: Floats = np.column_stack([tokens, np.ones(len(rows)), tokens * sequence, tiles])
        self.place: Floats = np.log2(np.column_stack([rows, sequence]))
        start = int(np.argmax(sequence[: len(buckets)] == sequence.max()))
        self.first = np.arange(len(space.modes)) * len(buckets) + start

    def __len__(self) -> int:
        return len(self.knobs)

    def batches(self, arm: int, wanted: int, *, first: bool) -> list[Batch]:
        """Return about `wanted` full batches for a trial."""
        count = min(max(wanted, least_batches(self.knobs[arm], first=first)), _MOST_BATCHES)
        return filled(self.buckets[arm], self.lengths, count)


def filled(bucket: Bucket, lengths: IntArray, count: int) -> list[Batch]:
    """Return full batches, the longest fitting texts first."""
    fitting = np.argsort(np.where(lengths <= bucket.sequence, -lengths, 0), kind="stable")
    fitting = fitting[: np.count_nonzero(lengths <= bucket.sequence)]
    return [
        Batch(
            rows=np.unique(fitting[np.arange(i * bucket.rows, (i + 1) * bucket.rows) % len(fitting)]),
            size=bucket.rows,
            sequence=bucket.sequence,
        )
        for i in range(count)
    ]


def least_batches(knobs: Knobs, *, first: bool = False) -> int:
    """Return the least batches of a trial.

    Every lane is filled and, where there are several, refilled. A first run is short: it says little of the time, and
    its expectation may be far off.
    """
    if knobs.mode.lanes == 1:
        return 1
    return max((1 if first else 2) * knobs.mode.streams, knobs.mode.lanes + 1)


def _useful(buckets: tuple[Bucket, ...], lengths: IntArray) -> list[Bucket]:
    """Return the buckets that hold texts, in rising order."""
    if max(bucket.sequence for bucket in buckets) < lengths.max():
        raise ConfigError(f"no bucket holds a text of {lengths.max()} tokens")
    kept = [bucket for bucket in set(buckets) if bucket.sequence >= lengths.min()]
    return sorted(kept, key=lambda bucket: (bucket.sequence, bucket.rows))
