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
LF, CR, QUOTE, COMMA, BACKSLASH, BRACE = b'\n\r",\\}'
_STEP = np.zeros(256, np.int64)
_STEP[list(b"{[")] = 1
_STEP[list(b"}]")] = -1
_IS_MARK = _STEP != 0
_IS_MARK[COMMA] = True


class Dialect(Struct, frozen=True, kw_only=True):
    """Dialect of a CSV file, in ASCII characters; empty: none."""

    delimiter: str
    quote: str
    escape: str
    lone_returns: bool = True  # end lines
    lone_feeds: bool = True


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


class Escapes:
    """Finder of escaped bytes in consecutive blocks."""

    def __init__(self, escape: int) -> None:
        self._escape = escape
        self._pending = False

    def after(self, data: npt.NDArray[np.uint8]) -> IntArray:
        """Return positions of escaped bytes, ascending."""
        # Of a run of escapes every second one is literal, so the byte after an odd run is.
        places = np.flatnonzero(data == self._escape)
        ends = places[np.append(np.diff(places) != 1, True)] if len(places) else places
        starts = places[np.append(True, np.diff(places) != 1)] if len(places) else places
        lengths = ends - starts + 1
        if self._pending and len(starts) and starts[0] == 0:
            lengths[0] += 1
        odd = ends[lengths % 2 == 1] + 1
        if self._pending and not (len(starts) and starts[0] == 0):
            odd = np.concatenate([[0], odd])
        self._pending = bool(len(odd)) and int(odd[-1]) == len(data)
        literal: IntArray = odd[:-1] if self._pending else odd
        return literal


class CsvCutter:
    r"""Cutter of CSV records, by the grammar of Python's csv.reader.

    Quoted fields may hold line ends. A line ends with `\n`, `\r\n` or `\r`. A quote opens a field only at its start;
    inside, two quotes stand for one; what follows the closing quote, up to the delimiter, is literal. The byte after
    an escape is literal anywhere. It begins at the start of a record.
    """

    def __init__(self, dialect: Dialect, start: int) -> None:
        self._lone_returns, self._lone_feeds = dialect.lone_returns, dialect.lone_feeds
        self._field_ends = np.array([ord(dialect.delimiter), LF, *[CR] * dialect.lone_returns], np.uint8)
        self._quote = ord(dialect.quote) if dialect.quote else None
        self._escapes = Escapes(ord(dialect.escape)) if dialect.escape else None
        self._position = start
        self._ended_field = True
        self._quoted = False
        self._just_closed = False
        self._return_pending = False
        self._feed_pending = False

    def ends(self, block: bytes) -> IntArray:
        """See Cutter."""
        if not block:
            return np.empty(0, np.int64)
        data = np.frombuffer(block, np.uint8)
        escaped = self._escaped(data)
        toggles = self._quote_toggles(data, escaped)
        lines = self._line_ends(data, escaped)
        # A line end after an odd number of toggles lies inside quotes, and ends no record.
        quoted = (np.searchsorted(toggles, lines) + self._quoted) % 2 == 1
        found: IntArray = lines[~quoted] + (self._position + 1)
        self._quoted = (len(toggles) + self._quoted) % 2 == 1
        self._just_closed = not self._quoted and len(toggles) > 0 and bool(toggles[-1] == len(data) - 1)
        last_is_escaped = len(escaped) > 0 and bool(escaped[-1] == len(data) - 1)
        # Whether a return at the block's end is a line end of its own depends on the next byte.
        ends_in_return = self._lone_returns and bool(data[-1] == CR)
        self._return_pending = ends_in_return and not self._quoted and not last_is_escaped
        self._ended_field = bool(np.isin(data[-1], self._field_ends)) and not last_is_escaped
        self._position += len(block)
        return found

    def _escaped(self, data: npt.NDArray[np.uint8]) -> IntArray:
        """Return positions of escaped bytes, line ends in full."""
        if self._escapes is None:
            return np.empty(0, np.int64)
        escaped = self._escapes.after(data)
        feeds = escaped[data[escaped] == CR] + 1
        if self._feed_pending:
            feeds = np.concatenate([[0], feeds])
        self._feed_pending = bool(len(feeds)) and int(feeds[-1]) == len(data)
        feeds = feeds[:-1] if self._feed_pending else feeds
        found: IntArray = np.union1d(escaped, feeds[data[feeds] == LF])
        return found

    def _line_ends(self, data: npt.NDArray[np.uint8], escaped: IntArray) -> IntArray:
        """Return where lines end in a block, quoted or not."""
        lines = np.flatnonzero(data == LF)
        if not self._lone_feeds:
            lines = lines[np.where(lines > 0, data[lines - 1] == CR, self._return_pending)]
        if not self._lone_returns:
            return _without(lines, escaped)
        returns = np.flatnonzero(data[:-1] == CR)
        lone = returns[data[returns + 1] != LF]
        if self._return_pending and data[0] != LF:
            # -1: the return at the end of the block before.
            lone = np.concatenate([[-1], lone])
        found = np.sort(np.concatenate([lines, lone])) if len(lone) else lines
        return _without(found, escaped)

    def _quote_toggles(self, data: npt.NDArray[np.uint8], escaped: IntArray) -> IntArray:
        """Return the quotes that open, close or reopen a field."""
        if self._quote is None:
            return np.empty(0, np.int64)
        quotes = _without(np.flatnonzero(data == self._quote), escaped)
        if not len(quotes):
            return quotes
        starts = np.isin(data[quotes - 1], self._field_ends)
        if len(escaped):
            starts &= ~np.isin(quotes - 1, escaped)
        if quotes[0] == 0:
            starts[0] = self._ended_field
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


