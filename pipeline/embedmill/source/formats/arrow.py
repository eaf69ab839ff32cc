"""Conversion of Arrow columns: paths, plain types, Python values."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedmill.source.columns import paths
from embedmill.source.formats.boundaries import HEAD_BYTES, Oversize
from embedmill.source.formats.rows import number_text

Cell = str | bytes | None
_types = pa.types
_TEXTS = (pa.string(), pa.large_string())
_BINARIES = (pa.binary(), pa.large_binary())
_WITHOUT_VIEWS = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
_LISTS: tuple[tuple[Callable[[Any], bool], Callable[[Any], Any]], ...] = (
    (_types.is_list, pa.list_),
    (_types.is_list_view, pa.list_view),
    (_types.is_large_list, pa.large_list),
    (_types.is_large_list_view, pa.large_list_view),
)


def type_at(parent: Any, name: str) -> Any:
    """Find the type of a column or nested field."""
    path = _path(parent, name)
    for part in path:
        parent = parent.field(part).type
    return parent if path else None


def column_at(batch: Any, name: str) -> Any:
    """Return a column or nested field, with outer nulls."""
    first, *inner = _path(batch.schema, name)
    column = batch.column(first)
    for part in inner:
        column = pc.struct_field(column, [part])
    return column


def plain_type(type: Any) -> Any:
    """Replace dictionaries, views and runs in a nested type."""
    # Views of strings go because Arrow cannot take rows from them; a dictionary is a way to store the same values.
    # Views of lists stay: Arrow can take rows, and its cast to lists makes arrays that are not valid.
    if _types.is_dictionary(type) or _types.is_run_end_encoded(type):
        return plain_type(type.value_type)
    if type in _WITHOUT_VIEWS:
        return _WITHOUT_VIEWS[type]
    if (inner := _storage(type)) != type:
        return type if plain_type(inner) == inner else plain_type(inner)
    if _types.is_struct(type):
        return pa.struct([_plain_field(type.field(at)) for at in range(type.num_fields)])
    if _types.is_map(type):
        return pa.map_(_plain_field(type.key_field), _plain_field(type.item_field), type.keys_sorted)
    if _types.is_fixed_size_list(type):
        return pa.list_(_plain_field(type.value_field), type.list_size)
    for is_kind, make in _LISTS:
        if is_kind(type):
            return make(_plain_field(type.value_field))
    return type


def plain(column: Any) -> Any:
    """Cast a column to `plain_type`."""
    if _types.is_dictionary(column.type):
        # Arrow cannot decode a dictionary of views, and refuses to cast one with invalid UTF-8.
        return _with_plain_values(column).dictionary_decode()
    return column if (type := plain_type(column.type)) == column.type else column.cast(type)


def is_text(type: Any) -> bool:
    """Return whether a type holds text or bytes."""
    return _storage(plain_type(type)) in (*_TEXTS, *_BINARIES, pa.null())


def is_scalar(type: Any) -> bool:
    """Return whether a type holds single values."""
    return not _types.is_nested(_storage(plain_type(type)))


def id_texts(column: Any) -> list[Cell]:
    """Format ids: ISO 8601 times, hexadecimal fixed-size binary."""
    column = plain(column)
    if isinstance(column.type, pa.UuidType):
        return [None if value is None else str(value) for value in column.to_pylist()]
    column = stored(column)
    for is_kind, read in _ID_READERS:
        if is_kind(column.type):
            return read(column)
    return strings(column)


def stored(column: Any) -> Any:
    """Return an extension column's storage, other columns unchanged."""
    return column.storage if isinstance(column.type, pa.BaseExtensionType) else column


def strings(column: Any) -> list[Cell]:
    """Return text as str, and invalid UTF-8 as bytes."""
    if _types.is_dictionary(column.type):
        return _from_dictionary(column)
    if column.type in _BINARIES:
        return [_decoded(value) for value in column.to_pylist()]
    try:
        values: list[Cell] = column.to_pylist()
    except UnicodeDecodeError:
        # One bad value fails the whole column; decoded one by one, the others are saved.
        wide = pa.large_binary() if _types.is_large_string(column.type) else pa.binary()
        return [_decoded(value) for value in column.cast(wide).to_pylist()]
    return values


