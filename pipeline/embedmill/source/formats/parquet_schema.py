"""Parquet schemas and metadata."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embedmill.base.config import MIB, RunConfig
from embedmill.base.errors import InputError
from embedmill.base.records import InputFile
from embedmill.source.columns import ResolvedColumns, missing, required, text_carried
from embedmill.source.digest import require_unchanged
from embedmill.source.formats.arrow import is_scalar, is_text, plain, plain_type, type_at
from embedmill.source.partitions import partition_values
from embedmill.source.stream import refuse_foreign, translated

_UNKNOWN_TO_ARROW = frozenset({"Interval", "Variant", "Geometry", "Geography"})
_UTC_TIME = "Time(isAdjustedToUTC=true"
_ARROW = "parquet-cpp-arrow"
_GROUP = re.compile(r"^((?:  )+)\w+ group field_id=-?\d+ (.+?)(?: \((\w+)(?:\(.*\))?\))? \{$", re.MULTILINE)
_MAGIC = (b"PAR1", b"PARE")
_HEAD_BYTES = 64
# Values of lists, beside their levels; up to 32 million are unpacked from any file.
_VALUE_BYTES = 8
_ALWAYS_BYTES = 256 * MIB
_EXPANSION = 64


def open_parquet(file: InputFile, config: RunConfig, columns: ResolvedColumns) -> Any:
    """Open a Parquet file; raise InputError for unfit columns."""
    with translated(file):
        require_unchanged(file)
        _require_parquet(file)
        unit = int96_unit(file, tuple(columns.needed))
        parquet = _opened(file, coerce_int96_timestamp_unit=unit)
        if has_rows(parquet.metadata):
            check_schema(file, parquet.schema_arrow, config, columns)
            _refuse_unknown_meaning(file, parquet.metadata, [*config.columns.carry, *filter(None, [columns.id])])
    return parquet


def read_schema(file: InputFile, config: RunConfig) -> pa.Schema | None:
    """Return a file's schema, None without rows. Raises InputError."""
    names = tuple(name for name, _ in required(config.columns, config.columns.id))
    with translated(file):
        _require_parquet(file)
        with _opened(file, coerce_int96_timestamp_unit=int96_unit(file, names)) as parquet:
            return parquet.schema_arrow if has_rows(parquet.metadata) else None


def has_rows(metadata: Any) -> bool:
    """Return whether a file has columns and rows."""
    groups = range(metadata.num_row_groups)
    return metadata.num_columns > 0 and any(metadata.row_group(group).num_rows for group in groups)


def carried_schema(file: InputFile, schema: pa.Schema, config: RunConfig) -> pa.Schema:
    """Return plain types of carried columns. Raises InputError."""
    types = [(name, _type(file, schema, name, "columns.carry")) for name in config.columns.carry]
    for name, type in types:
        try:
            plain(pa.nulls(0, type))
        except pa.ArrowException as error:
            raise InputError(
                f"{file.path}: the column {name!r} is {type}, which cannot be carried ({error}); convert it, or leave"
                " it out of columns.carry"
            ) from error
    # Columns of the path are text, and typed like it.
    typed = text_carried(config)
    inside = {name for name, _ in types if type_at(schema, name) is not None}
    return pa.schema([(name, plain_type(type) if name in inside else typed.field(name).type) for name, type in types])


def check_schema(file: InputFile, schema: pa.Schema, config: RunConfig, columns: ResolvedColumns) -> None:
    """Raise InputError for missing columns and unusable types."""
    for name, setting in required(config.columns, columns.id):
        found = plain_type(_type(file, schema, name, setting))
        if setting == "columns.text" and not is_text(found):
            raise _wrong_type(file, name, found, "strings", setting)
        if setting == "columns.id" and not is_scalar(found):
            raise _wrong_type(file, name, found, "single values", setting)


