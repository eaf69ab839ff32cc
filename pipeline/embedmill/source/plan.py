"""Division of the input into shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from msgspec import structs

from embedmill.base.config import RunConfig, ShardTable
from embedmill.base.records import InputFile, Piece, Shard, Span
from embedmill.source.columns import ResolvedColumns
from embedmill.source.survey import survey


def plan(files: Sequence[InputFile], config: RunConfig, columns: ResolvedColumns) -> list[Shard]:
    """Return the fixed list of shards. Raises InputError as `survey`."""
    return list(cut(survey(files, config, columns), config.shard))


def cut(spans: Iterable[Span], limits: ShardTable) -> Iterator[Shard]:
    """Yield shards that cover all rows once, in order.

    A shard ends at `limits.rows` rows or before the row with which its bytes of text would pass `limits.text_bytes`;
    a single longer row is a shard of its own. Large files are split, small ones grouped; memory does not grow.
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
            start, stop = int(span.marks[done]), int(span.marks[done + taken])
            _extend(pieces, Piece(file=span.file, first_row=span.first_row + done, rows=taken, start=start, stop=stop))
            rows, size, done = rows + taken, size + stop - start, done + taken
    if pieces:
        yield Shard(ordinal=ordinal, pieces=tuple(pieces))


def _fitting(span: Span, done: int, rows_left: int, bytes_left: int, *, first: bool) -> int:
    """Count the rows after `done` that still fit."""
    end = np.searchsorted(span.marks, span.marks[done] + max(bytes_left, 0), side="right") - 1
    # At least one where the shard is empty: a row above the limit must go somewhere.
    return max(min(int(end) - done, rows_left, len(span.marks) - 1 - done), int(first))


def _extend(pieces: list[Piece], piece: Piece) -> None:
    last = pieces[-1] if pieces else None
    # Joined where it continues the last piece, so that the plan does not depend on how long spans are.
    if last and (last.file, last.first_row + last.rows, last.stop) == (piece.file, piece.first_row, piece.start):
        pieces[-1] = structs.replace(last, rows=last.rows + piece.rows, stop=piece.stop)
    else:
        pieces.append(piece)
