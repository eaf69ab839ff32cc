"""JSONL, one JSON object per line."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import chain, islice
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from embedmill.base.config import CarriedType, RunConfig
from embedmill.base.records import InputFile, Span
from embedmill.source.columns import INT64, ResolvedColumns, require, required, resolved, text_carried
from embedmill.source.formats.boundaries import LineCutter, Oversize, records
from embedmill.source.formats.rows import BLANK, Parser, RowError, excerpt
from embedmill.source.formats.text import TextFile, survey_text
from embedmill.source.stream import ByteStream

ENDINGS: tuple[str, ...] = (".jsonl", ".ndjson")
COMPRESSIBLE = True
ROW_WORD = "line"
SAMPLED_LINES = 1000
CUT_OFF = "the line looks cut off: the file ends inside its JSON"

# Raw leaves values unparsed: most columns are not needed, and one of a wrong type must not fail the line.
_object = msgspec.json.Decoder(dict[str, Raw])
_HALF_PAIR = re.compile(rb"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])")
_string = msgspec.json.Decoder(str)
_KINDS = {"{": "an object", "[": "a list", '"': "a string", "t": "a boolean", "f": "a boolean", "n": "null"}


def find_columns(file: InputFile, others: Iterable[InputFile], config: RunConfig) -> ResolvedColumns | None:
    """See Format; the first 1,000 lines decide, across files."""
    # Of the first file with keys: without a configured id, a column `id` is used where that file has one.
    first: list[str] = []
    present: dict[str, None] = {}
    left = SAMPLED_LINES
    for sampled in chain([file], others):
        if not left or sampled.format != file.format:
            break
        # Any line may lack a key, so one line alone says little about the columns.
        for keys in islice(_keys(sampled, config), left):
            present |= dict.fromkeys(keys)
            left -= 1
        first = first or list(present)
    if not present:
        return None
    require(file, list(present), required(config.columns, config.columns.id), where=" in the first lines")
    return resolved(config, first, text_carried(config))


def survey(number: int, file: InputFile, config: RunConfig, columns: ResolvedColumns) -> Iterator[Span]:
    """See Format; blank lines are rows too."""
    return survey_text(number, file, config, columns, LineCutter)


def open_file(file: InputFile, config: RunConfig, columns: ResolvedColumns) -> TextFile:
    """See Format."""
    return TextFile(file, config, columns, cutter=LineCutter, parser=JsonParser(file, config, columns))


def _keys(file: InputFile, config: RunConfig) -> Iterator[list[str]]:
    with closing(ByteStream(file, config.limits)) as stream:
        for number, line in enumerate(records(stream, LineCutter(0), config.limits.record_bytes)):
            try:
                yield [] if isinstance(line, Oversize) else list(parse_object(line, number))
            except RowError:
                yield []


def parse_object(line: bytes, number: int) -> dict[str, Raw]:
    """Return keys and unparsed values of line `number`; raise RowError."""
    # Of equal keys, the last counts. The whole line must be valid JSON in UTF-8 without NaN, lone
    # surrogates and nesting deeper than Python's recursion limit.
    if number == 0:
        line = line.removeprefix(codecs.BOM_UTF8)
    if not line.strip():
        raise RowError(BLANK, "the line is blank")
    try:
        # msgspec takes invalid UTF-8 in values that it does not decode.
        line.decode()
        return _object.decode(line)
    except UnicodeDecodeError as error:
        raise RowError("malformed", _not_utf8(line, error)) from error
    except RecursionError as error:
        raise RowError("malformed", "the JSON is nested too deeply") from error
    except msgspec.ValidationError as error:
        raise RowError("malformed", f"the line is {_kind(line.lstrip())}; expected a JSON object") from error
    except msgspec.DecodeError as error:
        raise RowError("malformed", _broken(line, str(error))) from error


class JsonParser(Parser[dict[str, Raw]]):
    """Parser of lines."""

    def split(self, record: bytes, row: int) -> dict[str, Raw]:
        """See Parser."""
        return parse_object(record, row)

    def id(self, fields: dict[str, Raw], name: str) -> str:
        """See Parser."""
        data = bytes(fields.get(name, b""))
        if data.startswith(b'"') and (id := _string.decode(data)):
            return id
        if data.lstrip(b"-").isdigit():
            return data.decode()
        what = "absent" if not data else "empty" if data.startswith(b'"') else _kind(data)
        raise RowError("wrong_type", f'"{name}" is {what}; expected a string or an integer')

    def text(self, fields: dict[str, Raw]) -> str:
        """See Parser."""
        name = self._columns.text
        data = bytes(fields.get(name, b""))
        if data in (b"", b"null"):
            raise RowError("null_text", f'"{name}" is {"null" if data else "absent"}')
        if not data.startswith(b'"'):
            raise RowError("wrong_type", f'"{name}" is {_kind(data)}; expected a string')
        return _string.decode(data)

    def carried(self, fields: dict[str, Raw]) -> list[Any]:
        """See Parser."""
        types = self._config.columns.types
        names = self._columns.carried.names
        return [_cell(fields.get(name, b"null"), name, types.get(name, "string")) for name in names]


_READERS: dict[str, tuple[Callable[[bytes], Any], str]] = {
    "string": (lambda data: _string.decode(data) if data.startswith(b'"') else data.decode(), "a string"),
    "int64": (msgspec.json.Decoder(Annotated[int, Meta(ge=INT64[0], le=INT64[-1])]).decode, "a 64-bit integer"),
    "float64": (msgspec.json.Decoder(float).decode, "a number"),
    "bool": (msgspec.json.Decoder(bool).decode, "a boolean"),
}


def _cell(value: Raw | bytes, name: str, type: CarriedType) -> Any:
    data = bytes(value)
    if data == b"null":
        return None
    read, expected = _READERS[type]
    try:
        return read(data)
    except msgspec.DecodeError as error:
        raise RowError("wrong_type", f'"{name}" is {excerpt(data)[:40]}; expected {expected}') from error


def _kind(data: bytes) -> str:
    return _KINDS.get(chr(data[0]), "a number")


def _broken(line: bytes, problem: str) -> str:
    # msgspec gives every fault as one type: only its message tells them apart.
    too_early = "truncated" in problem or problem.endswith(f"(byte {len(line)})")
    if too_early and not line.endswith(b"\n"):
        return CUT_OFF
    if _HALF_PAIR.search(line) or "surrogate" in problem:
        return "not valid JSON: it holds half of a surrogate pair"
    return f"not valid JSON: {'it ends too early' if too_early else problem.removeprefix('JSON is malformed: ')}"


def _not_utf8(line: bytes, error: UnicodeDecodeError) -> str:
    if error.reason == "unexpected end of data" and error.end == len(line):
        return CUT_OFF
    return f"not valid UTF-8 (byte {error.start + 1} of the line)"
