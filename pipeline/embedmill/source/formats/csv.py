"""CSV and TSV, as read by Python's csv module."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import pyarrow as pa
from msgspec import Struct

from embedmill.base.config import CarriedType, RunConfig
from embedmill.base.errors import ConfigError, InputError
from embedmill.base.records import InputFile, Span
from embedmill.source.columns import INT64, ResolvedColumns, require, required, resolved, text_carried
from embedmill.source.compression import split_ending
from embedmill.source.encoding import not_decoded
from embedmill.source.formats.boundaries import CsvCutter, Dialect, Oversize, records
from embedmill.source.formats.rows import BLANK, Parser, RowError
from embedmill.source.formats.text import TextFile, survey_text
from embedmill.source.partitions import partition_values
from embedmill.source.stream import ByteStream

Fields = list[str | None]

ENDINGS: tuple[str, ...] = (".csv", ".tsv")
COMPRESSIBLE = True
# The csv module keeps its limit in a C long, of 32 bits on Windows.
FIELD_LIMIT = 2**31 - 1

_DELIMITERS = (",", ";", "\t", "|")
# 19 digits hold any int64; int() raises above 4,300.
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf(inity)?|nan", re.IGNORECASE)
_BOOLEANS = {"true": True, "false": False}
_LINE_ENDS = (b"\n", b"\r\n", b"\r")
# Excel's own first line; the header tells the same.
_SEPARATOR = re.compile(rb"sep=.\s*")
# What MySQL and PostgreSQL write for characters, besides the character itself.
_ESCAPED = {"0": "\0", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "Z": "\x1a"}
# Stands for a null until the fields are split.
_NULL = "\0\0N"


class Header(Struct, frozen=True, kw_only=True):
    """Beginning of a CSV file."""

    dialect: Dialect
    names: list[str]  # of the fields; none where the file has no record
    start: int  # byte of the first row


def find_columns(file: InputFile, others: Iterable[InputFile], config: RunConfig) -> ResolvedColumns | None:
    """See Format; the header of `file` decides."""
    with closing(ByteStream(file, config)) as stream:
        header = read_header(stream, file, config, config.columns.id)
    names = [*header.names, *partition_values(file.name)]
    return resolved(config, names, text_carried(config)) if header.names else None


def carried_types(file: InputFile, config: RunConfig) -> pa.Schema | None:
    """See Format."""
    return text_carried(config)


def survey(number: int, file: InputFile, config: RunConfig, columns: ResolvedColumns) -> Iterator[Span]:
    """See Format; rows are the records after the header."""
    with closing(ByteStream(file, config)) as stream:
        header = read_header(stream, file, config, columns.id)
        yield from survey_text(number, stream, partial(CsvCutter, header.dialect), header.start)


def open_file(file: InputFile, config: RunConfig, columns: ResolvedColumns) -> TextFile:
    """See Format."""
    with ExitStack() as opened:
        stream = opened.enter_context(closing(ByteStream(file, config)))
        header = read_header(stream, file, config, columns.id)
        parser = CsvParser(file, config, columns, header, stream.encoding)
        opened.pop_all()
    return TextFile(file, config, stream, cutter=partial(CsvCutter, header.dialect), parser=parser)


def read_header(stream: ByteStream, file: InputFile, config: RunConfig, id: str | None) -> Header:
    """Find dialect and columns. Raises ConfigError, InputError without the columns."""
    # The csv module's own limit of 128 KiB per field is one for the whole process: lifted, never lowered.
    csv.field_size_limit(max(csv.field_size_limit(), min(config.limits.record_bytes, FIELD_LIMIT)))
    needed = required(config.columns, id)
    found: list[tuple[Header, list[str]]] = []
    for dialect in _dialects(file, config):
        header = _header(stream, file, config, dialect)
        names = [*header.names, *(key for key in partition_values(file.name) if key not in header.names)]
        if not header.names or all(names.count(name) == 1 for name, _ in needed):
            return header
        found.append((header, names))
    # No delimiter gives the columns: the one that gives the most is most likely meant.
    header, names = max(found, key=lambda one: len(one[1]))
    require(file, names, needed, where="" if config.input.csv_header else " (without a header: see `columns.names`)")
    return header


def _dialects(file: InputFile, config: RunConfig) -> list[Dialect]:
    """List possible dialects, likeliest first."""
    is_tsv = split_ending(file.path)[0] == ".tsv"
    given = config.input
    quote = given.csv_quote if given.csv_quote is not None else "" if is_tsv else '"'
    delimiters = ("\t",) if is_tsv else (given.csv_delimiter,) if given.csv_delimiter else _DELIMITERS
    found = [Dialect(delimiter=one, quote=quote, escape=given.csv_escape) for one in delimiters]
    _check_characters(found[0])
    return found


def _check_characters(dialect: Dialect) -> None:
    given = {
        "csv_delimiter": dialect.delimiter,
        "csv_quote": dialect.quote,
        "csv_escape": dialect.escape,
    }
    used = [character for character in given.values() if character]
    for key, character in given.items():
        if character and (not character.isascii() or character in "\r\n\0" or used.count(character) > 1):
            raise ConfigError(
                f"`input.{key}` is {character!r}; set an ASCII character that is no line end, and that stands for one"
                " thing only: delimiter, quote or escape"
            )


def _header(stream: ByteStream, file: InputFile, config: RunConfig, dialect: Dialect) -> Header:
    """Read the header by a dialect, or number fields."""
    stream.seek(0)
    start = len(codecs.BOM_UTF8) if stream.read(3) == codecs.BOM_UTF8 else 0
    stream.seek(start)
    for record in records(stream, CsvCutter(dialect, start), config.limits.record_bytes):
        if isinstance(record, Oversize):
            raise InputError(
                f"{file.path}: the header has {record.size:,} bytes; close its quotes, or set input.csv_quote"
            )
        # The header is the first record that is not blank.
        if record not in _LINE_ENDS and not _SEPARATOR.fullmatch(record):
            names = _names(file, record, dialect, config, stream.encoding)
            return Header(dialect=dialect, names=names, start=start + len(record) * config.input.csv_header)
        start += len(record)
    return Header(dialect=dialect, names=[], start=start)


def _names(file: InputFile, record: bytes, dialect: Dialect, config: RunConfig, encoding: str) -> list[str]:
    try:
        fields = split_record(record.decode(), dialect)
    except UnicodeDecodeError as error:
        reason = not_decoded(encoding, error.start + 1, "header")
        raise InputError(f"{file.path}: the header is {reason}") from error
    except csv.Error:
        # Another delimiter may fit; as one field the header shows what is there.
        fields = [record.decode().rstrip("\r\n")]
    if config.input.csv_header:
        return [field or "" for field in fields]
    numbers = [str(number) for number in range(1, len(fields) + 1)]
    return list(config.columns.names) if len(config.columns.names) == len(fields) else numbers


class CsvParser(Parser[Fields]):
    """Parser of records."""

    def __init__(
        self, file: InputFile, config: RunConfig, columns: ResolvedColumns, header: Header, encoding: str
    ) -> None:
        super().__init__(file, config, columns)
        self._dialect = header.dialect
        self._encoding = encoding
        self._width = len(header.names)
        partitions = {key: value for key, value in partition_values(file.name).items() if key not in header.names}
        self._partitions = list(partitions.values())
        self._at = {name: place for place, name in enumerate([*header.names, *partitions])}

    def split(self, record: bytes, row: int) -> Fields:
        """See Parser."""
        if record in _LINE_ENDS:
            raise RowError(BLANK, "the row is blank")
        try:
            fields = split_record(record.decode(), self._dialect)
        except UnicodeDecodeError as error:
            raise RowError("malformed", not_decoded(self._encoding, error.start + 1, "row")) from error
        except csv.Error as error:
            raise RowError("malformed", _broken(str(error), self._dialect)) from error
        if len(fields) != self._width:
            whole = "the header" if self._config.input.csv_header else "the first row"
            raise RowError("malformed", f"the row has {len(fields)} fields; {whole} has {self._width}")
        return fields + self._partitions

    def id(self, fields: Fields, name: str) -> str:
        """See Parser."""
        id = fields[self._at[name]]
        if not id:
            raise RowError("wrong_type", f'"{name}" is {"null" if id is None else "empty"}; expected an id')
        return id

    def text(self, fields: Fields) -> str:
        """See Parser."""
        name = self._columns.text
        text = fields[self._at[name]]
        if text is None:
            raise RowError("null_text", f'"{name}" is null')
        return text

    def carried(self, fields: Fields) -> list[Any]:
        """See Parser."""
        types = self._config.columns.types
        return [_cell(fields[self._at[name]], name, types.get(name, "string")) for name in self._columns.carried.names]


def split_record(record: str, dialect: Dialect) -> Fields:
    r"""Split a record; raise csv.Error where ambiguous.

    After a backslash as escape, letters mean what MySQL and PostgreSQL mean by them, and a field `\N` is None.
    """
    escape, quote = dialect.escape, dialect.quote
    has_letters = escape == "\\" and escape in record
    lines = csv.reader(
        (re.sub(r"\\(.)", _literal, record, flags=re.DOTALL) if has_letters else record,),
        delimiter=dialect.delimiter,
        quotechar=quote or None,
        quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
        escapechar=escape or None,
        # Text after a closing quote, or a quote without end, is an error.
        strict=True,
    )
    fields: list[str] = next(lines)
    if not has_letters:
        return [*fields]
    return [None if field == _NULL else field.replace(_NULL, "N") for field in fields]


def _literal(escaped: re.Match[str]) -> str:
    """Escape a letter's meaning in place of the letter."""
    letter = escaped[1]
    return _NULL if letter == "N" else f"\\{_ESCAPED.get(letter, letter)}"


def _broken(problem: str, dialect: Dialect) -> str:
    """Describe a csv.Error."""
    none = "if the file does not quote its fields, set input.csv_quote to an empty string"
    if "unexpected end" in problem:
        if not dialect.quote:
            return "an escape at the end of the row has nothing to escape"
        return f"a quote that opens in this row is never closed; {none}"
    if "expected after" in problem:
        return f"text follows a closing quote, so the row may be two; {none}"
    return f"not valid CSV: {problem}"


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


def _cell(field: str | None, name: str, type: CarriedType) -> Any:
    # CSV cannot tell an empty string from no value.
    if not field:
        return None
    read, expected = _READERS[type]
    value = read(field)
    if value is None:
        raise RowError("wrong_type", f'"{name}" is {field[:40]!r}; expected {expected}')
    return value
