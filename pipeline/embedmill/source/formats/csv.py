"""CSV and TSV, as read by Python's csv module."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from embedmill.base.config import CarriedType, RunConfig
from embedmill.base.errors import ConfigError, InputError
from embedmill.base.records import InputFile, Span
from embedmill.source.columns import INT64, ResolvedColumns, require, required, resolved, text_carried
from embedmill.source.formats.boundaries import CsvCutter, Oversize, records
from embedmill.source.formats.rows import BLANK, RowError, check_text, file_and_row
from embedmill.source.formats.text import TextFile, survey_text
from embedmill.source.stream import ByteStream

ENDINGS: tuple[str, ...] = (".csv", ".tsv")
COMPRESSIBLE = True
ROW_WORD = "row"
# The csv module keeps its limit in a C long, of 32 bits on Windows.
FIELD_LIMIT = 2**31 - 1

# 19 digits hold any int64; int() raises above 4,300.
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf(inity)?|nan", re.IGNORECASE)
_BOOLEANS = {"true": True, "false": False}
_LINE_ENDS = (b"\n", b"\r\n", b"\r")


def find_columns(file: InputFile, others: Iterable[InputFile], config: RunConfig) -> ResolvedColumns | None:
    """See Format; the header of `file` decides."""
    names, _ = _header(file, config, config.columns.id)
    return resolved(config, names, text_carried(config)) if names else None


def survey(number: int, file: InputFile, config: RunConfig, columns: ResolvedColumns) -> Iterator[Span]:
    """See Format."""
    _, start = _header(file, config, columns.id)
    return survey_text(number, file, config, columns, partial(CsvCutter, _delimiter(file, config)), start)


def open_file(file: InputFile, config: RunConfig, columns: ResolvedColumns) -> TextFile:
    """See Format."""
    names, _ = _header(file, config, columns.id)
    parser = CsvParser(file, config, columns, names)
    return TextFile(file, config, columns, cutter=partial(CsvCutter, _delimiter(file, config)), parser=parser)


def _header(file: InputFile, config: RunConfig, id: str | None) -> tuple[list[str], int]:
    """Return column names, none if empty, and first row's byte."""
    # The csv module's own limit of 128 KiB per field is one for the whole process: lifted, never lowered.
    csv.field_size_limit(max(csv.field_size_limit(), min(config.limits.record_bytes, FIELD_LIMIT)))
    separator = _delimiter(file, config)
    with closing(ByteStream(file, config.limits)) as stream:
        start = len(codecs.BOM_UTF8) if stream.read(3) == codecs.BOM_UTF8 else 0
        stream.seek(start)
        for record in records(stream, CsvCutter(separator, start), config.limits.record_bytes):
            if isinstance(record, Oversize):
                raise InputError(f"{file.path}: the header has {record.size:,} bytes; close its quotes")
            start += len(record)
            # The header is the first record that is not blank.
            if record not in _LINE_ENDS:
                names = _header_names(file, record, separator)
                require(file, names, required(config.columns, id))
                return names, start
        return [], start


def _delimiter(file: InputFile, config: RunConfig) -> str:
    if file.path.lower().removesuffix(".gz").removesuffix(".zst").endswith(".tsv"):
        return "\t"
    chosen = config.input.csv_delimiter
    if not chosen.isascii() or chosen in '"\r\n\0':
        raise ConfigError(f"`input.csv_delimiter` is {chosen!r}; set an ASCII character that is no quote or line end")
    return chosen


class CsvParser:
    """Parser of records; `header` has the file's column names."""

    def __init__(self, file: InputFile, config: RunConfig, columns: ResolvedColumns, header: Sequence[str]) -> None:
        self._file = file
        self._config = config
        self._columns = columns
        self._delimiter = _delimiter(file, config)
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
    """Split a record; the bool tells that quotes are closed."""
    # The second line is one closing quote: only a field that is still open reads on into it.
    lines = csv.reader((record, '"'), delimiter=separator)
    fields = next(lines)
    return fields, lines.line_num == 1


def _header_names(file: InputFile, record: bytes, separator: str) -> list[str]:
    try:
        return _split(record.decode(), separator)[0]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file.path}: the header is not CSV in UTF-8: {error}; save it as UTF-8") from error


def _an_integer(field: str) -> int | None:
    if not _INTEGER.fullmatch(field):
        return None
    value = int(field)
    return value if value in INT64 else None


_READERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "string": (str, "a string"),
    "int64": (_an_integer, "a 64-bit integer"),
    "float64": (lambda field: float(field) if _NUMBER.fullmatch(field) else None, "a number"),
    "bool": (lambda field: _BOOLEANS.get(field.lower()), "true or false"),
}


def _cell(field: str, name: str, type: CarriedType) -> Any:
    # CSV cannot tell an empty string from no value.
    if not field:
        return None
    read, expected = _READERS[type]
    value = read(field)
    if value is None:
        raise RowError("wrong_type", f'"{name}" is {field[:40]!r}; expected {expected}')
    return value
