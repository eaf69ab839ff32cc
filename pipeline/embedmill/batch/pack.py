"""Packing of rows sorted by token count into batches. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from embedmill.base.records import Batch, Bucket, IntArray, Packing

# What starting a batch costs, in tokens: on CPU a batch of 32 tokens took as long as 52 tokens do in
# batches of 512, one of 128 no longer than its tokens (docs/performance.md).
OVERHEAD_TOKENS = 20


def pack(lengths: IntArray, packing: Packing) -> list[Batch]:
    """Pack each of n rows once, the longest first.

    `lengths` is int64 [n], tokens per row. The same lengths always give the same batches.
    """
    # Stable, for the order of equal lengths must not depend on the platform.
    order = np.argsort(-lengths, kind="stable")
    ordered = np.maximum(lengths[order], 1)
    return _into_buckets(order, ordered, packing.buckets) if packing.buckets else _exact(order, ordered, packing)


def _exact(order: IntArray, lengths: IntArray, packing: Packing) -> list[Batch]:
    """Pack free shapes within the budget; a longer row alone."""
    edges = [*_cheapest_starts(lengths, packing.budget_tokens), len(order)]
    return [
        Batch(rows=order[start:stop], size=stop - start, sequence=int(lengths[start]))
        for start, stop in pairwise(edges)
    ]


def _into_buckets(order: IntArray, lengths: IntArray, buckets: Sequence[Bucket]) -> list[Batch]:
    """Pack fixed shapes. Raises ValueError for longer rows."""
    # Buckets cost about the same each, so shorter rows may as well fill a larger one.
    batches = []
    start = 0
    while start < len(order):
        bucket = next((bucket for bucket in buckets if bucket.sequence >= lengths[start]), None)
        if bucket is None:
            raise ValueError(f"no bucket holds a row of {lengths[start]} tokens")
        rows = order[start : start + bucket.rows]
        batches.append(Batch(rows=rows, size=bucket.rows, sequence=bucket.sequence))
        start += len(rows)
    return batches


def _cheapest_starts(lengths: IntArray, budget_tokens: int) -> list[int]:
    """Return starts of batches among rows of falling `lengths`.

    `lengths` is int64 [n]. Dynamic programming minimises padded tokens plus `OVERHEAD_TOKENS` per batch.
    """
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


def distinct(keys: Sequence[str]) -> tuple[IntArray, IntArray]:
    """Return first rows of distinct keys, and numbers by row.

    `first` int64 [d], `number` int64 [n]: `keys[i] == keys[first[number[i]]]`.
    """
    numbers: dict[str, int] = {}
    number = np.fromiter((numbers.setdefault(key, len(numbers)) for key in keys), np.int64, count=len(keys))
    first = np.full(len(numbers), -1, np.int64)
    # Backwards, so that the first of several rows is the one that stays.
    first[number[::-1]] = np.arange(len(keys) - 1, -1, -1)
    return first, number
