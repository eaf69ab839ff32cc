"""Columns of a job, and checks of a file's columns."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence

import pyarrow as pa
from msgspec import Struct

from embedmill.base.config import ColumnsTable, RunConfig
from embedmill.base.errors import InputError
from embedmill.base.records import InputFile

CARRIED_TYPES = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
INT64 = range(-(2**63), 2**63)
STRINGS = (pa.string(), pa.large_string(), pa.string_view())


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
    id = config.columns.id or ("id" if "id" in present else None)
    return ResolvedColumns(text=config.columns.text, id=id, carried=carried)


def required(config: ColumnsTable, id: str | None) -> list[tuple[str, str]]:
    """List the columns that a file must have, with settings."""
    ids = [] if id is None else [(id, "columns.id")]
    return [(config.text, "columns.text"), *ids, *((name, "columns.carry") for name in config.carry)]


def require(file: InputFile, present: Sequence[str], named: Iterable[tuple[str, str]], *, where: str = "") -> None:
    """Raise InputError unless each named column is present exactly once."""
    for name, setting in named:
        if present.count(name) > 1:
            raise InputError(f"{file.path}: the column {name!r} is there twice; rename one or change {setting}")
        if name not in present:
            raise _missing(file, present, name, setting, where)


def text_carried(config: RunConfig) -> pa.Schema:
    """Return the carried columns' types in the text formats."""
    types = config.columns.types
    return pa.schema([(name, CARRIED_TYPES[types.get(name, "string")]) for name in config.columns.carry])


def require_types(file: InputFile, carried: pa.Schema, expected: pa.Schema, remedy: str) -> None:
    """Raise InputError unless carried columns have the first file's types."""
    for name in expected.names:
        found, first = carried.field(name).type, expected.field(name).type
        # A writer that met only nulls leaves the type null, and which kind of string is its own choice:
        # both convert to the first file's type without loss.
        convertible = found == pa.null() or (found in STRINGS and first in STRINGS)
        if found != first and not convertible:
            raise InputError(
                f"{file.path}: the carried column {name!r} is {found} here, but {first} in the first file; {remedy}"
            )


def _missing(file: InputFile, present: Sequence[str], name: str, setting: str, where: str) -> InputError:
    near = difflib.get_close_matches(name, present, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    there = ", ".join(repr(column) for column in present[:20]) + (", ..." if len(present) > 20 else "")
    return InputError(
        f"{file.path}: there is no column {name!r}{where}; the columns are {there or '(none)'};"
        f" set {setting} to one of them{hint}"
    )
