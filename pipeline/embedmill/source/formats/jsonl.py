"""JSON lines, arrays of objects, and concatenated objects."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from decimal import Decimal
from functools import partial
from itertools import chain, islice
from typing import Annotated, Any

import msgspec
import pyarrow as pa
from msgspec import Meta, Struct

from embedmill.base.config import MIB, RunConfig
from embedmill.base.errors import InputError
from embedmill.base.records import InputFile, Span
from embedmill.source.columns import INT64, ResolvedColumns, missing, required, resolved, text_carried
from embedmill.source.encoding import UTF8, marks_end
from embedmill.source.formats.boundaries import JsonCutter, LineCutter, Oversize, records
from embedmill.source.formats.json_object import CUT_OFF, Object, kind, parse_object, value_of
from embedmill.source.formats.rows import Parser, RowError, excerpt, is_near, number_text
from embedmill.source.formats.text import CutterAt, TextFile, survey_text
from embedmill.source.formats.values import READERS
from embedmill.source.partitions import partition_values
from embedmill.source.stream import ByteStream

ENDINGS: tuple[str, ...] = (".jsonl", ".ndjson", ".json")
COMPRESSIBLE = True
SAMPLED_ROWS = 1000
_HEAD_BYTES = MIB // 4

_string = msgspec.json.Decoder(str)
_value = msgspec.json.Decoder(msgspec.Raw)
_OBJECTS = re.compile(rb"\[\s*\{")
_CONSTANTS = {b"NaN": math.nan, b"Infinity": math.inf, b"-Infinity": -math.inf}


class Layout(Struct, frozen=True, kw_only=True):
    """Arrangement of a file's rows."""

    cutter: CutterAt
    start: int  # byte of the first row
    is_array: bool


def find_columns(file: InputFile, others: Iterable[InputFile], config: RunConfig) -> ResolvedColumns | None:
    """See Format; the first 1,000 rows decide, across files."""
    # Of the first file with rows: without a configured id, a column `id` is used where that file has one.
    first: list[str] = []
    present: dict[str, None] = {}
    lacking = dict(required(config.columns, config.columns.id))
    left = SAMPLED_ROWS
    for sampled in chain([file], others):
        if not left or sampled.format != file.format:
            break
        # Any row may lack a key, so one row alone says little about the columns.
        for fields, unread in islice(_objects(sampled, config), left):
            present |= dict.fromkeys(fields)
            lacking = {
                name: setting
                for name, setting in lacking.items()
                # A row that cannot be read may well have it.
                if not value_of(fields, name) and msgspec.json.encode(name.rpartition(".")[2]) not in unread
            }
            left -= 1
        first = first or list(present)
    if not present:
        return None
    for name, setting in lacking.items():
        raise missing(file, list(present), name, setting, " in the first rows")
    return resolved(config, first, text_carried(config))


def carried_types(file: InputFile, config: RunConfig) -> pa.Schema | None:
    """See Format."""
    return text_carried(config)


def survey(number: int, file: InputFile, config: RunConfig, columns: ResolvedColumns) -> Iterator[Span]:
    """See Format; blank lines are rows too."""
    with closing(ByteStream(file, config)) as stream:
        layout = layout_of(stream, config.limits.record_bytes)
        cutter = layout.cutter(layout.start)
        yield from survey_text(number, stream, cutter, layout.start)
        # A row that is cut off is set aside. Behind a comma there is no row to tell that others are missing.
        if isinstance(cutter, JsonCutter) and cutter.lacks_element:
            raise InputError(
                f"{file.path}: ends inside its array, so rows may be missing; replace the file, or close the array"
            )


def open_file(file: InputFile, config: RunConfig, columns: ResolvedColumns) -> TextFile:
    """See Format."""
    with ExitStack() as opened:
        stream = opened.enter_context(closing(ByteStream(file, config)))
        layout = layout_of(stream, config.limits.record_bytes)
        parser = JsonParser(file, config, columns, layout, stream.encoding)
        opened.pop_all()
    return TextFile(file, config, stream, cutter=layout.cutter, parser=parser)


def layout_of(stream: ByteStream, limit_bytes: int) -> Layout:
    """Detect the layout of a file by the beginning."""
    head = stream.read(_HEAD_BYTES)
    mark = marks_end(head)
    body = head[mark:].lstrip()
    # A first line that is whole tells lines of objects from an object over lines.
    while body.startswith(b"{") and b"\n" not in body and len(body) < limit_bytes and (more := stream.read(4 * MIB)):
        body += more
    start = stream.position - len(body)
    line, _, rest = body.partition(b"\n")
    # A list of values per line is no array of objects: each is a bad row.
    if body.startswith(b"[") and (_OBJECTS.match(body) or not (rest.strip() and _is_list(line))):
        return Layout(cutter=partial(JsonCutter, in_array=True), start=start + 1, is_array=True)
    if body.startswith(b"{") and not _is_object(line) and _begins_with_object(body):
        return Layout(cutter=partial(JsonCutter, in_array=False), start=start, is_array=False)
    return Layout(cutter=LineCutter, start=mark, is_array=False)