def _refuse_unknown_meaning(file: InputFile, metadata: Any, names: Sequence[str]) -> None:
    """Raise InputError for types that Arrow drops."""
    schema = metadata.schema
    kinds = {schema.column(leaf).path: str(schema.column(leaf).logical_type) for leaf in leaves_of(metadata, *names)}
    groups = {path: kind for path, kind in _groups(str(schema)) if any(_overlap(path, name) for name in names)}
    for path, kind in [*kinds.items(), *groups.items()]:
        lost = kind.partition("(")[0] in _UNKNOWN_TO_ARROW
        # Earlier versions of Arrow wrote so whatever the times were.
        if lost or (kind.startswith(_UTC_TIME) and not str(metadata.created_by).startswith(_ARROW)):
            told = "TIME in UTC" if kind.startswith(_UTC_TIME) else kind.partition("(")[0]
            raise InputError(
                f"{file.path}: the column {path!r} is of Parquet's type {told}, of which Arrow keeps the stored values"
                " and not the meaning; convert it, or leave it out of columns.carry"
            )


def _groups(schema: str) -> Iterator[tuple[str, str]]:
    """Yield paths and annotations of groups, from pyarrow's print."""
    path: list[str] = []
    for found in _GROUP.finditer(schema):
        path[len(found[1]) // 2 - 1 :] = [found[2]]
        if found[3]:
            yield ".".join(path), found[3]


def _overlap(path: str, name: str) -> bool:
    return f"{path}.".startswith(f"{name}.") or f"{name}.".startswith(f"{path}.")


def leaves_of(metadata: Any, *names: str) -> list[int]:
    """Return the leaf columns of, or nested below, named columns."""
    paths = [metadata.schema.column(leaf).path for leaf in range(metadata.num_columns)]
    below = tuple(f"{name}." for name in names if name not in paths)
    return [leaf for leaf, path in enumerate(paths) if path in names or path.startswith(below)]


@lru_cache(maxsize=1024)
def int96_unit(file: InputFile, names: tuple[str, ...]) -> str:
    """Return a unit that keeps INT96 timestamps unchanged.

    Microseconds, or nanoseconds where some are finer: these reach from 1677 to 2262 only. Raises InputError if neither
    holds all.
    """
    with _opened(file) as fine, _opened(file, coerce_int96_timestamp_unit="us") as coarse:
        schema = fine.metadata.schema
        found = [schema.column(leaf) for leaf in leaves_of(fine.metadata, *names)]
        leaves = [column.path for column in found if column.physical_type == "INT96"]
        for leaf in leaves:
            pairs = list(zip(fine.iter_batches(columns=[leaf]), coarse.iter_batches(columns=[leaf]), strict=True))
            # Nanoseconds wrap around here as they do where a file is read: equal ones had no finer digits.
            if all(us.column(0).cast(ns.column(0).type, safe=False).equals(ns.column(0)) for ns, us in pairs):
                continue
            _require_nanoseconds(file, leaf, [(us.column(0), ns.column(0).type) for ns, us in pairs])
            return "ns"
    return "us"


def _require_nanoseconds(file: InputFile, leaf: str, columns: list[tuple[Any, Any]]) -> None:
    try:
        for column, type in columns:
            column.cast(type)
    except pa.ArrowInvalid as error:
        raise InputError(
            f"{file.path}: the column {leaf!r} has INT96 timestamps with nanoseconds, and others before 1677 or after"
            " 2262: no type of Arrow holds both, so convert the column"
        ) from error


def try_group(file: InputFile, parquet: Any, group: int, names: list[str]) -> None:
    """Read a row of a group; raise what pyarrow raises.

    Raises InputError for lists of more values than any file of its size would hold.
    """
    # To be called before RowGroupMetaData.column, where a footer with damaged size statistics ends the process:
    # pyarrow 26 does not catch what C++ throws there ("level histogram size mismatch"); here it does.
    metadata = parquet.metadata
    lists = [leaf for leaf in leaves_of(metadata, *names) if is_repeated(metadata, leaf)]
    paths = [metadata.schema.column(leaf).path for leaf in lists]
    # As numbers of a dictionary, for a row may repeat a value without end.
    with _opened(file, read_dictionary=paths, metadata=metadata) if lists else nullcontext(parquet) as tried:
        next(tried.iter_batches(batch_size=1, row_groups=[group], columns=names, use_threads=False), None)
    for leaf in lists:
        chunk = metadata.row_group(group).column(leaf)
        if chunk.num_values * _VALUE_BYTES > max(_ALWAYS_BYTES, _EXPANSION * file.size_bytes):
            raise InputError(
                f"{file.path}: row group {group} packs {chunk.num_values:,} values of the column"
                f" {chunk.path_in_schema!r} into {chunk.total_uncompressed_size:,} bytes; leave it out of"
                " columns.carry, or write smaller row groups"
            )


def chunk_bytes(row_group: Any, leaves: list[int]) -> int:
    """Sum the uncompressed bytes of leaf columns."""
    return sum(row_group.column(leaf).total_uncompressed_size for leaf in leaves)


def is_repeated(metadata: Any, leaf: int) -> bool:
    """Return whether a leaf lies in a list."""
    repeated: bool = metadata.schema.column(leaf).max_repetition_level > 0
    return repeated


def longest_row(file: InputFile, metadata: Any, group: int, leaf: int, enough_bytes: int) -> int:
    """Return the bytes of a leaf's longest row.

    0 where no value is repeated, and for lists that have less than `enough_bytes` in any case.
    """
    chunk, rows = metadata.row_group(group).column(leaf), metadata.row_group(group).num_rows
    longest = _longest_entry(file, metadata, group, leaf)
    if not is_repeated(metadata, leaf):
        return longest
    longest = max(longest, _VALUE_BYTES)
    if (chunk.num_values - rows + 1) * longest <= enough_bytes:
        return 0
    with translated(file), _opened(file, read_dictionary=[chunk.path_in_schema], metadata=metadata) as parquet:
        batches = parquet.iter_batches(row_groups=[group], columns=[chunk.path_in_schema], use_threads=False)
        return longest * max(_most_values(batch.column(0)) for batch in batches)


def _longest_entry(file: InputFile, metadata: Any, group: int, leaf: int) -> int:
    """Return the longest dictionary entry's bytes, 0 without a dictionary."""
    # Each row may repeat that value: a file of a few KiB can hold terabytes.
    chunk = metadata.row_group(group).column(leaf)
    if not chunk.has_dictionary_page or chunk.physical_type != "BYTE_ARRAY":
        return 0
    path = chunk.path_in_schema
    with translated(file), _opened(file, read_dictionary=[path], metadata=metadata) as parquet:
        for batch in parquet.iter_batches(1024, row_groups=[group], columns=[path], use_threads=False):
            column = batch.column(0)
            # Each level has one child, as one leaf is read.
            while pa.types.is_nested(column.type):
                column = column.field(0) if pa.types.is_struct(column.type) else column.values
            if not pa.types.is_dictionary(column.type):
                return 0
            # Rows of nulls alone come without it.
            if len(column.dictionary):
                return int(pc.max(pc.binary_length(column.dictionary)).as_py() or 0)
    return 0


def _most_values(column: Any) -> int:
    """Return the values of the longest row of nested lists."""
    ends = np.arange(len(column) + 1)
    while pa.types.is_nested(column.type):
        if pa.types.is_struct(column.type):
            column = column.field(0)
            continue
        if pa.types.is_fixed_size_list(column.type):
            ends = (ends + column.offset) * column.type.list_size
        else:
            ends = column.offsets.to_numpy()[ends]
        column = column.values
    return int(np.diff(ends).max(initial=0))


def _opened(file: InputFile, **options: Any) -> Any:
    # Without pre_buffer, which would read a whole row group ahead, whatever its size.
    return pq.ParquetFile(file.path, pre_buffer=False, buffer_size=MIB, page_checksum_verification=True, **options)


def _require_parquet(file: InputFile) -> None:
    with Path(file.path).open("rb") as opened:
        head = opened.read(_HEAD_BYTES)
    # Of an encrypted footer, PARE.
    if len(head) < len(_MAGIC[0]) or head.startswith(_MAGIC):
        return
    refuse_foreign(head, file)
    raise InputError(f"{file.path}: holds no Parquet data; let its name end as its content is")


def _type(file: InputFile, schema: pa.Schema, name: str, setting: str) -> Any:
    """Return the type of a file's column. Raises InputError."""
    if schema.names.count(name) > 1:
        raise InputError(f"{file.path}: the column {name!r} is there twice; rename one or change {setting}")
    found = type_at(schema, name)
    if found is None and name in (partitions := partition_values(file.name)):
        return pa.string()
    if found is None:
        raise missing(file, [*schema.names, *partitions], name, setting)
    return found


def _wrong_type(file: InputFile, name: str, found: Any, expected: str, setting: str) -> InputError:
    return InputError(
        f"{file.path}: the column {name!r} is {found}; expected {expected}, so convert it or change {setting}"
    )