class JsonCutter:
    """Cutter of a JSON array's elements, or of concatenated objects.

    An element ends after its comma, or after what opens another array; an object before the next one. The last ends
    with the file: what closes the array is part of it.
    """

    def __init__(self, start: int, *, in_array: bool) -> None:
        self._start = self._position = self._last_end = start
        self._in_array = in_array
        self._depth = 1 if in_array else 0
        self._in_string = False
        self._escapes = Escapes(BACKSLASH)

    @property
    def lacks_element(self) -> bool:
        """Return True after a comma or an array's opening."""
        return self._depth > 0 and self._last_end == self._position

    def ends(self, block: bytes) -> IntArray:
        """See Cutter."""
        data = np.frombuffer(block, np.uint8)
        quotes = _without(np.flatnonzero(data == QUOTE), self._escapes.after(data))
        marks = np.flatnonzero(_IS_MARK[data])
        outside = (np.searchsorted(quotes, marks) + self._in_string) % 2 == 0
        marks = marks[outside]
        steps = _STEP[data[marks]]
        depths = self._depth + np.cumsum(steps)
        if self._in_array and (depths[data[marks] == BRACE] <= 0).any():
            depths = self._without_surplus(data[marks], steps)
        if self._in_array:
            # Also where another array begins.
            found: IntArray = marks[((data[marks] == COMMA) | (steps == 1)) & (depths == 1)] + (self._position + 1)
        else:
            found = marks[(steps == 1) & (depths == 1)] + self._position
            found = found[found > self._start]
        self._last_end = int(found[-1]) if len(found) else self._last_end
        self._depth = int(depths[-1]) if len(depths) else self._depth
        self._in_string = (len(quotes) + self._in_string) % 2 == 1
        self._position += len(block)
        return found

    def _without_surplus(self, marks: npt.NDArray[np.uint8], steps: IntArray) -> IntArray:
        """Count depths so that a surplus brace spoils one row."""
        depths = [self._depth]
        for mark, step in zip(marks.tolist(), steps.tolist(), strict=True):
            depths.append(depths[-1] + (0 if mark == BRACE and depths[-1] <= 1 else step))
        return np.array(depths[1:], np.int64)


def _without(places: IntArray, literal: IntArray) -> IntArray:
    kept: IntArray = places[~np.isin(places, literal)] if len(literal) else places
    return kept


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
