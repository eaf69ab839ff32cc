"""Conversion of Arrow columns to Python values."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.source.formats.boundaries import HEAD_BYTES, Oversize

Cell = str | bytes | None


def strings(column: Any) -> list[Cell]:
    """Return strings or integers as str, invalid UTF-8 as bytes."""
    if pa.types.is_dictionary(column.type):
        return _from_dictionary(column)
    if pa.types.is_integer(column.type):
        return [None if value is None else str(value) for value in column.to_pylist()]
    try:
        values: list[Cell] = column.to_pylist()
    except UnicodeDecodeError:
        # One bad value fails the whole column; decoded one by one, the others are saved.
        wide = pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()
        return [_decoded(value) for value in column.cast(wide).to_pylist()]
    return values


def without_long(column: Any, limit_bytes: int) -> tuple[Any, dict[int, Oversize]]:
    """Replace values above `limit_bytes` with null; return both, by place."""
    if column.nbytes <= limit_bytes or pa.types.is_null(column.type):
        return column, {}
    # Views have no offsets to measure by.
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.large_string())
    if not pa.types.is_dictionary(column.type):
        found = _long_values(column, limit_bytes)
        return (pc.if_else(_mask(found, len(column)), None, column) if found else column), found
    values = _long_values(column.dictionary, limit_bytes)
    found = {at: values[index] for at, index in enumerate(column.indices.to_pylist()) if index in values}
    indices = pc.if_else(_mask(found, len(column)), None, column.indices)
    return pa.DictionaryArray.from_arrays(indices, column.dictionary), found


def invalid_rows(table: pa.Table) -> dict[int, str]:
    """Map rows with invalid UTF-8 to one such column's name."""
    invalid: dict[int, str] = {}
    for name in table.column_names:
        column = table.column(name)
        if _is_valid(column):
            continue
        # Nested types are checked too, which only Arrow's own validation does: row by row.
        rows = (at for at in range(len(column)) if not _is_valid(column.take([at])))
        invalid |= dict.fromkeys(rows, name)
    return invalid


def _long_values(column: Any, limit_bytes: int) -> dict[int, Oversize]:
    if not len(column):
        return {}
    wide = pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type)
    # From Arrow's layout (validity, offsets, data), for a scalar of Arrow's would be a copy of the value.
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int64 if wide else np.int32)[column.offset : column.offset + len(column) + 1]
    sizes = np.diff(ends)
    return {
        int(at): Oversize(data.slice(int(ends[at]), min(int(sizes[at]), HEAD_BYTES)).to_pybytes(), int(sizes[at]))
        for at in np.flatnonzero(sizes > limit_bytes)
    }


def _mask(places: Collection[int], length: int) -> Any:
    mask = np.zeros(length, np.bool_)
    mask[list(places)] = True
    return pa.array(mask)


def _from_dictionary(column: Any) -> list[Cell]:
    # Equal values become one Python object, decoded once: a small file may repeat a long text without end.
    used = pc.unique(column.indices)
    values = dict(zip(used.to_pylist(), strings(column.dictionary.take(used)), strict=True))
    return [values[index] for index in column.indices.to_pylist()]


def _decoded(value: bytes | None) -> Cell:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _is_valid(column: Any) -> bool:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
