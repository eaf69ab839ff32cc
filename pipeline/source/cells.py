"""Values of Arrow columns as Python sees them, where one bad value must not spoil the others."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

Cell = str | bytes | None


def strings(column: Any) -> list[Cell]:
    """A column of strings or integers as str; bytes where the value is not valid UTF-8."""
    if pa.types.is_dictionary(column.type):
        return _from_dictionary(column)
    if pa.types.is_integer(column.type):
        return [None if value is None else str(value) for value in column.to_pylist()]
    try:
        values: list[Cell] = column.to_pylist()
    except UnicodeDecodeError:
        wide = pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()
        return [_decoded(value) for value in column.cast(wide).to_pylist()]
    return values


def invalid_rows(table: pa.Table) -> dict[int, str]:
    """Rows that hold invalid UTF-8, each with the name of a column that does."""
    invalid: dict[int, str] = {}
    for name in table.column_names:
        column = table.column(name)
        if _is_valid(column):
            continue
        rows = (at for at in range(len(column)) if not _is_valid(column.take([at])))
        invalid |= dict.fromkeys(rows, name)
    return invalid


def _from_dictionary(column: Any) -> list[Cell]:
    """Equal values become one Python object, decoded once."""
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
