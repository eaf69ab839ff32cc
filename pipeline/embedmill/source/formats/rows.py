"""What a row must be, and the good and bad rows of a stretch of a file."""

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
BLANK = "blank"


class RowError(Exception):
    """Why a row is not embedded: `kind` is the policy of config.rows that decides, or `BLANK`."""

    def __init__(self, kind: str, reason: str, id: str | None = None) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.id = id


class BadRow(Struct, frozen=True):
    """A bad row of a file, counted from 0, with what people need to find and mend it."""

    row: int
    kind: str
    reason: str
    id: str | None
    excerpt: str


class Block(Struct, frozen=True, kw_only=True):
    """Consecutive rows of one file: the good ones column by column, and the faults of the others.

    `rows`, `ids`, `texts` and `carried` have one entry per good row; `rows` counts in the file from 0.
    """

    rows: list[int]
    ids: list[str]
    texts: list[str]
    carried: pa.Table
    faults: list[BadRow]

    @property
    def count(self) -> int:
        """All rows, good and bad."""
        return len(self.rows) + len(self.faults)


class OpenFile(Protocol):
    """An input file that is being read; consecutive pieces cost no reading twice."""

    def blocks(self, piece: Piece) -> Iterator[Block]:
        """The rows of `piece`, in order; raises InputError where the file is damaged or has changed."""

    def close(self) -> None:
        """Lets go of the file."""


class Parser(Protocol):
    """Makes a row of a text record."""

    def row(self, record: bytes, number: int) -> tuple[str, str, list[Any]]:
        """The (id, text, carried values) of row `number` of the file; raises RowError."""


def file_and_row(file: InputFile, row: int) -> str:
    """The id of a row that has none of its own: `FILE:ROW`, rows counted from 1."""
    return f"{file.name}:{row + 1}"


def check_text(text: str, columns: ResolvedColumns, config: RunConfig) -> None:
    """Raises RowError where a text is empty or longer than the limit."""
    if (not text or text.isspace()) and config.rows.empty_text != "embed":
        raise RowError("empty_text", f'"{columns.text}" is {"only white space" if text else "empty"}')
    limit = config.limits.text_bytes
    if len(text) * 4 > limit and (size := len(text.encode())) > limit:
        raise too_long(size, columns, config)


def too_long(size: int, columns: ResolvedColumns, config: RunConfig) -> RowError:
    """What is wrong with a text of so many bytes."""
    limit = config.limits.text_bytes
    return RowError("too_long", f'"{columns.text}" has {size:,} bytes; limits.text_bytes allows {limit:,}')


def excerpt(record: bytes | str) -> str:
    """At most 200 characters of a record, invalid bytes replaced."""
    if isinstance(record, bytes):
        record = record[: 4 * EXCERPT_CHARS].decode("utf-8", "replace").rstrip("\r\n")
    return record[:EXCERPT_CHARS]


def taken(table: pa.Table, rows: Sequence[int]) -> pa.Table:
    """The given rows of a table, which may have no columns."""
    return table.take(pa.array(rows, pa.int64())) if table.num_columns else table


def parsed(
    records: Iterable[bytes | Oversize], first_row: int, parser: Parser, columns: ResolvedColumns, limit_bytes: int
) -> Block:
    """The block of text records that begin at row `first_row`."""
    rows: list[int] = []
    good: list[tuple[str, str, list[Any]]] = []
    faults: list[BadRow] = []
    for number, record in enumerate(records, first_row):
        try:
            good.append(parser.row(_held(record, limit_bytes), number))
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


def _held(record: bytes | Oversize, limit_bytes: int) -> bytes:
    if isinstance(record, Oversize):
        raise RowError("too_long", f"it has {record.size:,} bytes; limits.record_bytes allows {limit_bytes:,}")
    return record


def _table(rows: Sequence[list[Any]], schema: pa.Schema) -> pa.Table:
    arrays = [pa.array([row[at] for row in rows], field.type) for at, field in enumerate(schema)]
    return pa.Table.from_arrays(arrays, schema=schema)
