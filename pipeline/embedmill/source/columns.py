"""The columns a job uses, and what a file must have for them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

import pyarrow as pa
from msgspec import Struct

from embedmill.base.config import ColumnsTable, RunConfig
from embedmill.base.errors import InputError
from embedmill.base.records import InputFile

CARRIED_TYPES = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
INT64 = range(-(2**63), 2**63)
STRINGS = (pa.string(), pa.large_string(), pa.string_view())


class ResolvedColumns(Struct, frozen=True, kw_only=True):
    """The columns of a job: `id` is None where file and row name a row.

    `carried` has the type that each carried column has in the output.
    """

    text: str
    id: str | None
    carried: pa.Schema

    @property
    def needed(self) -> list[str]:
        """The columns that are read, each once."""
        return list(dict.fromkeys([self.text, *([self.id] if self.id else []), *self.carried.names]))


def wanted(config: ColumnsTable) -> list[tuple[str, str]]:
    """The columns that a config names, each with the setting that names it."""
    named = [(config.text, "columns.text")]
    if config.id is not None:
        named.append((config.id, "columns.id"))
    return named + [(name, "columns.carry") for name in config.carry]


def require(file: InputFile, present: Sequence[str], named: Iterable[tuple[str, str]], *, where: str = "") -> None:
    """Raises InputError unless each named column is present exactly once."""
    for name, setting in named:
        if present.count(name) > 1:
            raise InputError(f"{file.path}: the column {name!r} is there twice; rename one or change {setting}")
        if name not in present:
            raise _missing(file, present, name, setting, where)


def text_carried(config: RunConfig) -> pa.Schema:
    """The types of the carried columns in the text formats."""
    types = config.columns.types
    return pa.schema([(name, CARRIED_TYPES[types.get(name, "string")]) for name in config.columns.carry])


def same_type(one: pa.DataType, other: pa.DataType) -> bool:
    """Whether values of type `one` are carried as `other`: nulls always, any kind of string as any."""
    return bool(one == other) or one == pa.null() or (one in STRINGS and other in STRINGS)


def require_types(file: InputFile, carried: pa.Schema, expected: pa.Schema) -> None:
    """Raises InputError unless a file carries its columns with the types of the whole input."""
    for name in expected.names:
        found, before = carried.field(name).type, expected.field(name).type
        if not same_type(found, before):
            remedy = "convert the file" if file.format == "parquet" else "set its type in `columns.types`"
            raise InputError(
                f"{file.path}: the carried column {name!r} is {found} here, but {before} in the first file; {remedy}"
            )


def _missing(file: InputFile, present: Sequence[str], name: str, setting: str, where: str) -> InputError:
    near = difflib.get_close_matches(name, present, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    there = ", ".join(repr(column) for column in present[:20]) + (", ..." if len(present) > 20 else "")
    return InputError(
        f"{file.path}: there is no column {name!r}{where}; the columns are {there or '(none)'};"
        f" set {setting} to one of them{hint}"
    )
