"""Smaller batches, for when memory is short. Pure."""

from __future__ import annotations

from embedmill.base.records import Batch, IntArray


def split_batch(batch: Batch, lengths: IntArray, scale: float, *, fixed: bool) -> list[Batch]:
    """Split a batch into parts as `next_part` cuts, in order."""
    parts: list[Batch] = []
    done = 0
    while done < len(batch.rows):
        parts.append(next_part(batch, lengths, scale, start=done, fixed=fixed))
        done += len(parts[-1].rows)
    return parts


def next_part(batch: Batch, lengths: IntArray, scale: float, *, start: int, fixed: bool) -> Batch:
    """Cut the part of a batch beginning at row `start`.

    It has at most `size * scale` rows, one at least; `lengths` is int64 [n], tokens per text. Of free shapes, a part is
    as long as its longest text; of a `fixed` one it keeps the sequence and is filled up with empty rows.
    """
    most = scaled_rows(batch.size, scale) if fixed else max(1, int(batch.size * scale))
    rows = batch.rows[start : start + most]
    if len(rows) == len(batch.rows) and most == batch.size:
        return batch
    if fixed:
        return Batch(rows=rows, size=most, sequence=batch.sequence)
    return Batch(rows=rows, size=len(rows), sequence=max(1, int(lengths[rows].max())))


def scaled_rows(rows: int, scale: float) -> int:
    """Scale rows of a fixed shape, to powers of two."""
    # Powers of two, so that few new shapes have to be compiled.
    return rows if scale >= 1 else 1 << max(int(rows * scale), 1).bit_length() - 1
