"""CSV and TSV, as Python's csv module reads them: a header, then a record per row."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from msgspec import Struct

from embedmill.base.config import CarriedType, RunConfig
from embedmill.base.errors import ConfigError, InputError
from embedmill.base.records import InputFile
from embedmill.source.columns import INT64, ResolvedColumns, require, require_types, text_carried, wanted
from embedmill.source.formats.boundaries import CsvCutter, Oversize, records
from embedmill.source.formats.rows import BLANK, RowError, check_text, file_and_row
from embedmill.source.formats.text import TextFile
from embedmill.source.stream import ByteStream

FIELD_LIMIT = 2**31 - 1

_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf(inity)?|nan", re.IGNORECASE)
_BOOLEANS = {"true": True, "false": False}
_LINE_ENDS = (b"\n", b"\r\n", b"\r")


class Header(Struct, frozen=True):
    """A file's column names, none where the file is empty, and the byte where its first row starts."""

    names: list[str]
    start: int


def open_csv(file: InputFile, config: RunConfig, columns: ResolvedColumns) -> TextFile:
    """The file, ready to read.

    Raises InputError where it cannot be opened, or its header lacks a column, or its types do not fit.
    """
    header = checked_header(file, config, columns)
    parser = CsvParser(file, config, columns, header.names)
    return TextFile(file, config, columns, cutter=partial(CsvCutter, delimiter(file, config)), parser=parser)


def checked_header(file: InputFile, config: RunConfig, columns: ResolvedColumns) -> Header:
    """The header, which must have every column of the job. Raises InputError."""
    header = read_header(file, config)
    named = [*wanted(config.columns), *([(columns.id, "columns.id")] if columns.id else [])]
    if header.names:
        require(file, header.names, named)
    require_types(file, text_carried(config), columns.carried)
    return header


def read_header(file: InputFile, config: RunConfig) -> Header:
    """The first record that is not blank. Raises InputError where it is no UTF-8 or too long."""
    _allow_long_fields(config)
    separator = delimiter(file, config)
    with closing(ByteStream(file, config.limits)) as stream:
        start = len(codecs.BOM_UTF8) if stream.read(3) == codecs.BOM_UTF8 else 0
        stream.seek(start)
        for record in records(stream, CsvCutter(separator, start), config.limits.record_bytes):
            if isinstance(record, Oversize):
                raise InputError(f"{file.path}: the header has {record.size:,} bytes; close its quotes")
            start += len(record)
            if record not in _LINE_ENDS:
                return Header(_header_names(file, record, separator), start)
        return Header([], start)


def delimiter(file: InputFile, config: RunConfig) -> str:
    """The character between fields: a tab in .tsv files, else as configured. Raises ConfigError."""
    if file.path.lower().removesuffix(".gz").removesuffix(".zst").endswith(".tsv"):
        return "\t"
    chosen = config.input.csv_delimiter
    if not chosen.isascii() or chosen in '"\r\n\0':
        raise ConfigError(f"`input.csv_delimiter` is {chosen!r}; set an ASCII character that is no quote or line end")
    return chosen


class CsvParser:
    """Makes rows of records (see Parser); `header` has the column names in file order."""

    def __init__(self, file: InputFile, config: RunConfig, columns: ResolvedColumns, header: Sequence[str]) -> None:
        self._file = file
        self._config = config
        self._columns = columns
        self._delimiter = delimiter(file, config)
        self._width = len(header)
        at = {name: place for place, name in enumerate(header)}
        self._text = at.get(columns.text, -1)
        self._id = at.get(columns.id or "", -1)
        types = config.columns.types
        self._carried: list[tuple[str, int, CarriedType]] = [
            (name, at.get(name, -1), types.get(name, "string")) for name in config.columns.carry
        ]

    def row(self, record: bytes, number: int) -> tuple[str, str, list[Any]]:
        """See Parser."""
        fields = self._fields(record)
        id = self._id_of(fields, number)
        try:
            check_text(fields[self._text], self._columns, self._config)
            return id, fields[self._text], [_cell(fields[at], name, type) for name, at, type in self._carried]
        except RowError as bad:
            bad.id = id
            raise

    def _fields(self, record: bytes) -> list[str]:
        if record in _LINE_ENDS:
            raise RowError(BLANK, "the row is blank")
        try:
            fields, whole = _split(record.decode(), self._delimiter)
        except UnicodeDecodeError as error:
            raise RowError("malformed", f"not valid UTF-8 (byte {error.start + 1} of the row)") from error
        except csv.Error as error:
            raise RowError("malformed", f"not valid CSV: {error}") from error
        if not whole:
            raise RowError("malformed", "a quote that opens in this row is never closed")
        if len(fields) != self._width:
            raise RowError("malformed", f"the row has {len(fields)} fields; the header has {self._width}")
        return fields

    def _id_of(self, fields: list[str], number: int) -> str:
        if self._columns.id is None:
            return file_and_row(self._file, number)
        id = fields[self._id]
        if not id:
            raise RowError("wrong_type", f'"{self._columns.id}" is empty; expected a string or an integer')
        return id


def _split(record: str, separator: str) -> tuple[list[str], bool]:
    """The fields of a record, and whether its quotes are closed.

    An open quote takes in the closing one that is offered as a second line.
    """
    lines = csv.reader((record, '"'), delimiter=separator)
    fields = next(lines)
    return fields, lines.line_num == 1


def _header_names(file: InputFile, record: bytes, separator: str) -> list[str]:
    try:
        return _split(record.decode(), separator)[0]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file.path}: the header is not CSV in UTF-8: {error}; save it as UTF-8") from error


def _allow_long_fields(config: RunConfig) -> None:
    """Lifts the csv module's own limit of 128 KiB per field, which is one for the whole process."""
    csv.field_size_limit(max(csv.field_size_limit(), min(config.limits.record_bytes, FIELD_LIMIT)))


def _an_integer(field: str) -> int | None:
    if not _INTEGER.fullmatch(field):
        return None
    value = int(field)
    return value if value in INT64 else None


def _a_number(field: str) -> float | None:
    return float(field) if _NUMBER.fullmatch(field) else None


def _a_boolean(field: str) -> bool | None:
    return _BOOLEANS.get(field.lower())


_READERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "string": (str, "a string"),
    "int64": (_an_integer, "a 64-bit integer"),
    "float64": (_a_number, "a number"),
    "bool": (_a_boolean, "true or false"),
}


def _cell(field: str, name: str, type: CarriedType) -> Any:
    """A carried value; an empty field is None."""
    if not field:
        return None
    read, expected = _READERS[type]
    value = read(field)
    if value is None:
        raise RowError("wrong_type", f'"{name}" is {field[:40]!r}; expected {expected}')
    return value
