"""Reads pieces of a JSONL or CSV file."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from embedmill.base.config import RunConfig
from embedmill.base.records import InputFile, Piece
from embedmill.source.columns import ResolvedColumns
from embedmill.source.formats.boundaries import Cutter, records
from embedmill.source.formats.rows import Block, Parser, parsed
from embedmill.source.stream import ByteStream, changed


class TextFile:
    """An open text file (see OpenFile); a piece of it is held in memory while it is parsed.

    `cutter` gives the cutter of records that begin at a position.
    """

    def __init__(
        self,
        file: InputFile,
        config: RunConfig,
        columns: ResolvedColumns,
        *,
        cutter: Callable[[int], Cutter],
        parser: Parser,
    ) -> None:
        self._file = file
        self._limit = config.limits.record_bytes
        self._columns = columns
        self._cutter = cutter
        self._parser = parser
        self._stream = ByteStream(file, config.limits)

    def blocks(self, piece: Piece) -> Iterator[Block]:
        """See OpenFile."""
        self._stream.seek(piece.start)
        found = records(self._stream, self._cutter(piece.start), self._limit, piece.stop)
        block = parsed(found, piece.first_row, self._parser, self._columns, self._limit)
        if block.count != piece.rows:
            raise changed(self._file)
        yield block

    def close(self) -> None:
        """See OpenFile."""
        self._stream.close()