def without_long(column: Any, limit_bytes: int) -> tuple[Any, dict[int, Oversize]]:
    """Replace values above `limit_bytes` with null; return both, by place."""
    # Views have no offsets to measure by; a dictionary stays one, for its values may be repeated without end.
    column = _with_plain_values(column) if _types.is_dictionary(column.type) else plain(column)
    if column.nbytes <= limit_bytes or _types.is_null(column.type):
        return column, {}
    if not _types.is_dictionary(column.type):
        found = _long_values(column, limit_bytes)
        return (pc.if_else(_mask(found, len(column)), None, column) if found else column), found
    values = _long_values(column.dictionary, limit_bytes)
    found = {at: values[index] for at, index in enumerate(column.indices.to_pylist()) if index in values}
    indices = pc.if_else(_mask(found, len(column)), None, column.indices)
    return pa.DictionaryArray.from_arrays(indices, column.dictionary, safe=False), found


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
    wide = _types.is_large_string(column.type) or _types.is_large_binary(column.type)
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
    except pa.ArrowInvalid as error:
        # Times of over a day and decimals of more digits than declared are not valid either, but unchanged.
        return "UTF8" not in str(error)
    return True


def _with_plain_values(column: Any) -> Any:
    values = plain(column.dictionary)
    same = values.type == column.dictionary.type
    # Not safe: the check would refuse all rows for one value that is not UTF-8.
    return column if same else pa.DictionaryArray.from_arrays(column.indices, values, safe=False)


def _path(parent: Any, name: str) -> list[int]:
    """Return the indices of a column and nested fields."""
    # A column of that name comes before a dotted path.
    if (at := parent.get_field_index(name)) >= 0:
        return [at]
    for column, field in paths(name):
        at = parent.get_field_index(column)
        if at >= 0 and _types.is_struct(outer := parent.field(at).type) and (inner := _path(outer, field)):
            return [at, *inner]
    return []


def _plain_field(field: Any) -> Any:
    return field.with_type(plain_type(field.type))


def _storage(type: Any) -> Any:
    return type.storage_type if isinstance(type, pa.BaseExtensionType) else type


def _number_texts(column: Any) -> list[Cell]:
    # The shortest text of a number of half or single precision is Arrow's, not that of the double.
    column = column.cast(pa.float32()) if _types.is_float16(column.type) else column
    pairs = zip(column.to_pylist(), column.cast(pa.string()).to_pylist(), strict=True)
    # NaN is no id, as an empty text is none.
    return [value if value is None else "" if value != value else number_text(value, short) for value, short in pairs]


def _time_texts(column: Any) -> list[Cell]:
    # As text of UTC: a cast in a time zone needs its rules, which Windows lacks.
    zoned = _types.is_timestamp(column.type) and column.type.tz is not None
    plain_times = column.cast(pa.timestamp(column.type.unit)) if zoned else column
    end = "Z" if zoned else ""
    numbers = column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64()).to_pylist()
    pairs = zip(plain_times.cast(pa.string()).to_pylist(), numbers, strict=True)
    # Of a time that no calendar has, the number.
    return [None if text is None else str(number) if text[0] == "<" else text + end for text, number in pairs]


def _each(read: Callable[[Any], str]) -> Callable[[Any], list[Cell]]:
    return lambda column: [None if value is None else read(value) for value in column.to_pylist()]


_ID_READERS: tuple[tuple[Callable[[Any], bool], Callable[[Any], list[Cell]]], ...] = (
    (_types.is_integer, _each(str)),
    (_types.is_floating, _number_texts),
    (_types.is_boolean, _each(lambda value: str(value).lower())),
    (_types.is_decimal, _each(lambda value: f"{value:f}")),
    (_types.is_duration, lambda column: _each(str)(column.cast(pa.int64()))),
    (_types.is_temporal, _time_texts),
    (_types.is_fixed_size_binary, _each(bytes.hex)),
)
