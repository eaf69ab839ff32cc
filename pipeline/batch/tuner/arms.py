"""The points of a space as arrays, and the batches that a trial of one runs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from pipeline.batch.packer import pack
from pipeline.batch.tuner.fit import Floats
from pipeline.batch.tuner.space import Knobs, Space
from pipeline.errors import ConfigError
from pipeline.records import Batch, Bucket, IntArray, Packing

# Batches per stream that a trial runs at least, so that streams which end early weigh little.
_BATCHES_PER_STREAM, _BATCHES_PER_STREAM_AT_FIRST = 4, 2
_MOST_BATCHES = 512


class Arms:
    """All n points ("arms") of a space for texts of some lengths, int64 [texts].

    knobs      their knobs; `mode` int64 [n] the number of their mode, `group` int64 [n] that of their precision
    first      int64 [modes]: the arm that each mode begins with, the smallest that can take every text
    demand     float64 [n, 3], what memory grows with: lanes; padded tokens in them; padded tokens times
               sequence in them (scores of attention)
    terms      float64 [n, 3], what time grows with per unit: padded tokens, batches, tokens times sequence.
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
            return demand, (tokens, 1, tokens * sequence), (knobs.bucket.rows, sequence), 1
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
        the job.
        """
        knobs = self.knobs[arm]
        count = min(max(wanted, least_batches(knobs, first=runs == 0)), _MOST_BATCHES)
        if knobs.bucket is not None:
            return self._filled(knobs.bucket, count)
        batches = self.batches_of(knobs)
        first = _heaviest(batches) * knobs.mode.lanes if runs < 2 else []
        count = max(count, len(first))
        if count >= len(batches):
            return (*first, *(batches * max(1, round(count / len(batches))))[len(first) :])
        spread = (np.arange(count - len(first)) + offset) / max(count - len(first), 1) * len(batches)
        return (*first, *(batches[int(place)] for place in spread))

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


def _heaviest(batches: list[Batch]) -> list[Batch]:
    """The batch of the most padded tokens and the one of the most scores; one where they are the same."""
    tokens = max(batches, key=lambda batch: batch.size * batch.sequence)
    scores = max(batches, key=lambda batch: batch.size * batch.sequence**2)
    return [tokens] if tokens is scores else [scores, tokens]


def terms_of(batches: Sequence[Batch]) -> Floats:
    """Padded tokens, 1, and padded tokens times sequence of each batch: float64 [batches, 3]."""
    sequence = np.array([batch.sequence for batch in batches], np.float64)
    tokens = np.array([batch.size for batch in batches]) * sequence
    return np.column_stack([tokens, np.ones(len(batches)), tokens * sequence])


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
