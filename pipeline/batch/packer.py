"""Rows to batches: sorted by token count and packed under a padded-token budget. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from pipeline.records import Batch, IntArray

# What starting a batch costs, in tokens: on CPU a batch of 32 tokens took as long as 52 tokens do in
# batches of 512, one of 128 no longer than its tokens (docs/performance.md).
OVERHEAD_TOKENS = 20


def pack(lengths: IntArray, *, budget_tokens: int) -> list[Batch]:
    """The cheapest batches that cover each of the n rows once, the longest first.

    `lengths` is int64 [n], tokens per row. Every batch has batch * sequence <= `budget_tokens`, or a
    single row. Rows are sorted by length, and the cuts between them minimise padded tokens plus
    `OVERHEAD_TOKENS` per batch, by dynamic programming over the n rows. The same lengths always give
    the same batches.
    """
    order = np.argsort(-lengths, kind="stable")
    edges = [*_cheapest_starts(np.maximum(lengths[order], 1), budget_tokens), len(order)]
    return [Batch(rows=order[start:stop], sequence=int(lengths[order[start]])) for start, stop in pairwise(edges)]


def _cheapest_starts(lengths: IntArray, budget_tokens: int) -> list[int]:
    """Where batches begin among rows sorted by falling length, int64 [n]."""
    count = len(lengths)
    cost = np.full(count + 1, np.iinfo(np.int64).max, np.int64)
    begun = np.zeros(count + 1, np.int64)
    cost[0] = 0
    for start in range(count):
        most = min(max(budget_tokens // int(lengths[start]), 1), count - start)
        through = cost[start] + OVERHEAD_TOKENS + lengths[start] * np.arange(1, most + 1)
        stops = slice(start + 1, start + 1 + most)
        better = through < cost[stops]
        cost[stops][better] = through[better]
        begun[stops][better] = start
    starts = []
    stop = count
    while stop > 0:
        stop = int(begun[stop])
        starts.append(stop)
    return starts[::-1]


def padded_tokens(batches: Sequence[Batch]) -> int:
    """What the batches cost: the sum of batch * sequence."""
    return sum(len(batch.rows) * batch.sequence for batch in batches)


def distinct(keys: Sequence[str]) -> tuple[IntArray, IntArray]:
    """The first row of each distinct key, and for every row the number of its key among them.

    `first` int64 [d], `number` int64 [n]: `keys[i] == keys[first[number[i]]]`.
    """
    numbers: dict[str, int] = {}
    number = np.fromiter((numbers.setdefault(key, len(numbers)) for key in keys), np.int64, count=len(keys))
    first = np.full(len(numbers), -1, np.int64)
    first[number[::-1]] = np.arange(len(keys) - 1, -1, -1)
    return first, number
