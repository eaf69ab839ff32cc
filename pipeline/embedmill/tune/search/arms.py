"""The points of a space as arrays, and the batches that a trial of one runs."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from embedmill.base.errors import ConfigError
from embedmill.base.records import Batch, Bucket, IntArray, Packing
from embedmill.batch.pack import pack
from embedmill.tune.search.least_squares import Floats
from embedmill.tune.search.space import Knobs, Space

# Batches per stream that a trial runs at least, so that streams which end early weigh little.
_BATCHES_PER_STREAM, _BATCHES_PER_STREAM_AT_FIRST = 2, 1
_MOST_BATCHES = 512
_MOST_IDLE = 1.1
# Matrix units work on so many rows at once (8 or 16; NVIDIA's matrix multiplication guide, "tile quantization").
TILE_ROWS = 8


class Arms:
    """All n points ("arms") of a space for texts of some lengths, int64 [texts].

    knobs      their knobs; `mode` int64 [n] the number of their mode, `group` int64 [n] that of their precision
    first      int64 [modes]: the arm that each mode begins with, the smallest that can take every text
    demand     float64 [n, 3], what memory grows with: lanes; padded tokens in them; padded tokens times
               sequence in them (scores of attention)
    terms      float64 [n, 4], what time grows with per unit: padded tokens, batches, tokens times sequence,
               padded tokens of whole tiles.
               A unit is a useful token where any shape runs, a batch where shapes are fixed.
    place      float64 [n, d]: logarithms to the base 2 of the sizes
    shapes     int64 [n]: distinct shapes in all texts packed
    """

    def __init__(self, space: Space, lengths: IntArray) -> None:
        """Raises ConfigError for a space without modes or sizes, or lengths that no bucket holds."""
        if not space.modes or bool(space.budgets_tokens) == bool(space.buckets) or not len(lengths):
            raise ConfigError("tuning needs texts, modes, and either budgets or buckets")
        self.lengths = np.maximum(lengths, 1)
        self.fixed = bool(space.buckets)
        self.space = space
        self._packed: dict[int, list[Batch]] = {}
        sizes = _useful(space.buckets, self.lengths) if self.fixed else self._distinct(space.budgets_tokens)
        self.knobs = [_knobs(space, number, size) for number in range(len(space.modes)) for size in sizes]
        self.mode = np.repeat(np.arange(len(space.modes)), len(sizes))
        precisions = list(dict.fromkeys(mode.precision for mode in space.modes))
        self.group = np.array([precisions.index(one.mode.precision) for one in self.knobs])
        rows = [self._sizes(one) for one in self.knobs]
        self.demand: Floats = np.array([row[0] for row in rows], np.float64)
        self.terms: Floats = np.array([row[1] for row in rows], np.float64)
        self.place: Floats = np.log2(np.array([row[2] for row in rows], np.float64))
        self.shapes = np.array([row[3] for row in rows])
        start = next(i for i, one in enumerate(self.knobs) if one.bucket is None or one.bucket == self._cover)
        self.first = np.arange(len(space.modes)) * len(sizes) + start

    def __len__(self) -> int:
        return len(self.knobs)

    @cached_property
    def _cover(self) -> Bucket:
        longest = max(bucket.sequence for bucket in self.space.buckets)
        return Bucket(
            rows=min(bucket.rows for bucket in self.space.buckets if bucket.sequence == longest), sequence=longest
        )

    @cached_property
    def _order(self) -> IntArray:
        return np.argsort(-self.lengths, kind="stable")

    def _distinct(self, budgets: tuple[int, ...]) -> list[int]:
        """Rising budgets without those that these texts are too few to fill: they pack like the one before."""
        kept: list[int] = []
        for budget in sorted(set(budgets)):
            shapes = [(batch.size, batch.sequence) for batch in self._batches(budget)]
            if not kept or shapes != [(batch.size, batch.sequence) for batch in self._batches(kept[-1])]:
                kept.append(budget)
        return kept

    def neighbours(self) -> dict[int, tuple[int, ...]]:
        """Of each fixed shape those of twice and half its rows, in its own mode."""
        place = {(one.mode, one.bucket): number for number, one in enumerate(self.knobs) if one.bucket is not None}
        return {
            arm: tuple(
                place[mode, other]
                for other in (
                    Bucket(rows=bucket.rows * 2, sequence=bucket.sequence),
                    Bucket(rows=bucket.rows // 2, sequence=bucket.sequence),
                )
                if (mode, other) in place
            )
            for (mode, bucket), arm in place.items()
        }

    def batches_of(self, knobs: Knobs) -> list[Batch]:
        """All texts packed under the budget of `knobs`, the longest first."""
        return self._batches(knobs.budget_tokens)

    def _batches(self, budget: int) -> list[Batch]:
        if budget not in self._packed:
            self._packed[budget] = pack(self.lengths, Packing(budget_tokens=budget))
        return self._packed[budget]

    def _sizes(self, knobs: Knobs) -> tuple[tuple[float, ...], tuple[float, ...], tuple[int, ...], int]:
        lanes = knobs.mode.lanes
        if knobs.bucket is not None:
            tokens, sequence = knobs.bucket.rows * knobs.bucket.sequence, knobs.bucket.sequence
            demand = (lanes, lanes * tokens, lanes * tokens * sequence)
            tiles = -(-knobs.bucket.rows // TILE_ROWS) * TILE_ROWS * sequence
            return demand, (tokens, 1, tokens * sequence, tiles), (knobs.bucket.rows, sequence), 1
        batches = self.batches_of(knobs)
        terms = terms_of(batches)
        most, total = lanes * terms.max(axis=0), terms.sum(axis=0) / self.lengths.sum()
        return (
            (lanes, most[0], most[2]),
            tuple(total),
            (knobs.budget_tokens,),
            len({(batch.size, batch.sequence) for batch in batches}),
        )

    def sample(self, arm: int, wanted: int, *, runs: int, offset: float) -> tuple[Batch, ...]:
        """About `wanted` batches for a trial of an arm that ran some times, at least some for every lane.

        In the first two runs those that need the most memory come first, for each lane. The others are spread evenly
        over all batches, from `offset` (0 to 1) into the first part on: a launch weighs in a trial what it does in
        the job. The largest ones come first, and there are so many that few streams wait for the last one.
        """
        knobs = self.knobs[arm]
        count = min(max(wanted, least_batches(knobs, first=runs == 0)), _MOST_BATCHES)
        if knobs.bucket is not None:
            return self._filled(knobs.bucket, count)
        batches = self.batches_of(knobs)
        first = _heaviest(batches, knobs.mode.lanes) if runs < 2 else []
        chosen = (*first, *_spread(batches, count - len(first), offset))
        most = min(round(1.5 * count), _MOST_BATCHES)
        while _idle(chosen, knobs.mode.streams) > _MOST_IDLE and count < most:
            count += knobs.mode.streams
            chosen = (*first, *_spread(batches, count - len(first), offset))
        return chosen

    def _filled(self, bucket: Bucket, count: int) -> tuple[Batch, ...]:
        """Batches of one shape, filled with the longest texts that fit it, the next ones in the next batch."""
        fitting = self._order[self.lengths[self._order] <= bucket.sequence]
        return tuple(
            Batch(
                rows=np.unique(fitting[np.arange(i * bucket.rows, (i + 1) * bucket.rows) % len(fitting)]),
                size=bucket.rows,
                sequence=bucket.sequence,
            )
            for i in range(count)
        )


def _heaviest(batches: list[Batch], lanes: int) -> list[Batch]:
    """For each lane the batch of the most scores, then for each the one of the most padded tokens if it is another."""
    tokens = max(batches, key=_padded)
    scores = max(batches, key=lambda batch: batch.size * batch.sequence**2)
    return [scores] * lanes + ([] if tokens is scores else [tokens] * lanes)


def _padded(batch: Batch) -> int:
    return batch.size * batch.sequence


def _spread(batches: list[Batch], count: int, offset: float) -> list[Batch]:
    """About `count` of all batches, each as likely, the largest first; all of them some times where `count` is more."""
    if count >= len(batches):
        chosen = batches * round(count / len(batches))
    else:
        chosen = [batches[int(place)] for place in (np.arange(count) + offset) / max(count, 1) * len(batches)]
    return sorted(chosen, key=_padded, reverse=True)


def _idle(batches: Sequence[Batch], streams: int) -> float:
    """How much longer some batches take than if no stream waited for another, by their padded tokens."""
    tokens = np.array([_padded(batch) for batch in batches], np.float64)
    return makespan(tokens, streams) * streams / float(tokens.sum())


def makespan(seconds: Floats, streams: int) -> float:
    """When the last stream ends if each takes the next batch as soon as it is free."""
    free = [0.0] * streams
    for one in seconds:
        heapq.heapreplace(free, free[0] + float(one))
    return max(free)


def terms_of(batches: Sequence[Batch]) -> Floats:
    """What `Arms.terms` says, of each batch: float64 [batches, 4]."""
    sequence = np.array([batch.sequence for batch in batches], np.float64)
    rows = np.array([batch.size for batch in batches])
    tiles = np.ceil(rows / TILE_ROWS) * TILE_ROWS
    return np.column_stack([rows * sequence, np.ones(len(batches)), rows * sequence**2, tiles * sequence])


def least_batches(knobs: Knobs, *, first: bool = False) -> int:
    """How many batches a trial needs at least: all lanes are filled and, where there are several, refilled.

    One batch of a fixed shape is like any other; of any shape it takes a few.

    A first run is short: it says little of the time, and what is expected of it may be far off.
    """
    each = _BATCHES_PER_STREAM_AT_FIRST if first else _BATCHES_PER_STREAM
    if knobs.bucket is not None and knobs.mode.lanes == 1:
        return 1
    return max(each * knobs.mode.streams, knobs.mode.lanes + 1)


def _useful(buckets: tuple[Bucket, ...], lengths: IntArray) -> list[Bucket]:
    """Buckets by rising sequence and rows, without those that hold no text."""
    if max(bucket.sequence for bucket in buckets) < lengths.max():
        raise ConfigError(f"no bucket holds a text of {lengths.max()} tokens")
    kept = [bucket for bucket in set(buckets) if bucket.sequence >= lengths.min()]
    return sorted(kept, key=lambda bucket: (bucket.sequence, bucket.rows))


def _knobs(space: Space, mode: int, size: Bucket | int) -> Knobs:
    if isinstance(size, int):
        return Knobs(mode=space.modes[mode], budget_tokens=size)
    return Knobs(mode=space.modes[mode], budget_tokens=size.rows * size.sequence, bucket=size)
