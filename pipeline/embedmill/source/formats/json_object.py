"""JSON objects with unparsed values."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec
from msgspec import Raw

from embedmill.source.columns import paths
from embedmill.source.encoding import not_decoded
from embedmill.source.formats.rows import BLANK, RowError

# Raw leaves values unparsed: most columns are not needed, and one of a wrong type must not fail the row.
_decoder = msgspec.json.Decoder(dict[str, Raw])
_KINDS = {"{": "an object", "[": "a list", '"': "a string", "t": "a boolean", "f": "a boolean", "n": "null"}
# Strings as a whole, because only outside of them NaN is a number; halves of surrogate pairs inside. One without an end
# matches too, and nothing is tried twice: else each quote of a row that is cut off would be read up to the end.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?'
_CONSTANT = re.compile(_STRING + rb"|(-?Infinity|NaN)", re.DOTALL)
_HALF_PAIR = re.compile(
    rb"\\\\|(\\u[dD][89abAB][0-9a-fA-F]{2})(\\u[dD][c-fC-F][0-9a-fA-F]{2})?|(\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)
_MAY_BE_MASKED = re.compile(rb"NaN|Infinity|\\u[dD][89a-fA-F]")
# Stand for what JSON does not allow, until a value is asked for.
_MASK = rb"\u0000\u0001"
_MASKED_HALF = _MASK + rb"\\"
_MASKED_CONSTANT = re.compile(rb'"\\u0000\\u0001(-?Infinity|NaN)"')
CUT_OFF = "the row looks cut off: the file ends inside its JSON"

Object = dict[str, Raw]


class _Masked(Object):
    """Object that was parsed with masks."""


def parse_object(record: bytes, encoding: str) -> Object:
    """Return keys and unparsed values; raise RowError.

    Of equal keys, the last counts. The whole must be JSON in UTF-8, not nested deeper than Python's recursion limit;
    Python's NaN and Infinity, and halves of surrogate pairs, are faults only of the values that are asked for.
    """
    try:
        # msgspec takes invalid UTF-8 in values that it does not decode.
        if not record.isascii():
            record.decode()
        return _decoder.decode(record)
    except UnicodeDecodeError as error:
        raise RowError("malformed", _not_decoded(record, error, encoding)) from error
    except RecursionError as error:
        raise RowError("malformed", "the JSON is nested too deeply") from error
    except msgspec.ValidationError as error:
        raise RowError("malformed", f"the row is {kind(record.lstrip())}; expected a JSON object") from error
    except msgspec.DecodeError as error:
        if not record.strip():
            raise RowError(BLANK, "the row is blank") from error
        if (masked := _masked(record)) is not None:
            return masked
        raise RowError("malformed", _broken(record, str(error))) from error


def value_of(fields: Object, name: str) -> bytes:
    """Return a column's unparsed value, empty if absent; raise RowError."""
    # A key of that name comes before a dotted path.
    if name not in fields:
        return next((value for value in (_inside(fields, *path) for path in paths(name)) if value), b"")
    value = bytes(fields[name])
    if type(fields) is dict:
        return value
    return _MASKED_CONSTANT.sub(rb"\1", value).replace(_MASKED_HALF, b"\\")


def kind(data: bytes) -> str:
    """Name the kind of an unparsed value."""
    return _KINDS.get(chr(data[0]), "a number")


def _inside(fields: Object, column: str, field: str) -> bytes:
    value = value_of(fields, column) if column in fields else b""
    return value_of(parse_object(value, "utf-8"), field) if value.startswith(b"{") else b""


def _masked(record: bytes) -> Object | None:
    """Parse a record with masked constants and half pairs."""
    if _MASK in record or not _MAY_BE_MASKED.search(record):
        return None
    masked = _marked(record, _CONSTANT, lambda match: b'"%b%b"' % (_MASK, match[0]) if match[1] else None)
    masked = _marked(masked, _HALF_PAIR, lambda match: _MASK + b"\\" + match[0] if _is_half(match) else None)
    try:
        return _Masked(_decoder.decode(masked))
    except (msgspec.DecodeError, RecursionError):
        return None


def _marked(data: bytes, pattern: re.Pattern[bytes], mark: Callable[[re.Match[bytes]], bytes | None]) -> bytes:
    """Replace the matches that get a mark."""
    # Not sub(): it holds a copy of every match, and a long row may have millions.
    parts, at = [], 0
    for match in pattern.finditer(data):
        if (new := mark(match)) is not None:
            parts += [data[at : match.start()], new]
            at = match.end()
    return b"".join([*parts, data[at:]])


def _is_half(match: re.Match[bytes]) -> bool:
    return match[3] is not None or (match[1] is not None and match[2] is None)


def _broken(record: bytes, problem: str) -> str:
    # msgspec gives every fault as one type: only its message tells them apart.
    at_end = problem.endswith(f"(byte {len(record)})") and "trailing" not in problem
    too_early = "truncated" in problem or at_end
    if too_early and not record.endswith(b"\n"):
        return CUT_OFF
    return f"not valid JSON: {'it ends too early' if too_early else problem.removeprefix('JSON is malformed: ')}"


def _not_decoded(record: bytes, error: UnicodeDecodeError, encoding: str) -> str:
    if error.reason == "unexpected end of data" and error.end == len(record):
        return CUT_OFF
    return not_decoded(encoding, error.start + 1, "row")
