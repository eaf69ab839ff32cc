"""Files with a digest of themselves."""

from __future__ import annotations

import hashlib
import re
import stat
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct, structs

_HEAD = re.compile(rb'\{\s*"digest": ?"([0-9a-f]{64})"')
_PAGE_END = b"<!-- sha256 of the lines above: %s -->\n"


class Sealed(Struct, frozen=True, kw_only=True):
    """JSON object with the sha256 of the rest."""

    digest: str = ""


Record = TypeVar("Record", bound=Sealed)


def seal(record: Record, *, indent: int = 0) -> tuple[Record, bytes]:
    """Return a record with digest, and the file's content."""
    blank = msgspec.json.encode(structs.replace(record, digest=""))
    if indent:
        blank = msgspec.json.format(blank, indent=indent)
    digest = hashlib.sha256(blank).hexdigest()
    # A field of the base class is the first key, so its value is the first pair of quotes.
    return structs.replace(record, digest=digest), blank.replace(b'""', f'"{digest}"'.encode(), 1)


def read_sealed(path: Path, kind: type[Record]) -> Record:
    """Read a sealed file.

    Raises OSError, and ValueError for other content than was written.
    """
    data = read_regular(path)
    head = _HEAD.match(data)
    if head is None:
        raise ValueError("it is damaged, or of an earlier version: it has no digest of its own")
    if hashlib.sha256(data[: head.start(1)] + data[head.end(1) :]).hexdigest().encode() != head[1]:
        raise ValueError("it is damaged: its content is not that of its digest")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"it is of another version: {error}") from error


def seal_page(page: bytes) -> bytes:
    """Append the digest to an HTML page."""
    return page + _PAGE_END % hashlib.sha256(page).hexdigest().encode()


def is_sealed_page(path: Path) -> bool:
    """Check the digest of a page. Raises OSError, ValueError."""
    data = read_regular(path)
    return data == seal_page(data[: -len(_PAGE_END % bytes(64))])


def read_regular(path: Path) -> bytes:
    """Read a regular file. Raises OSError, ValueError."""
    # Opening a pipe would wait for a writer, and a device may never end.
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is not a regular file")
    return path.read_bytes()
