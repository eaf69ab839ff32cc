"""Columns of a job, and checks of a file's columns."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
from msgspec import Struct, structs

from embedmill.base.config import ColumnsTable, RunConfig
from embedmill.base.errors import InputError
from embedmill.base.records import InputFile

CARRIED_TYPES = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
INT64 = range(-(2**63), 2**63)
# Characters of a column's name that a message quotes.
_SHOWN = 80
_INTEGER_DIGITS = {8: 3, 16: 5, 32: 10, 64: 20}


class ResolvedColumns(Struct, frozen=True, kw_only=True):
    """Columns that a job reads."""

    text: str
    id: str | None  # None where file and row number identify a row
    carried: pa.Schema  # with the types in the output

    @property
    def needed(self) -> list[str]:
        """Return the names of all columns to read, each once."""
        return list(dict.fromkeys([self.text, *([self.id] if self.id else []), *self.carried.names]))


def resolved(config: RunConfig, present: Collection[str], carried: pa.Schema) -> ResolvedColumns:
    """Return the job's columns, `present` being the first file's."""
    id = config.columns.id
    if id is None and "id" in present:
        id = "id"
    return ResolvedColumns(text=config.columns.text, id=id or None, carried=carried)


def required(config: ColumnsTable, id: str | None) -> list[tuple[str, str]]:
    """List the columns that a file must have, with settings."""
    ids = [(id, "columns.id")] if id else []
    return [(config.text, "columns.text"), *ids, *((name, "columns.carry") for name in config.carry)]


def require(file: InputFile, present: Sequence[str], named: Iterable[tuple[str, str]], *, where: str = "") -> None:
    """Raise InputError unless each named column is present exactly once."""
    for name, setting in named:
        if present.count(name) > 1:
            raise InputError(f"{file.path}: the column {name!r} is there twice; rename one or change {setting}")
        if name not in present:
            raise missing(file, present, name, setting, where)


def missing(file: InputFile, present: Sequence[str], name: str, setting: str, where: str = "") -> InputError:
    """Return the error for a column that `file` lacks."""
    near = difflib.get_close_matches(name, [column for column in present if len(column) <= _SHOWN], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    without = ', or to "" for ids made of file and row' if setting == "columns.id" else ""
    shown = [column if len(column) <= _SHOWN else f"{column[:_SHOWN]}..." for column in present[:20]]
    there = ", ".join(map(repr, shown)) + (", ..." if len(present) > 20 else "")
    return InputError(
        f"{file.path}: there is no column {name!r}{where}; the columns are {there or '(none)'};"
        f" set {setting} to one of them{without}{hint}"
    )


def text_carried(config: RunConfig) -> pa.Schema:
    """Return the carried columns' types in the text formats."""
    types = config.columns.types
    return pa.schema([(name, CARRIED_TYPES[types.get(name, "string")]) for name in config.columns.carry])


def paths(name: str) -> Iterator[tuple[str, str]]:
    """Split a dotted name into column and field, longest first."""
    # A name may hold dots of its own.
    parts = name.split(".")
    for at in range(len(parts) - 1, 0, -1):
        yield ".".join(parts[:at]), ".".join(parts[at:])


def unified(columns: ResolvedColumns, schemas: Iterable[tuple[InputFile, pa.Schema]]) -> ResolvedColumns:
    """Unify the types of carried columns over files.

    Each file's values must stay unchanged: null gives way to any type, integers to wider ones and to doubles, lists to
    large lists. Raises InputError for types without such a common one.
    """
    carried = columns.carried
    for file, schema in schemas:
        if schema.types != carried.types:
            carried = pa.schema([_common(file, ours, theirs) for ours, theirs in zip(carried, schema, strict=True)])
    return structs.replace(columns, carried=carried)


def converted(file: InputFile, column: Any, field: pa.Field) -> Any:
    """Cast a carried column to the output's type. Raises InputError."""
    if column.type == field.type:
        return column
    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        raise InputError(
            f"{file.path}: the carried column {field.name!r} is {column.type}, and cannot become the {field.type} of"
            f" all files unchanged ({error}); convert the file"
        ) from error


def _common(file: InputFile, ours: pa.Field, theirs: pa.Field) -> pa.Field:
    name, kinds = ours.name, (ours.type, theirs.type)
    if not _changes_decimals(*kinds):
        try:
            # ValueError: more digits than a decimal has.
            if (decimal := _decimal_of_all(*kinds)) is not None:
                return pa.field(name, decimal)
            both = [pa.schema([(name, kind)]) for kind in kinds]
            return pa.unify_schemas(both, promote_options="permissive").field(0)
        except (pa.ArrowException, ValueError):
            pass
    raise InputError(
        f"{file.path}: the carried column {name!r} is {theirs.type} here, but {ours.type} in an earlier file; convert"
        " one, or, of JSON and CSV, set its type in `columns.types`"
    )


def _changes_decimals(ours: pa.DataType, theirs: pa.DataType, *, nested: bool = False) -> bool:
    """Tell if a common type would change or refuse decimals."""
    # Arrow lets them give way to doubles, and finds too few digits where integers are among them.
    kinds = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in (ours, theirs)]
    if any(map(pa.types.is_decimal, kinds)):
        return any(pa.types.is_floating(kind) or (nested and pa.types.is_integer(kind)) for kind in kinds)
    ours, theirs = kinds
    if pa.types.is_struct(ours) and pa.types.is_struct(theirs):
        names = {field.name for field in ours} & {field.name for field in theirs}
        pairs = [(ours.field(name), theirs.field(name)) for name in names]
    else:
        pairs = [(ours.field(at), theirs.field(at)) for at in range(min(ours.num_fields, theirs.num_fields))]
    return any(_changes_decimals(one.type, other.type, nested=True) for one, other in pairs)


def _decimal_of_all(ours: pa.DataType, theirs: pa.DataType) -> pa.DataType | None:
    """Return the decimal for a decimal and an integer type."""
    # The one that Arrow finds has too few digits for integers of 16 bits and more.
    for decimal, integer in ((ours, theirs), (theirs, ours)):
        if pa.types.is_decimal(decimal) and pa.types.is_integer(integer) and decimal.scale >= 0:
            digits = max(decimal.precision - decimal.scale, _INTEGER_DIGITS[integer.bit_width]) + decimal.scale
            if digits <= decimal.precision:
                return decimal
            return pa.decimal128(digits, decimal.scale) if digits <= 38 else pa.decimal256(digits, decimal.scale)
    return None
