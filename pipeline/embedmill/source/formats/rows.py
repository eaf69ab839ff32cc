"""Rows of input files: checks, faults, blocks."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any, Generic, Protocol, TypeVar

import pyarrow as pa
from msgspec import Struct

from embedmill.base.config import RunConfig
from embedmill.base.records import InputFile, Piece
from embedmill.source.columns import ResolvedColumns, converted, text_carried
from embedmill.source.formats.boundaries import Oversize

Fields = TypeVar("Fields")
EXCERPT_CHARS = 200
# A kind of fault beside those of `config.rows`: blank lines are skipped, whatever the policies.
BLANK = "blank"


class RowError(Exception):
    """Row fault; `kind` is a policy of config.rows or `BLANK`."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class BadRow(Struct, frozen=True):
    """Bad row, counted from 0, and the reason for people."""

    row: int
    kind: str
    reason: str
    id: str | None
    excerpt: str


class Block(Struct, frozen=True, kw_only=True):
    """Consecutive rows of one file: good ones, and faults."""

    # Of the good rows.
    rows: list[int]  # counted in the file from 0
    ids: list[str]
    texts: list[str]
    carried: pa.Table
    faults: list[BadRow]

    @property
    def count(self) -> int:
        """Number of rows, good and bad."""
        return len(self.rows) + len(self.faults)


class OpenFile(Protocol):
    """Input file being read; consecutive pieces are read once."""

    def blocks(self, piece: Piece) -> Iterator[Block]:
        """Yield rows in order; raise InputError where damaged or changed."""

    def close(self) -> None:
        """Close the file."""


def file_and_row(file: InputFile, row: int) -> str:
    """Return the default id, `FILE:ROW`, rows counted from 1."""
    return f"{file.name}:{row + 1}"


def number_text(value: float, text: str = "") -> str:
    """Format a number: integers without a point, others as `text`."""
    # Above 2**53 a double stands for several integers.
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else text or repr(value)


def is_near(value: float, text: str) -> bool:
    """Return whether a double stands for a number in decimal.

    Digits are rounded, but no integer becomes another, and nothing becomes 0 or infinite.
    """
    if abs(value) < 2**53 and value:
        return True
    if not math.isfinite(value) or not value:
        return not math.isinf(value) and not any(digit in "123456789" for digit in re.split("[eE]", text)[0])
    return not text.lstrip("+-").isdigit() or Decimal(value) == Decimal(text)


def check_text(text: str, columns: ResolvedColumns, config: RunConfig) -> None:
    """Raise RowError for an empty or too long text."""
    if (not text or text.isspace()) and config.rows.empty_text != "embed":
        raise RowError("empty_text", f'"{columns.text}" is {"only white space" if text else "empty"}')
    limit = config.limits.text_bytes
    # A character takes at most four bytes: most texts need not be encoded to be measured.
    if len(text) * 4 > limit and (size := len(text.encode())) > limit:
        raise too_long(size, columns, config)


def check_id(id: str, columns: ResolvedColumns, config: RunConfig) -> None:
    """Raise RowError for a too long id."""
    if (size := len(id.encode())) > config.limits.id_bytes:
        raise long_id(size, columns, config)


def too_long(size: int, columns: ResolvedColumns, config: RunConfig) -> RowError:
    """Return the fault of a text of `size` bytes."""
    limit = config.limits.text_bytes
    return RowError("too_long", f'"{columns.text}" has {size:,} bytes; limits.text_bytes allows {limit:,}')


def long_id(size: int, columns: ResolvedColumns, config: RunConfig) -> RowError:
    """Return the fault of an id of `size` bytes."""
    limit = config.limits.id_bytes
    return RowError("too_long", f'"{columns.id}" has {size:,} bytes; limits.id_bytes allows {limit:,}')


def excerpt(record: bytes | str) -> str:
    """Return at most 200 characters, invalid bytes replaced."""
    if isinstance(record, bytes):
        record = record[: 4 * EXCERPT_CHARS].decode("utf-8", "replace").rstrip("\r\n")
    return record[:EXCERPT_CHARS]


def take(table: pa.Table, rows: Sequence[int]) -> pa.Table:
    """Return rows of a table, with or without columns."""
    return table.take(pa.array(rows, pa.int64())) if table.num_columns else table


class Parser(ABC, Generic[Fields]):
    """Parser of text records; each step raises RowError."""

    def __init__(self, file: InputFile, config: RunConfig, columns: ResolvedColumns) -> None:
        self._file = file
        self._config = config
        self._columns = columns

    def block(self, records: Iterable[bytes | Oversize], first_row: int) -> Block:
        """Parse records, from row `first_row` on."""
        rows: list[int] = []
        ids: list[str] = []
        texts: list[str] = []
        cells: list[list[Any]] = []
        faults: list[BadRow] = []
        name, short_chars = self._columns.id, self._config.limits.id_bytes // 4
        for row, record in enumerate(records, first_row):
            id = None
            try:
                if isinstance(record, Oversize):
                    raise self._oversize(record)
                fields = self.split(record, row)
                found = file_and_row(self._file, row) if name is None else self.id(fields, name)
                # A character takes at most four bytes: most ids need not be measured.
                if len(found) > short_chars and name is not None:
                    check_id(found, self._columns, self._config)
                id = found
                text = self.text(fields)
                check_text(text, self._columns, self._config)
                cells.append(self.carried(fields))
            except RowError as bad:
                head = record.head if isinstance(record, Oversize) else record
                faults.append(BadRow(row, bad.kind, bad.reason, id, excerpt(head)))
            else:
                rows.append(row)
                ids.append(id)
                texts.append(text)
        schema = self._columns.carried
        own = text_carried(self._config).types
        arrays = [pa.array([row[at] for row in cells], type) for at, type in enumerate(own)]
        arrays = [converted(self._file, array, field) for array, field in zip(arrays, schema, strict=True)]
        return Block(
            rows=rows,
            ids=ids,
            texts=texts,
            carried=pa.Table.from_arrays(arrays, schema=schema),
            faults=faults,
        )

    @abstractmethod
    def split(self, record: bytes, row: int) -> Fields:
        """Split the record of a row into fields."""

    @abstractmethod
    def id(self, fields: Fields, name: str) -> str:
        """Return the value of the id column."""

    @abstractmethod
    def text(self, fields: Fields) -> str:
        """Return the text, still unchecked."""

    @abstractmethod
    def carried(self, fields: Fields) -> list[Any]:
        """Return the values of the carried columns."""

    def _oversize(self, record: Oversize) -> RowError:
        limit = self._config.limits.record_bytes
        return RowError("too_long", f"it has {record.size:,} bytes; limits.record_bytes allows {limit:,}")
