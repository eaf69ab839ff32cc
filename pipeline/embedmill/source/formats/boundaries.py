"""Boundaries of records in text files, found without parsing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from embedmill.base.records import BoolArray, IntArray, Span
from embedmill.source.stream import BLOCK_BYTES, ByteStream

# Rows of a span, at most.
SPAN_ROWS = 65_536
# Enough for an excerpt of 200 characters.
HEAD_BYTES = 1024
LF, CR, QUOTE = 10, 13, 34


class Oversize(Struct, frozen=True):
    """Record or value too long for memory: first KiB, bytes."""

    head: bytes
    size: int


class Cutter(Protocol):
    """Finder of record ends in consecutive blocks of one file."""

    def ends(self, block: bytes) -> IntArray:
        """Return the file positions after each record, ascending."""
        # The last record of a file may lack a line end, and is then not among them.


class LineCutter:
    r"""Cutter of lines that end with `\n`."""

    def __init__(self, start: int) -> None:
        self._position = start

    def ends(self, block: bytes) -> IntArray:
        """See Cutter."""
        found: IntArray = np.flatnonzero(np.frombuffer(block, np.uint8) == LF) + (self._position + 1)
        self._position += len(block)
        return found


class CsvCutter:
    r"""Cutter of CSV records, by the grammar of Python's csv.reader.

    Quoted fields may hold line ends. A line ends with `\n`, `\r\n` or `\r`. A quote opens a field only at its start;
    inside, two quotes stand for one; what follows the closing quote, up to the delimiter, is literal.
    """

    def __init__(self, delimiter: str, start: int) -> None:
        self._field_ends = np.array([ord(delimiter), LF, CR], np.uint8)
        # Must be the start of a record.
        self._position = start
        self._last = LF
        self._quoted = False
        self._just_closed = False
        self._return_pending = False

    def ends(self, block: bytes) -> IntArray:
        """See Cutter."""
        if not block:
            return np.empty(0, np.int64)
        data = np.frombuffer(block, np.uint8)
        toggles = self._quote_toggles(data)
        lines = self._line_ends(data)
        # A line end after an odd number of toggles lies inside quotes, and ends no record.
        quoted = (np.searchsorted(toggles, lines) + self._quoted) % 2 == 1
        found: IntArray = lines[~quoted] + (self._position + 1)
        self._quoted = (len(toggles) + self._quoted) % 2 == 1
        self._just_closed = not self._quoted and len(toggles) > 0 and bool(toggles[-1] == len(data) - 1)
        # Whether a return at the block's end is a line end of its own depends on the next byte.
        self._return_pending = bool(data[-1] == CR) and not self._quoted
        self._last = int(data[-1])
        self._position += len(block)
        return found

    def _line_ends(self, data: npt.NDArray[np.uint8]) -> IntArray:
        """Return where lines end in a block, quoted or not."""
        lines = np.flatnonzero(data == LF)
        returns = np.flatnonzero(data[:-1] == CR)
        lone = returns[data[returns + 1] != LF]
        if self._return_pending and data[0] != LF:
            # -1: the return at the end of the block before.
            lone = np.concatenate([[-1], lone])
        return np.sort(np.concatenate([lines, lone])) if len(lone) else lines

    def _quote_toggles(self, data: npt.NDArray[np.uint8]) -> IntArray:
        """Return the quotes that open, close or reopen a field."""
        quotes = np.flatnonzero(data == QUOTE)
        if not len(quotes):
            return quotes
        before = data[quotes - 1]
        before[0] = self._last if quotes[0] == 0 else before[0]
        starts = np.isin(before, self._field_ends)
        doubled = np.diff(quotes, prepend=-2) == 1
        # In well-formed CSV every quote toggles: vectorised here, and the exception in a loop.
        opening = slice(1 if self._quoted else 0, None, 2)
        return quotes if (starts | doubled)[opening].all() else self._toggles_one_by_one(quotes, starts)

    def _toggles_one_by_one(self, quotes: IntArray, starts: BoolArray) -> IntArray:
        """Find toggles among literal quotes, as in `5" disk`."""
        toggles: list[int] = []
        quoted, closed = self._quoted, -1 if self._just_closed else -2
        for at, starts_field in zip(quotes.tolist(), starts.tolist(), strict=True):
            if quoted:
                closed = at
            elif not starts_field and at != closed + 1:
                continue
            quoted = not quoted
            toggles.append(at)
        return np.array(toggles, np.int64)


def spans(
    number: int, stream: ByteStream, cutter: Cutter, *, block_bytes: int = BLOCK_BYTES, span_rows: int = SPAN_ROWS
) -> Iterator[Span]:
    """Yield the rows of file `number` up to the end."""
    row, last = 0, stream.position
    while block := stream.read(block_bytes):
        ends = cutter.ends(block)
        for at in range(0, len(ends), span_rows):
            marks = np.concatenate([[last], ends[at : at + span_rows]])
            yield Span(file=number, first_row=row, marks=marks)
            row, last = row + len(marks) - 1, int(marks[-1])
    if last < stream.position:
        yield Span(file=number, first_row=row, marks=np.array([last, stream.position], np.int64))


def records(
    stream: ByteStream, cutter: Cutter, limit_bytes: int, stop: int = sys.maxsize, *, block_bytes: int = BLOCK_BYTES
) -> Iterator[bytes | Oversize]:
    """Yield records up to `stop`, with line ends."""
    # At most one block and `limit_bytes` are in memory; a longer record is given as Oversize.
    open_record = _OpenRecord(limit_bytes)
    while stream.position < stop:
        base = stream.position
        block = stream.read(min(block_bytes, stop - base))
        if not block:
            break
        at = 0
        for end in (cutter.ends(block) - base).tolist():
            open_record.add(block[at:end])
            yield open_record.take()
            at = end
        open_record.add(block[at:])
    if open_record.size:
        yield open_record.take()


class _OpenRecord:
    """Record being assembled from blocks."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._parts: list[bytes] = []
        self.size = 0

    def add(self, part: bytes) -> None:
        self.size += len(part)
        if self.size <= self._limit:
            self._parts.append(part)
        else:
            # Two parts are enough for the head; joining all would hold a long record twice.
            self._parts = [(b"".join(self._parts[:2]) or part)[:HEAD_BYTES]]

    def take(self) -> bytes | Oversize:
        whole = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        size, self.size, self._parts = self.size, 0, []
        return whole if size <= self._limit else Oversize(whole[:HEAD_BYTES], size)
