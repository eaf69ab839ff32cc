"""Batches cut smaller, for when memory got scarce. Pure."""

from __future__ import annotations

from embedmill.base.records import Batch, IntArray


def parts(batch: Batch, lengths: IntArray, scale: float, *, fixed: bool) -> list[Batch]:
    """A batch as batches of at most `size * scale` rows each, one at least; each text is in one of them, in order.

    `lengths` is int64 [n], tokens per text.
    """
    cut: list[Batch] = []
    done = 0
    while done < len(batch.rows):
        cut.append(part_at(batch, lengths, scale, start=done, fixed=fixed))
        done += len(cut[-1].rows)
    return cut


def part_at(batch: Batch, lengths: IntArray, scale: float, *, start: int, fixed: bool) -> Batch:
    """What of a batch runs next at a scale, when `start` of its texts are done.

    Of any shape, a part is as long as its longest text; of a `fixed` one it keeps the sequence, has the rows that
    `rows_at` says, and is filled up with empty ones.
    """
    most = rows_at(batch.size, scale) if fixed else max(1, int(batch.size * scale))
    rows = batch.rows[start : start + most]
    if len(rows) == len(batch.rows) and most == batch.size:
        return batch
    if fixed:
        return Batch(rows=rows, size=most, sequence=batch.sequence)
    return Batch(rows=rows, size=len(rows), sequence=max(1, int(lengths[rows].max())))


def rows_at(rows: int, scale: float) -> int:
    """The rows that a fixed shape of `rows` has at a scale: all, or below 1 the largest power of two that is not
    above `rows * scale`, at least 1."""
    return rows if scale >= 1 else 1 << max(int(rows * scale), 1).bit_length() - 1
