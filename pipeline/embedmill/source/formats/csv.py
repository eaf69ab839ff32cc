"""CSV and TSV, as read by Python's csv module."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import pyarrow as pa

from embedmill.base.config import RunConfig
from embedmill.base.records import InputFile, Span
from embedmill.base.results import counted
from embedmill.source.columns import ResolvedColumns, resolved, text_carried
from embedmill.source.encoding import not_decoded
from embedmill.source.formats.boundaries import CsvCutter, Dialect
from embedmill.source.formats.csv_dialect import (
    END_OF_DATA,
    LINE_ENDS,
    Fields,
    Header,
    has_doubled_quotes,
    read_header,
    split_record,
)
from embedmill.source.formats.rows import BLANK, Parser, RowError
from embedmill.source.formats.text import TextFile, survey_text
from embedmill.source.formats.values import READERS, ReadText
from embedmill.source.partitions import partition_values
from embedmill.source.stream import ByteStream

LOG = logging.getLogger("embedmill")
ENDINGS: tuple[str, ...] = (".csv", ".tsv")
COMPRESSIBLE = True

_QUOTED_HINT = "; set input.csv_quote to a quote if fields are quoted, or to an empty string if they are not"


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
        if _may_be_quoted(header.dialect, config) and has_doubled_quotes(stream, header):
            LOG.warning(
                "%s: fields with doubled quotes between quotes are read as they stand%s", file.path, _QUOTED_HINT
            )
        yield from survey_text(number, stream, CsvCutter(header.dialect, header.start), header.start)


def open_file(file: InputFile, config: RunConfig, columns: ResolvedColumns) -> TextFile:
    """See Format."""
    with ExitStack() as opened:
        stream = opened.enter_context(closing(ByteStream(file, config)))
        header = read_header(stream, file, config, columns.id)
        parser = CsvParser(file, config, columns, header, stream.encoding)
        opened.pop_all()
    return TextFile(file, config, stream, cutter=partial(CsvCutter, header.dialect), parser=parser)


class CsvParser(Parser[Fields]):
    """Parser of records."""

    def __init__(
        self, file: InputFile, config: RunConfig, columns: ResolvedColumns, header: Header, encoding: str
    ) -> None:
        super().__init__(file, config, columns)
        self._dialect = header.dialect
        self._encoding = encoding
        self._width = len(header.names)
        self._may_be_quoted = _may_be_quoted(header.dialect, config)
        partitions = {key: value for key, value in partition_values(file.name).items() if key not in header.names}
        self._partitions = list(partitions.values())
        self._at = {name: place for place, name in enumerate([*header.names, *partitions])}
        types = config.columns.types
        self._readers = [(self._at[name], name, *READERS[types.get(name, "string")]) for name in columns.carried.names]

    def split(self, record: bytes, row: int) -> Fields:
        """See Parser."""
        if record in LINE_ENDS or (self._dialect.escape == "\\" and record.strip() == END_OF_DATA):
            raise RowError(BLANK, "the row is blank")
        try:
            fields = split_record(record.decode(), self._dialect)
        except UnicodeDecodeError as error:
            raise RowError("malformed", not_decoded(self._encoding, error.start + 1, "row")) from error
        except csv.Error as error:
            raise RowError("malformed", _broken(str(error), record, self._dialect)) from error
        if len(fields) != self._width:
            whole = "the header" if self._config.input.csv_header else "the first row"
            hint = _QUOTED_HINT if self._may_be_quoted and b'"' in record else ""
            raise RowError("malformed", f"the row has {counted(len(fields), 'field')}; {whole} has {self._width}{hint}")
        return [*fields, *self._partitions] if self._partitions else fields

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
        return [_cell(fields[at], name, read, expected) for at, name, read, expected in self._readers]


def _may_be_quoted(dialect: Dialect, config: RunConfig) -> bool:
    """Tell if a .tsv has quotes that nobody has explained."""
    return not dialect.quote and config.input.csv_quote is None


def _broken(problem: str, record: bytes, dialect: Dialect) -> str:
    """Describe a csv.Error."""
    none = "if the file does not quote its fields, set input.csv_quote to an empty string"
    if "unexpected end" in problem:
        if dialect.escape and record.rstrip(b"\r\n").endswith(dialect.escape.encode()):
            return "an escape at the end of the row has nothing to escape"
        return f"a quote that opens in this row is never closed; {none}"
    if "new-line character" in problem:
        lone = "carriage return" if dialect.lone_feeds else "line feed"
        return f"a lone {lone}, which some read as the end of a row, stands in a field without quotes"
    if "expected after" in problem:
        return f"text follows a closing quote, so the row may be two; {none}"
    return f"not valid CSV: {problem}"


def _cell(field: str | None, name: str, read: ReadText, expected: str) -> Any:
    # CSV cannot tell an empty string from no value.
    if not field:
        return None
    value = read(field)
    if value is None:
        raise RowError("wrong_type", f'"{name}" is {field[:40]!r}; expected {expected}')
    return value
