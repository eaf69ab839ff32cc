"""Values as text: fields of CSV and folder names."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from embedmill.base.errors import InputError
from embedmill.base.records import InputFile
from embedmill.source.columns import CARRIED_TYPES, INT64, converted
from embedmill.source.formats.rows import is_near

# 19 digits hold any int64; int() raises above 4,300.
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf(inity)?|nan", re.IGNORECASE)
_BOOLEANS = {"true": True, "false": False}
ReadText = Callable[[str], Any]


def _an_integer(text: str) -> int | None:
    if not _INTEGER.fullmatch(text):
        return None
    value = int(text)
    return value if value in INT64 else None


def _a_number(text: str) -> float | None:
    if not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if text.lstrip("+-")[0] in "iInN" or is_near(value, text) else None


# By the names of `columns.types`: what reads a text (None: it is none of the type), and words for the type.
READERS: dict[str, tuple[ReadText, str]] = {
    "string": (str, "a string"),
    "int64": (_an_integer, "a 64-bit integer"),
    "float64": (_a_number, "a number"),
    "bool": (lambda text: _BOOLEANS.get(text.lower()), "true or false"),
}


def partition_column(file: InputFile, text: str | None, field: pa.Field, rows: int) -> Any:
    """Repeat a partition's value as a carried column. Raises InputError."""
    # A type that files were unified to may be none of `columns.types`.
    kind = next((name for name, type in CARRIED_TYPES.items() if type == field.type), "string")
    read, expected = READERS[kind]
    value = read(text) if text is not None else None
    if value is None and text is not None:
        raise InputError(
            f"{file.path}: the folder {f'{field.name}={text}'!r} gives {field.name!r} no value that is {expected};"
            " rename it, or change columns.types"
        )
    return converted(file, pa.array([value] * rows, CARRIED_TYPES[kind]), field)
