"""CSV dialects: detection, headers, records."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from msgspec import Struct, structs

from embedmill.base.config import RunConfig
from embedmill.base.errors import ConfigError, InputError
from embedmill.base.records import InputFile
from embedmill.base.results import counted
from embedmill.source.columns import require, required
from embedmill.source.compression import split_ending
from embedmill.source.encoding import marks_end, not_decoded
from embedmill.source.formats.boundaries import LF, CsvCutter, Dialect, Oversize, records
from embedmill.source.partitions import partition_values
from embedmill.source.stream import ByteStream

Fields = Sequence[str | None]
LINE_ENDS = (b"\n", b"\r\n", b"\r")
# PostgreSQL's last line.
END_OF_DATA = b"\\."
# The csv module keeps its limit in a C long, of 32 bits on Windows.
FIELD_LIMIT = 2**31 - 1
_HEAD_BYTES = 1 << 18
_DELIMITERS = (",", ";", "\t", "|")
# A field of a .tsv that another reader takes for a quoted one.
_QUOTED = re.compile(rb'(?:^|[\t\r\n])"((?:[^"\t\r\n]|"")*+)"(?=[\t\r\n]|\Z)')
# What MySQL and PostgreSQL write for characters, besides the character itself.
_ESCAPED = {"0": "\0", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "Z": "\x1a"}
_ESCAPES = re.compile(r"\\(\r\n|.)|\r(?!\n?\Z)", re.DOTALL)
# Stands for a null until the fields are split; no text that was decoded has half of a surrogate pair.
_NULL = "\ud800"


class Header(Struct, frozen=True, kw_only=True):
    """Beginning of a CSV file."""

    dialect: Dialect
    names: list[str]  # of the fields; none where the file has no record
    start: int  # byte of the first row


def read_header(stream: ByteStream, file: InputFile, config: RunConfig, id: str | None) -> Header:
    """Find dialect and columns. Raises ConfigError, InputError without the columns."""
    # The csv module's own limit of 128 KiB per field is one for the whole process: lifted, never lowered.
    csv.field_size_limit(max(csv.field_size_limit(), min(config.limits.record_bytes, FIELD_LIMIT)))
    needed = required(config.columns, id)
    found: list[tuple[Header, list[str]]] = []
    dialects = _dialects(file, config)
    if not config.input.csv_header and len(dialects) > 1:
        dialects = [_only_delimiter(stream, file, config, dialects)]
    for dialect in dialects:
        header = _header(stream, file, config, dialect)
        names = [*header.names, *(key for key in partition_values(file.name) if key not in header.names)]
        if not header.names or all(names.count(name) == 1 for name, _ in needed):
            return header
        found.append((header, names))
    # No delimiter gives the columns: the one that gives the most is most likely meant.
    header, names = max(found, key=lambda one: len(one[1]))
    if config.columns.names:
        raise InputError(
            f"{file.path}: the first row has {counted(len(header.names), 'field')}, and `columns.names` names"
            f" {len(config.columns.names)}; name all, or set input.csv_delimiter"
        )
    require(file, names, needed, where="" if config.input.csv_header else " (without a header: see `columns.names`)")
    return header


def _only_delimiter(stream: ByteStream, file: InputFile, config: RunConfig, dialects: list[Dialect]) -> Dialect:
    """Find a first row's only delimiter. Raises InputError."""
    fitting = [one for one in dialects if len(_header(stream, file, config, one).names) > 1]
    if len(fitting) > 1:
        listed = " or ".join(repr(one.delimiter) for one in fitting)
        raise InputError(
            f"{file.path}: the first row can be cut at {listed}, and without a header nothing tells which; set"
            " input.csv_delimiter"
        )
    return fitting[0] if fitting else dialects[0]


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
    block = stream.read(_HEAD_BYTES)
    start = marks_end(block)
    while not (ends := CsvCutter(dialect, 0).ends(block[start:]).tolist()) and len(block) < config.limits.record_bytes:
        # A header of thousands of columns; twice as much each time, for all is looked at again.
        if not (more := stream.read(len(block))):
            break
        block += more
    feeds = _has_feeds(block[start:], ends)
    dialect = structs.replace(dialect, lone_returns=not feeds, lone_feeds=feeds)
    stream.seek(start)
    top, begin, first = start, start, b""
    for record in records(stream, CsvCutter(dialect, start), config.limits.record_bytes):
        if isinstance(record, Oversize):
            raise InputError(
                f"{file.path}: the header has {record.size:,} bytes; close its quotes, or set input.csv_quote"
            )
        # The header is the first record that is not blank. Without one, the first row that can be read tells as much.
        if record in LINE_ENDS or (start == top and _is_separator(record, dialect)):
            begin += 0 if first else len(record)
        elif config.input.csv_header or _splits(record, dialect):
            first = record
            break
        else:
            first = first or record
        start += len(record)
        if first and start > _HEAD_BYTES:
            break
    names = _names(file, first, dialect, config, stream.encoding) if first else []
    return Header(dialect=dialect, names=names, start=begin + len(first) * config.input.csv_header)


