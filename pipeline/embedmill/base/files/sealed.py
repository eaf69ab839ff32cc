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
_MOST_BYTES = 1 << 30
_PAGE_JOB = b"<!-- job %s -->\n"
_SEAL = re.compile(rb"<!-- job [0-9a-f]*")
_SEAL_BYTES = 256
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
    view = memoryview(data)
    digest = hashlib.sha256(view[: head.start(1)])
    digest.update(view[head.end(1) :])
    if digest.hexdigest().encode() != head[1]:
        raise ValueError("it is damaged: its content is not that of its digest")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"it is of another version: {error}") from error


def digest_in(path: Path) -> str:
    """Read the stated digest; empty without one."""
    try:
        head = _HEAD.match(read_regular(path))
    except (OSError, ValueError):
        return ""
    return head[1].decode() if head is not None else ""


def seal_page(page: bytes, job: str) -> bytes:
    """Append the job and the digest to an HTML page."""
    page += _PAGE_JOB % job.encode()
    return page + _PAGE_END % hashlib.sha256(page).hexdigest().encode()


def is_sealed_page(path: Path, job: str) -> bool:
    """Check job and digest of a page. Raises OSError, ValueError."""
    data = read_regular(path)
    about, length = _PAGE_JOB % job.encode(), len(_PAGE_END % bytes(64))
    end = _PAGE_END % hashlib.sha256(memoryview(data)[:-length]).hexdigest().encode()
    return data.endswith(about + end)


def ends_like_a_page(path: Path) -> bool:
    """Return whether a file ends like a sealed page."""
    require_regular(path)
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, _SEAL_BYTES), 2)
        return _SEAL.search(file.read()) is not None


def read_regular(path: Path) -> bytes:
    """Read a regular file. Raises OSError, ValueError."""
    require_regular(path)
    if (size := path.stat().st_size) > _MOST_BYTES:
        raise ValueError(f"it has {size:,} bytes, more than any that is written here")
    return path.read_bytes()


def require_regular(path: Path) -> None:
    """Raise ValueError unless a regular file, OSError without one."""
    # Opening a pipe would wait for a writer, and a device may never end.
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is not a regular file")
