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
from embedmill.source.formats.rows import BLANK, Parser, RowError
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
    """See Format; rows are the records after the header."""
    _, start = _header(file, config, columns.id)
    return survey_text(number, file, config, columns, partial(CsvCutter, _delimiter(file, config)), start)


def open_file(file: InputFile, config: RunConfig, columns: ResolvedColumns) -> TextFile:
    """See Format."""
    names, _ = _header(file, config, columns.id)
    parser = CsvParser(file, config, columns, names)
    return TextFile(file, config, columns, cutter=partial(CsvCutter, parser.delimiter), parser=parser)


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


class CsvParser(Parser[list[str]]):
    """Parser of records; `header` has the file's column names."""

    def __init__(self, file: InputFile, config: RunConfig, columns: ResolvedColumns, header: Sequence[str]) -> None:
        super().__init__(file, config, columns)
        self.delimiter = _delimiter(file, config)
        self._width = len(header)
        self._at = {name: place for place, name in enumerate(header)}

    def split(self, record: bytes, row: int) -> list[str]:
        """See Parser."""
        if record in _LINE_ENDS:
            raise RowError(BLANK, "the row is blank")
        try:
            fields, whole = _split(record.decode(), self.delimiter)
        except UnicodeDecodeError as error:
            raise RowError("malformed", f"not valid UTF-8 (byte {error.start + 1} of the row)") from error
        except csv.Error as error:
            raise RowError("malformed", f"not valid CSV: {error}") from error
        if not whole:
            raise RowError("malformed", "a quote that opens in this row is never closed")
        if len(fields) != self._width:
            raise RowError("malformed", f"the row has {len(fields)} fields; the header has {self._width}")
        return fields

    def id(self, fields: list[str], name: str) -> str:
        """See Parser."""
        id = fields[self._at[name]]
        if not id:
            raise RowError("wrong_type", f'"{name}" is empty; expected a string or an integer')
        return id

    def text(self, fields: list[str]) -> str:
        """See Parser."""
        return fields[self._at[self._columns.text]]

    def carried(self, fields: list[str]) -> list[Any]:
        """See Parser."""
        types = self._config.columns.types
        return [_cell(fields[self._at[name]], name, types.get(name, "string")) for name in self._columns.carried.names]


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