def _is_separator(record: bytes, dialect: Dialect) -> bool:
    """Tell if a line names the delimiter, as Excel writes."""
    named = b"sep=" + dialect.delimiter.encode()
    return record.startswith(named) and not record[len(named) :].strip()


def _splits(record: bytes, dialect: Dialect) -> bool:
    try:
        split_record(record.decode(), dialect)
    except (UnicodeDecodeError, csv.Error):
        return False
    return True


def _has_feeds(block: bytes, ends: list[int]) -> bool:
    """Return whether rows end in line feeds.

    In such a file a lone return ends no row, and the other way round. The header tells, or most rows do.
    """
    first = next((end for at, end in enumerate(ends) if block[ends[at - 1] if at else 0 : end].strip()), 0)
    # Some editors end all files in a feed.
    counted = ends[:-1] if len(ends) > 1 else ends
    return (first > 0 and block[first - 1] == LF) or 2 * sum(block[end - 1] == LF for end in counted) >= len(counted)


def _names(file: InputFile, record: bytes, dialect: Dialect, config: RunConfig, encoding: str) -> list[str]:
    what = "header" if config.input.csv_header else "first row"
    try:
        fields = split_record(record.decode(), dialect)
    except UnicodeDecodeError as error:
        reason = not_decoded(encoding, error.start + 1, what)
        raise InputError(f"{file.path}: the {what} is {reason}") from error
    except csv.Error as error:
        if "new-line character" in str(error):
            raise InputError(
                f"{file.path}: the {what} holds a lone carriage return, and rows end in line feeds; write all line ends"
                " alike, or quote the field"
            ) from error
        # Another delimiter may fit; as one field the header shows what is there.
        fields = [record.decode().rstrip("\r\n")]
    if config.input.csv_header:
        return [field or "" for field in fields]
    numbers = [str(number) for number in range(1, len(fields) + 1)]
    return list(config.columns.names) if len(config.columns.names) == len(fields) else numbers


def has_doubled_quotes(stream: ByteStream, header: Header) -> bool:
    """Tell if early fields would read otherwise with quotes."""
    stream.seek(header.start)
    return any(b'""' in inner for inner in _QUOTED.findall(stream.read(_HEAD_BYTES)))


def split_record(record: str, dialect: Dialect) -> Fields:
    r"""Split a record; raise csv.Error where ambiguous.

    After a backslash as escape, letters mean what MySQL and PostgreSQL mean by them, and a field `\N` is None.
    """
    has_letters = dialect.escape == "\\" and "\\" in record
    fields: list[str] = next(
        csv.reader((_ESCAPES.sub(_literal, record) if has_letters else record,), _csv_dialect(dialect))
    )
    if not has_letters:
        return fields
    return [None if field == _NULL else field.replace(_NULL, "N") for field in fields]


@cache
def _csv_dialect(dialect: Dialect) -> Any:
    """Return a dialect of the csv module."""
    # A reader takes such an object as it is, and builds one of anything else: half its cost for a short record.
    return csv.reader(
        (),
        delimiter=dialect.delimiter,
        quotechar=dialect.quote or None,
        quoting=csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE,
        escapechar=dialect.escape or None,
        # Text after a closing quote, or a quote without end, is an error.
        strict=True,
    ).dialect


def _literal(escaped: re.Match[str]) -> str:
    """Escape a letter's meaning in place of the letter."""
    letter = escaped[1] or "\r"
    if letter == "\r\n":
        return "\\\r\\\n"
    return _NULL if letter == "N" else f"\\{_ESCAPED.get(letter, letter)}"
