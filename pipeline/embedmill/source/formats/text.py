"""Survey and reading that the text formats share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from embedmill.base.config import RunConfig
from embedmill.base.records import InputFile, Piece, Span
from embedmill.source.digest import changed
from embedmill.source.formats.boundaries import Cutter, records, spans
from embedmill.source.formats.rows import Block, Parser
from embedmill.source.stream import ByteStream

# Makes the cutter of records that begin at a position.
CutterAt = Callable[[int], Cutter]


def survey_text(number: int, stream: ByteStream, cutter: Cutter, start: int) -> Iterator[Span]:
    """Yield the rows of file `number` from byte `start` on."""
    stream.seek(start)
    yield from spans(number, stream, cutter)


class TextFile:
    """Open text file (see OpenFile)."""

    def __init__(
        self, file: InputFile, config: RunConfig, stream: ByteStream, *, cutter: CutterAt, parser: Parser[Any]
    ) -> None:
        self._file = file
        self._limit = config.limits.record_bytes
        self._cutter = cutter
        self._parser = parser
        self._stream = stream

    def blocks(self, piece: Piece) -> Iterator[Block]:
        """See OpenFile; a piece is one block."""
        self._stream.seek(piece.start)
        found = records(self._stream, self._cutter(piece.start), self._limit, piece.stop)
        block = self._parser.block(found, piece.first_row)
        # The size of the file is checked when it is opened; this finds an edit that kept it.
        if block.count != piece.rows:
            raise changed(self._file)
        yield block

    def close(self) -> None:
        """See OpenFile."""
        self._stream.close()
