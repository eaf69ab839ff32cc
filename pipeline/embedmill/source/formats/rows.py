"""Rows of input files: checks, faults, blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import pyarrow as pa
from msgspec import Struct

from embedmill.base.config import RunConfig
from embedmill.base.records import InputFile, Piece
from embedmill.source.columns import ResolvedColumns
from embedmill.source.formats.boundaries import Oversize

EXCERPT_CHARS = 200
# A kind of fault beside those of `config.rows`: blank lines are skipped, whatever the policies.
BLANK = "blank"


class RowError(Exception):
    """Row fault; `kind` is a policy of config.rows or `BLANK`."""

    def __init__(self, kind: str, reason: str, id: str | None = None) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.id = id


class BadRow(Struct, frozen=True):
    """Bad row, counted from 0, and the reason for people."""

    row: int
    kind: str
    reason: str
    id: str | None
    excerpt: str


class Block(Struct, frozen=True, kw_only=True):
    """Consecutive rows of one file: good ones, and faults.

    `rows`, `ids`, `texts` and `carried` have one entry per good row; `rows` counts in the file from 0.
    """

    rows: list[int]
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


class Parser(Protocol):
    """Parser of text records."""

    def row(self, record: bytes, number: int) -> tuple[str, str, list[Any]]:
        """Return row `number` as (id, text, carried values); raise RowError."""


def file_and_row(file: InputFile, row: int) -> str:
    """Return the default id, `FILE:ROW`, rows counted from 1."""
    return f"{file.name}:{row + 1}"


def check_text(text: str, columns: ResolvedColumns, config: RunConfig) -> None:
    """Raise RowError for an empty or too long text."""
    if (not text or text.isspace()) and config.rows.empty_text != "embed":
        raise RowError("empty_text", f'"{columns.text}" is {"only white space" if text else "empty"}')
    limit = config.limits.text_bytes
    # A character takes at most four bytes: most texts need not be encoded to be measured.
    if len(text) * 4 > limit and (size := len(text.encode())) > limit:
        raise too_long(size, columns, config)


def too_long(size: int, columns: ResolvedColumns, config: RunConfig) -> RowError:
    """Return the fault of a text of `size` bytes."""
    limit = config.limits.text_bytes
    return RowError("too_long", f'"{columns.text}" has {size:,} bytes; limits.text_bytes allows {limit:,}')


def excerpt(record: bytes | str) -> str:
    """Return at most 200 characters, invalid bytes replaced."""
    if isinstance(record, bytes):
        record = record[: 4 * EXCERPT_CHARS].decode("utf-8", "replace").rstrip("\r\n")
    return record[:EXCERPT_CHARS]


def take(table: pa.Table, rows: Sequence[int]) -> pa.Table:
    """Return rows of a table, with or without columns."""
    return table.take(pa.array(rows, pa.int64())) if table.num_columns else table


def parsed(
    records: Iterable[bytes | Oversize], first_row: int, parser: Parser, columns: ResolvedColumns, limit_bytes: int
) -> Block:
    """Parse text records, from row `first_row` on, into a block."""
    rows: list[int] = []
    good: list[tuple[str, str, list[Any]]] = []
    faults: list[BadRow] = []
    for number, record in enumerate(records, first_row):
        try:
            good.append(parser.row(_within_limit(record, limit_bytes), number))
            rows.append(number)
        except RowError as bad:
            head = record.head if isinstance(record, Oversize) else record
            faults.append(BadRow(number, bad.kind, bad.reason, bad.id, excerpt(head)))
    return Block(
        rows=rows,
        ids=[id for id, _, _ in good],
        texts=[text for _, text, _ in good],
        carried=_table([cells for _, _, cells in good], columns.carried),
        faults=faults,
    )


def _within_limit(record: bytes | Oversize, limit_bytes: int) -> bytes:
    if isinstance(record, Oversize):
        raise RowError("too_long", f"it has {record.size:,} bytes; limits.record_bytes allows {limit_bytes:,}")
    return record


def _table(rows: Sequence[list[Any]], schema: pa.Schema) -> pa.Table:
    arrays = [pa.array([row[at] for row in rows], field.type) for at, field in enumerate(schema)]
    return pa.Table.from_arrays(arrays, schema=schema)
