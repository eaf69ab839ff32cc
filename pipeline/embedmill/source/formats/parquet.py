"""Parquet, read a few rows at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from embedmill.base.config import MIB, RunConfig
from embedmill.base.errors import InputError
from embedmill.base.records import InputFile, IntArray, Piece, Span
from embedmill.base.signals import checkpoint
from embedmill.source.columns import ResolvedColumns, converted, resolved
from embedmill.source.digest import changed
from embedmill.source.formats.arrow import (
    Cell,
    column_at,
    id_texts,
    invalid_rows,
    is_text,
    plain,
    stored,
    strings,
    type_at,
    without_long,
)
from embedmill.source.formats.boundaries import SPAN_ROWS, Oversize
from embedmill.source.formats.parquet_schema import (
    carried_schema,
    check_schema,
    chunk_bytes,
    has_rows,
    is_repeated,
    leaves_of,
    longest_row,
    open_parquet,
    read_schema,
    try_group,
)
from embedmill.source.formats.rows import (
    BadRow,
    Block,
    RowError,
    check_text,
    excerpt,
    file_and_row,
    long_id,
    take,
    too_long,
)
from embedmill.source.formats.values import partition_column
from embedmill.source.partitions import partition_values
from embedmill.source.stream import translated

ENDINGS: tuple[str, ...] = (".parquet", ".parq", ".pq")
COMPRESSIBLE = False
BATCH_BYTES = 4 * MIB
BATCH_ROWS = 1024
REPEATED_BYTES = 64 * MIB


def find_columns(file: InputFile, others: Iterable[InputFile], config: RunConfig) -> ResolvedColumns | None:
    """See Format; the schema of `file` decides."""
    schema = read_schema(file, config)
    if schema is None:
        return None
    columns = resolved(config, [*schema.names, *partition_values(file.name)], carried_schema(file, schema, config))
    check_schema(file, schema, config, columns)
    return columns


def carried_types(file: InputFile, config: RunConfig) -> pa.Schema | None:
    """See Format."""
    schema = read_schema(file, config)
    return None if schema is None else carried_schema(file, schema, config)


def survey(
    number: int, file: InputFile, config: RunConfig, columns: ResolvedColumns, *, span_rows: int = SPAN_ROWS
) -> Iterator[Span]:
    """See Format; only the metadata is read."""
    with translated(file), open_parquet(file, config, columns) as parquet:
        # Any columns at all may be in a file without rows.
        groups = range(parquet.num_row_groups if has_rows(parquet.metadata) else 0)
        sizes = [_row_group(file, parquet, at, columns) for at in groups]
    row = position = 0
    for rows, size in sizes:
        for at in range(0, rows, span_rows):
            steps = np.arange(at, min(at + span_rows, rows) + 1, dtype=np.int64)
            yield Span(file=number, first_row=row + at, marks=position + spread(size, rows, steps))
        row, position = row + rows, position + size


def spread(size: int, rows: int, steps: IntArray) -> IntArray:
    """Return `size * steps // rows`, int64."""
    # For steps up to `rows`, in two terms, so that nothing overflows below 3e9 rows.
    return size // rows * steps + size % rows * steps // rows


def open_file(file: InputFile, config: RunConfig, columns: ResolvedColumns) -> ParquetFile:
    """See Format."""
    return ParquetFile(file, config, columns)


class ParquetFile:
    """Open Parquet file (see OpenFile), one batch in memory."""

    def __init__(self, file: InputFile, config: RunConfig, columns: ResolvedColumns) -> None:
        self._file = file
        self._config = config
        self._columns = columns
        self._parquet = open_parquet(file, config, columns)
        self._metadata = self._parquet.metadata
        self._names = present(self._parquet.schema_arrow, columns)
        self._partitions = partition_values(file.name)
        self._needed_leaves = leaves_of(self._metadata, *columns.needed)
        with translated(file):
            groups = range(self._metadata.num_row_groups)
            rows = [self._metadata.row_group(group).num_rows for group in groups]
        self._starts = np.cumsum([0, *rows], dtype=np.int64)
        self._group = -1
        self._row = 0
        self._batches: Iterator[Any] = iter(())
        self._rest: Any = None

    def blocks(self, piece: Piece) -> Iterator[Block]:
        """See OpenFile."""
        self._seek(piece.first_row)
        left = piece.rows
        texts: dict[str, str] = {}
        while left:
            first_row = self._row
            batch = self._next(left)
            left -= batch.num_rows
            yield self._block(batch, first_row, texts)

    def close(self) -> None:
        """See OpenFile."""
        self._batches, self._rest = iter(()), None
        self._parquet.close()

    def _seek(self, row: int) -> None:
        """Go to `row`; rows before in the group are decoded."""
        if row >= self._starts[-1]:
            raise changed(self._file)
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        if row < self._row or group > self._group:
            self._enter(group)
        while self._row < row:
            self._next(row - self._row)

    def _enter(self, group: int) -> None:
        self._group, self._row, self._rest = group, int(self._starts[group]), None
        with translated(self._file):
            rows, names = self._batch_rows(group), self._names
            self._batches = self._parquet.iter_batches(rows, row_groups=[group], columns=names, use_threads=False)

    def _enter_next(self) -> None:
        # A group that ended early, or a last one that is left too soon, is not as it was surveyed.
        following = self._group + 1
        if following + 1 >= len(self._starts) or self._row != self._starts[following]:
            raise changed(self._file)
        self._enter(following)

    def _next(self, at_most: int) -> Any:
        """Return the next 1 to `at_most` rows as a RecordBatch."""
        checkpoint()
        while self._rest is None or not self._rest.num_rows:
            with translated(self._file):
                self._rest = next(self._batches, None)
            if self._rest is None:
                self._enter_next()
        batch = self._rest.slice(0, at_most)
        self._rest = self._rest.slice(batch.num_rows)
        self._row += batch.num_rows
        return batch

    def _batch_rows(self, group: int) -> int:
        """Return rows per batch of about 4 MiB."""
        try_group(self._file, self._parquet, group, self._names)
        row_group = self._metadata.row_group(group)
        rows, size = row_group.num_rows, chunk_bytes(row_group, self._needed_leaves)
        fitting = int(max(1, min(BATCH_ROWS, BATCH_BYTES * rows // max(size, 1))))
        for leaf in self._needed_leaves:
            # Values are stored once and may be repeated by every row, and within lists: 64 MiB if all are.
            if min(fitting, rows) * chunk_bytes(row_group, [leaf]) > REPEATED_BYTES or is_repeated(
                self._metadata, leaf
            ):
                longest = longest_row(self._file, self._metadata, group, leaf, REPEATED_BYTES)
                if longest > (most := self._config.limits.carried_bytes):
                    name = row_group.column(leaf).path_in_schema
                    raise InputError(
                        f"{self._file.path}: a row of row group {group} has {longest:,} bytes in the column {name!r};"
                        f" limits.carried_bytes allows {most:,}; leave it out of columns.carry, or raise the limit"
                    )
                fitting = max(1, min(fitting, REPEATED_BYTES // max(longest, 1)))
        return fitting

    def _block(self, batch: Any, first_row: int, known: dict[str, str]) -> Block:
        """Make a block; equal texts become one string of `known`."""
        with translated(self._file):
            # A text may be as large as all memory, so it must not become a Python object before it is measured.
            text_column = stored(self._as_stored(batch, self._columns.text))
            column, long = without_long(text_column, self._config.limits.text_bytes)
            texts = strings(column)
            ids, long_ids = self._ids(batch, first_row)
            carried = self._carried(batch)
            invalid = invalid_rows(carried)
        good: list[tuple[int, str, str]] = []
        faults: list[BadRow] = []
        for at, (id, text) in enumerate(zip(ids, texts, strict=True)):
            try:
                if at in long_ids:
                    raise long_id(long_ids[at].size, self._columns, self._config)
                good.append((at, *self._checked(id, text, invalid.get(at), long.get(at))))
            except RowError as bad:
                readable = id if isinstance(id, str) and id else None
                shown = excerpt(long[at].head if at in long else text or "")
                faults.append(BadRow(first_row + at, bad.kind, bad.reason, readable, shown))
        return Block(
            rows=[first_row + at for at, _, _ in good],
            ids=[id for _, id, _ in good],
            texts=[known.setdefault(text, text) for _, _, text in good],
            carried=take(carried, [at for at, _, _ in good]) if faults else carried,
            faults=faults,
        )

    def _ids(self, batch: Any, first_row: int) -> tuple[list[Cell], dict[int, Oversize]]:
        if self._columns.id is None:
            return [file_and_row(self._file, first_row + at) for at in range(batch.num_rows)], {}
        column = self._as_stored(batch, self._columns.id)
        if not is_text(column.type):
            return id_texts(column), {}
        column, long = without_long(stored(column), self._config.limits.id_bytes)
        return id_texts(column), long

    def _carried(self, batch: Any) -> pa.Table:
        schema = self._columns.carried
        return pa.Table.from_arrays([self._column(batch, field) for field in schema], schema=schema)

    def _column(self, batch: Any, field: pa.Field) -> Any:
        if self._is_partition(batch, field.name):
            return partition_column(self._file, self._partitions[field.name], field, batch.num_rows)
        return converted(self._file, plain(column_at(batch, field.name)), field)

    def _as_stored(self, batch: Any, name: str) -> Any:
        is_partition = self._is_partition(batch, name)
        return self._column(batch, pa.field(name, pa.string())) if is_partition else column_at(batch, name)

    def _is_partition(self, batch: Any, name: str) -> bool:
        return name in self._partitions and type_at(batch.schema, name) is None

    def _checked(self, id: Cell, text: Cell, invalid: str | None, long: Oversize | None) -> tuple[str, str]:
        if not id:
            type = type_at(self._parquet.schema_arrow, self._columns.id or "")
            what = "null" if id is None else "NaN" if pa.types.is_floating(type) else "empty"
            raise RowError("wrong_type", f'"{self._columns.id}" is {what}; expected an id')
        if long is not None:
            raise too_long(long.size, self._columns, self._config)
        if text is None:
            raise RowError("null_text", f'"{self._columns.text}" is null')
        if isinstance(id, bytes) or isinstance(text, bytes) or invalid is not None:
            name = self._columns.text if isinstance(text, bytes) else invalid or self._columns.id
            raise RowError("malformed", f'"{name}" is not valid UTF-8')
        check_text(text, self._columns, self._config)
        return id, text


def _row_group(file: InputFile, parquet: Any, group: int, columns: ResolvedColumns) -> tuple[int, int]:
    """Return rows and bytes of text; refuse a contradictory footer."""
    checkpoint()
    row_group = parquet.metadata.row_group(group)
    rows, size = row_group.num_rows, row_group.total_byte_size
    values = [rows]
    try:
        try_group(file, parquet, group, present(parquet.schema_arrow, columns))
    except (pa.ArrowException, OSError):
        # Keeps its place, with the bytes of all columns: other groups stay readable, and reading says what is wrong.
        size = max(size, 0)
    else:
        # None where the text is a key of the path.
        if leaves := leaves_of(parquet.metadata, columns.text):
            size = chunk_bytes(row_group, leaves)
            values = [row_group.column(leaf).num_values for leaf in leaves]
    if set(values) != {rows} or rows < 0 or size < 0:
        raise InputError(
            f"{file.path}: truncated or damaged (parquet): a row group claims {rows} rows and"
            f" {values} texts; replace the file or leave it out"
        )
    return rows, size


def present(schema: pa.Schema, columns: ResolvedColumns) -> list[str]:
    """List columns present in a file's schema."""
    # At least one column, because pyarrow counts the rows by columns.
    return [name for name in columns.needed if type_at(schema, name) is not None] or schema.names[:1]