def _begins_with_object(body: bytes) -> bool:
    ends = JsonCutter(0, in_array=False).ends(body)
    if len(ends):
        return _is_object(body[: int(ends[0])])
    # The only one, or too long to see its end: then no line but the first begins with a brace.
    return _is_object(body) or (len(body) > _HEAD_BYTES // 2 and b"\n{" not in body)


def _is_object(data: bytes) -> bool:
    try:
        parse_object(data, UTF8)
    except RowError:
        return False
    return True


def _is_list(data: bytes) -> bool:
    try:
        return bytes(_value.decode(data)).startswith(b"[")
    except (msgspec.DecodeError, RecursionError):
        return False


def _objects(file: InputFile, config: RunConfig) -> Iterator[tuple[Object, bytes]]:
    """Yield rows, bad ones as empty objects with bytes."""
    partitions = _partitions(file, config)
    with closing(ByteStream(file, config)) as stream:
        layout = layout_of(stream, config.limits.record_bytes)
        stream.seek(layout.start)
        for record in records(stream, layout.cutter(layout.start), config.limits.record_bytes):
            if isinstance(record, Oversize):
                yield partitions, record.head
                continue
            try:
                yield partitions | _parsed(record, layout, stream.encoding), b""
            except RowError:
                yield partitions, record


def _partitions(file: InputFile, config: RunConfig) -> Object:
    # Python's own writer has NaN and infinities.
    return {
        key: msgspec.Raw(json.dumps(_partition(value, config.columns.types.get(key, "string"))).encode())
        for key, value in partition_values(file.name).items()
    }


def _partition(text: str | None, type: str) -> Any:
    """Read a partition, or return the text."""
    value = None if text is None else READERS[type][0](text)
    return text if value is None else value


def _parsed(record: bytes, layout: Layout, encoding: str) -> Object:
    """Parse a row of a layout; raise RowError."""
    return parse_object(_element(record, encoding) if layout.is_array else record, encoding)


def _element(record: bytes, encoding: str) -> bytes:
    """Strip what follows an element of an array."""
    # Another array may begin behind it.
    element = re.sub(rb"\]\s*\[$", b"]", record.strip())
    if element == b",":
        raise RowError("malformed", "not valid JSON: there is nothing before the comma")
    if element.endswith((b",", b"]")):
        return element[:-1]
    if re.search(rb"\}\s*\]", element):
        raise RowError("malformed", "something follows the end of the array")
    parse_object(element, encoding)
    raise RowError("malformed", CUT_OFF)


class JsonParser(Parser[Object]):
    """Parser of rows."""

    def __init__(
        self, file: InputFile, config: RunConfig, columns: ResolvedColumns, layout: Layout, encoding: str
    ) -> None:
        super().__init__(file, config, columns)
        self._layout = layout
        self._encoding = encoding
        self._partitions = _partitions(file, config)
        types = config.columns.types
        self._readers = [(name, *_READERS[types.get(name, "string")]) for name in columns.carried.names]

    def split(self, record: bytes, row: int) -> Object:
        """See Parser."""
        fields = _parsed(record, self._layout, self._encoding)
        if self._partitions:
            # The object's own columns come first, and it stays what it is.
            fields.update({key: value for key, value in self._partitions.items() if key not in fields})
        return fields

    def id(self, fields: Object, name: str) -> str:
        """See Parser."""
        data = value_of(fields, name)
        if data.startswith(b'"') and (id := _decoded(data, name)):
            return id
        if data.removeprefix(b"-").isdigit() or data in (b"true", b"false"):
            return "0" if data == b"-0" else data.decode()
        if data.removeprefix(b"-")[:1].isdigit():
            return _number_id(data.decode())
        what = "absent" if not data else "empty" if data.startswith(b'"') else kind(data)
        what = data.decode() if data in _CONSTANTS else what
        raise RowError("wrong_type", f'"{name}" is {what}; expected an id')

    def text(self, fields: Object) -> str:
        """See Parser."""
        name = self._columns.text
        data = value_of(fields, name)
        if data in (b"", b"null"):
            raise RowError("null_text", f'"{name}" is {"null" if data else "absent"}')
        if not data.startswith(b'"'):
            raise RowError("wrong_type", f'"{name}" is {kind(data)}; expected a string')
        return _decoded(data, name)

    def carried(self, fields: Object) -> list[Any]:
        """See Parser."""
        return [_cell(value_of(fields, name), name, read, expected) for name, read, expected in self._readers]


def _decoded(data: bytes, name: str) -> str:
    try:
        return _string.decode(data)
    except msgspec.DecodeError as error:
        raise RowError("malformed", f'"{name}" holds half of a surrogate pair') from error


def _number_id(text: str) -> str:
    """Format a number as an id, unless no double."""
    value = float(text)
    try:
        return number_text(value, text) if value == Decimal(text) else text
    except ArithmeticError:
        # An exponent beyond those of decimals.
        return text


def _text(data: bytes, name: str) -> str:
    return _decoded(data, name) if data.startswith(b'"') else data.decode()


def _float(data: bytes, name: str) -> float:
    if data in _CONSTANTS:
        return _CONSTANTS[data]
    value = -0.0 if data == b"-0" else _number.decode(data)
    if not is_near(value, data.decode()):
        raise msgspec.DecodeError("no double is near")
    return value


_integer = msgspec.json.Decoder(Annotated[int, Meta(ge=INT64[0], le=INT64[-1])])
_number = msgspec.json.Decoder(float)
_boolean = msgspec.json.Decoder(bool)
_Reader = Callable[[bytes, str], Any]
_READERS: dict[str, tuple[_Reader, str]] = {
    "string": (_text, "a string"),
    "int64": (lambda data, _: _integer.decode(data), "a 64-bit integer"),
    "float64": (_float, "a number"),
    "bool": (lambda data, _: _boolean.decode(data), "a boolean"),
}


def _cell(data: bytes, name: str, read: _Reader, expected: str) -> Any:
    if data in (b"", b"null"):
        return None
    try:
        return read(data, name)
    except msgspec.DecodeError as error:
        raise RowError("wrong_type", f'"{name}" is {excerpt(data)[:40]}; expected {expected}') from error
