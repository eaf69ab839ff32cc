"""Parquet files before they are read: their schema, and their rows by the metadata alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embedmill.base.config import MIB, RunConfig
from embedmill.base.errors import InputError
from embedmill.base.records import InputFile, Span
from embedmill.base.signals import checkpoint
from embedmill.source.columns import STRINGS, ResolvedColumns, require, require_types, wanted
from embedmill.source.formats.boundaries import SPAN_ROWS
from embedmill.source.stream import require_unchanged, translated

if TYPE_CHECKING:
    from embedmill.base.records import IntArray


def open_parquet(file: InputFile, config: RunConfig, columns: ResolvedColumns) -> Any:
    """The pyarrow ParquetFile, checked: it streams pages and verifies their checksums.

    Raises InputError where it is no Parquet file or lacks a column.
    """
    with translated(file):
        require_unchanged(file)
        parquet = _opened(file)
        check_schema(file, parquet.schema_arrow, config, columns)
    return parquet


def read_schema(file: InputFile) -> pa.Schema:
    """The file's columns and types. Raises InputError where it is no Parquet file."""
    with translated(file):
        return pq.read_schema(file.path)


def carried_schema(schema: pa.Schema, config: RunConfig) -> pa.Schema:
    """The carried columns of a file's schema; dictionaries and views become plain values."""
    return pa.schema([(name, _values_type(schema.field(name).type)) for name in config.columns.carry])


def check_schema(file: InputFile, schema: pa.Schema, config: RunConfig, columns: ResolvedColumns) -> None:
    """Raises InputError unless the schema has the job's columns, with usable types.

    A column without any value has the type null where its writer did not know better; that is usable.
    """
    id = [] if columns.id is None else [(columns.id, "columns.id")]
    require(file, schema.names, [*wanted(config.columns), *id])
    text = _values_type(schema.field(columns.text).type)
    if text not in (*STRINGS, pa.null()):
        raise _wrong_type(file, columns.text, text, "strings", "columns.text")
    if columns.id is not None:
        found = _values_type(schema.field(columns.id).type)
        if found not in (*STRINGS, pa.null()) and not pa.types.is_integer(found):
            raise _wrong_type(file, columns.id, found, "strings or integers", "columns.id")
    require_types(file, carried_schema(schema, config), columns.carried)


def survey_parquet(number: int, file: InputFile, config: RunConfig, columns: ResolvedColumns) -> Iterator[Span]:
    """The rows of file `number`, from the metadata alone; see Span for the marks. Raises InputError."""
    with translated(file), open_parquet(file, config, columns) as parquet:
        sizes = [_row_group(file, parquet, at, columns) for at in range(parquet.num_row_groups)]
    row = position = 0
    for rows, size in sizes:
        for at in range(0, rows, SPAN_ROWS):
            steps = np.arange(at, min(at + SPAN_ROWS, rows) + 1, dtype=np.int64)
            yield Span(file=number, first_row=row + at, marks=position + spread(size, rows, steps))
        row, position = row + rows, position + size


def spread(size: int, rows: int, steps: IntArray) -> IntArray:
    """`size * steps // rows`, int64, for steps up to `rows`; no overflow below 3e9 rows."""
    return size // rows * steps + size % rows * steps // rows


def leaves_of(metadata: Any, *names: str) -> list[int]:
    """The leaf columns that make up the columns of these names: itself, or what is nested below it."""
    paths = [metadata.schema.column(leaf).path for leaf in range(metadata.num_columns)]
    below = tuple(f"{name}." for name in names if name not in paths)
    return [leaf for leaf, path in enumerate(paths) if path in names or path.startswith(below)]


def try_group(parquet: Any, group: int, columns: ResolvedColumns) -> None:
    """Read a row of a group; raises what pyarrow does where the group cannot be read.

    To be done before `RowGroupMetaData.column`, by which a footer with damaged size statistics ends the process:
    pyarrow 26 does not catch what C++ throws there ("level histogram size mismatch"); here it does.
    """
    next(parquet.iter_batches(batch_size=1, row_groups=[group], columns=columns.needed, use_threads=False), None)


def chunk_bytes(row_group: Any, leaves: list[int]) -> int:
    """Uncompressed bytes of leaf columns in a row group."""
    return sum(row_group.column(leaf).total_uncompressed_size for leaf in leaves)


def longest_repeated(file: InputFile, metadata: Any, group: int, name: str) -> int:
    """Bytes of the longest text in the dictionary of a row group; 0 where it has none.

    Each row may repeat that text: a file of a few KiB can hold terabytes.
    """
    row_group = metadata.row_group(group)
    if not any(row_group.column(leaf).has_dictionary_page for leaf in leaves_of(metadata, name)):
        return 0
    with translated(file), _opened(file, read_dictionary=[name], metadata=metadata) as parquet:
        rows = parquet.iter_batches(batch_size=1, row_groups=[group], columns=[name], use_threads=False)
        first = next(rows).column(name)
        if not pa.types.is_dictionary(first.type):
            return 0
        return int(pc.max(pc.binary_length(first.dictionary)).as_py() or 0)


def _opened(file: InputFile, **options: Any) -> Any:
    return pq.ParquetFile(file.path, pre_buffer=False, buffer_size=MIB, page_checksum_verification=True, **options)


def _row_group(file: InputFile, parquet: Any, group: int, columns: ResolvedColumns) -> tuple[int, int]:
    """Rows of a row group and bytes of its text; a footer that contradicts itself is an InputError.

    A group that cannot be read keeps its place, with the bytes of all its columns: whoever reads it says what is wrong.
    """
    checkpoint()
    row_group = parquet.metadata.row_group(group)
    rows, size = row_group.num_rows, row_group.total_byte_size
    values = [rows]
    try:
        try_group(parquet, group, columns)
    except (pa.ArrowException, OSError):
        size = max(size, 0)
    else:
        leaves = leaves_of(parquet.metadata, columns.text)
        size = chunk_bytes(row_group, leaves)
        values = [row_group.column(leaf).num_values for leaf in leaves]
    if set(values) != {rows} or rows < 0 or size < 0:
        raise InputError(
            f"{file.path}: truncated or damaged (parquet): a row group claims {rows} rows and"
            f" {values} texts; replace the file or leave it out"
        )
    return rows, size


def _values_type(type: Any) -> Any:
    """The plain type of values that Arrow keeps in a dictionary, or as views (which it cannot pick rows from)."""
    values = type.value_type if pa.types.is_dictionary(type) else type
    return {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}.get(values, values)


def _wrong_type(file: InputFile, name: str, found: Any, expected: str, setting: str) -> InputError:
    return InputError(
        f"{file.path}: the column {name!r} is {found}; expected {expected}, so convert it or change {setting}"
    )
