"""Encodings of text files, read as UTF-8."""

from __future__ import annotations

import codecs
import io
from typing import IO

from embedmill.base.config import MIB
from embedmill.base.errors import ConfigError, InputError

UTF8 = "utf-8"
# The longer marks first: that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, UTF8),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ERRORS = "embedmill.fault"


def _fault(error: UnicodeError) -> tuple[str, int]:
    # A lone surrogate for what cannot be decoded: it makes the UTF-8 of its row invalid, and so the row is found.
    assert isinstance(error, UnicodeDecodeError)
    return "\udc80", error.end


codecs.register_error(_ERRORS, _fault)


def encoding_of(head: bytes, wanted: str) -> str:
    """Find an encoding by the first bytes. Raises ConfigError, InputError."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    if wanted.lower().replace("_", "-") in ("utf-16", "utf-32", "utf16", "utf32", "u16", "u32"):
        raise InputError(f'there is no byte order mark; set input.encoding = "{wanted}-le" or "{wanted}-be"')
    try:
        # Codecs such as rot13 and base64 are no encodings of text, which only decoding tells.
        b"x".decode(name := UTF8 if wanted == "auto" else wanted, "replace")
        # Others take no treatment of errors.
        codecs.getincrementaldecoder(name)(_ERRORS).decode(b"x", True)
        return codecs.lookup(name).name
    except (LookupError, ValueError) as error:
        raise ConfigError(
            f"`input.encoding` is {wanted!r}, which is no text encoding; name one as Python does, such as cp1252"
        ) from error


def marks_end(head: bytes) -> int:
    """Return where text begins after byte order marks of UTF-8."""
    # Some tools add one to a file that has one.
    end = 0
    while head.startswith(codecs.BOM_UTF8, end):
        end += len(codecs.BOM_UTF8)
    return end


def not_decoded(encoding: str, byte: int, place: str) -> str:
    """Describe a row that is not in `encoding`."""
    if encoding == UTF8:
        return (
            f"not valid UTF-8 (byte {byte} of the {place}); if the file has another encoding, set"
            " input.encoding, such as cp1252"
        )
    return f"not valid {encoding}, as which the file is read; set input.encoding to what it is"


class Utf8Reader:
    """Reader of a binary file in another encoding."""

    def __init__(self, raw: IO[bytes], encoding: str) -> None:
        self._raw = raw
        self._decoder = codecs.getincrementaldecoder(encoding)(_ERRORS)
        self._rest = io.BytesIO()
        self._ended = False

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes; none at the end."""
        while not (data := self._rest.read(size)) and not self._ended:
            block = self._raw.read(MIB)
            self._ended = not block
            self._rest = io.BytesIO(self._decoder.decode(block, self._ended).encode(UTF8, "surrogatepass"))
        return data

    def close(self) -> None:
        """Close the file."""
        self._raw.close()
