"""Parquet schemas and metadata."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embedmill.base.config import MIB, RunConfig
from embedmill.base.errors import InputError
from embedmill.base.records import InputFile
from embedmill.source.columns import STRINGS, ResolvedColumns, require, require_types, required
from embedmill.source.stream import require_unchanged, translated


def open_parquet(file: InputFile, config: RunConfig, columns: ResolvedColumns) -> Any:
    """Open a Parquet file; raise InputError for unfit columns."""
    with translated(file):
        require_unchanged(file)
        parquet = _opened(file)
        check_schema(file, parquet.schema_arrow, config, columns)
    return parquet


def read_schema(file: InputFile) -> pa.Schema:
    """Return a file's schema; raise InputError for another format."""
    with translated(file):
        return pq.read_schema(file.path)


def carried_schema(schema: pa.Schema, config: RunConfig) -> pa.Schema:
    """Return the carried columns' types, dictionaries and views made plain."""
    return pa.schema([(name, _values_type(schema.field(name).type)) for name in config.columns.carry])


def check_schema(file: InputFile, schema: pa.Schema, config: RunConfig, columns: ResolvedColumns) -> None:
    """Raise InputError unless the job's columns have usable types."""
    require(file, schema.names, required(config.columns, columns.id))
    # A column without any value has the type null where its writer did not know better.
    text = _values_type(schema.field(columns.text).type)
    if text not in (*STRINGS, pa.null()):
        raise _wrong_type(file, columns.text, text, "strings", "columns.text")
    if columns.id is not None:
        found = _values_type(schema.field(columns.id).type)
        if found not in (*STRINGS, pa.null()) and not pa.types.is_integer(found):
            raise _wrong_type(file, columns.id, found, "strings or integers", "columns.id")
    require_types(file, carried_schema(schema, config), columns.carried, "convert the file")


def leaves_of(metadata: Any, *names: str) -> list[int]:
    """Return the leaf columns of, or nested below, named columns."""
    paths = [metadata.schema.column(leaf).path for leaf in range(metadata.num_columns)]
    below = tuple(f"{name}." for name in names if name not in paths)
    return [leaf for leaf, path in enumerate(paths) if path in names or path.startswith(below)]


def try_group(parquet: Any, group: int, columns: ResolvedColumns) -> None:
    """Read a row of a group; raise what pyarrow raises."""
    # To be called before RowGroupMetaData.column, where a footer with damaged size statistics ends the process:
    # pyarrow 26 does not catch what C++ throws there ("level histogram size mismatch"); here it does.
    next(parquet.iter_batches(batch_size=1, row_groups=[group], columns=columns.needed, use_threads=False), None)


def chunk_bytes(row_group: Any, leaves: list[int]) -> int:
    """Sum the uncompressed bytes of leaf columns."""
    return sum(row_group.column(leaf).total_uncompressed_size for leaf in leaves)


def longest_repeated(file: InputFile, metadata: Any, group: int, name: str) -> int:
    """Return the longest dictionary entry's bytes, 0 without a dictionary."""
    # Each row may repeat that text: a file of a few KiB can hold terabytes.
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
    # Without pre_buffer, which would read a whole row group ahead, whatever its size.
    return pq.ParquetFile(file.path, pre_buffer=False, buffer_size=MIB, page_checksum_verification=True, **options)


def _values_type(type: Any) -> Any:
    # Views go because Arrow cannot take rows from them.
    values = type.value_type if pa.types.is_dictionary(type) else type
    return {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}.get(values, values)


def _wrong_type(file: InputFile, name: str, found: Any, expected: str, setting: str) -> InputError:
    return InputError(
        f"{file.path}: the column {name!r} is {found}; expected {expected}, so convert it or change {setting}"
    )
