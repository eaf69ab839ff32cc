"""Input to shards: the fixed list of what becomes one output file each. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from embedmill import source
from embedmill.base.config import RunConfig, ShardTable
from embedmill.base.records import InputFile, Piece, Shard, Span


def cut(spans: Iterable[Span], limits: ShardTable) -> Iterator[Shard]:
    """Shards that cover every row of the spans once, in order.

    A shard ends at `limits.rows` rows or before the row with which its bytes of text would pass
    `limits.text_bytes`, whichever comes first; a single longer row is a shard of its own. Large files
    are split and small ones grouped by the same rule. Memory does not grow with the input.
    """
    pieces: list[Piece] = []
    rows = size = ordinal = 0
    for span in spans:
        done, count = 0, len(span.marks) - 1
        while done < count:
            taken = _fitting(span, done, limits.rows - rows, limits.text_bytes - size, first=rows == 0)
            if taken == 0:
                yield Shard(ordinal=ordinal, pieces=tuple(pieces))
                pieces, rows, size, ordinal = [], 0, 0, ordinal + 1
                continue
            _extend(pieces, _piece(span, done, taken))
            size += int(span.marks[done + taken] - span.marks[done])
            rows, done = rows + taken, done + taken
    if pieces:
        yield Shard(ordinal=ordinal, pieces=tuple(pieces))


def _fitting(span: Span, done: int, rows_left: int, bytes_left: int, *, first: bool) -> int:
    """How many rows after `done` still fit; at least one where the shard is empty."""
    end = np.searchsorted(span.marks, span.marks[done] + max(bytes_left, 0), side="right") - 1
    return max(min(int(end) - done, rows_left, len(span.marks) - 1 - done), int(first))


def _piece(span: Span, done: int, taken: int) -> Piece:
    return Piece(
        file=span.file,
        first_row=span.first_row + done,
        rows=taken,
        start=int(span.marks[done]),
        stop=int(span.marks[done + taken]),
    )


def _extend(pieces: list[Piece], piece: Piece) -> None:
    """Append a piece, as part of the last one where it continues it."""
    last = pieces[-1] if pieces else None
    if last is not None and (last.file, last.first_row + last.rows, last.stop) == (
        piece.file,
        piece.first_row,
        piece.start,
    ):
        pieces[-1] = Piece(
            file=last.file, first_row=last.first_row, rows=last.rows + piece.rows, start=last.start, stop=piece.stop
        )
    else:
        pieces.append(piece)


def plan(files: list[InputFile], config: RunConfig, columns: source.ResolvedColumns) -> list[Shard]:
    """The fixed list of shards. Raises InputError for unreadable files and missing columns."""
    return list(cut(source.survey(files, config), config.shard))
