"""What one run finds out for the next ones: small JSON records below the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from embedmill.base.errors import OutputError
from embedmill.base.files import local

LOG = logging.getLogger("embedmill")
Record = TypeVar("Record", bound=msgspec.Struct)


def key_of(parts: Any) -> str:
    """A file name for whatever JSON can say."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def read_record(path: Path, kind: type[Record]) -> Record | None:
    """The record in a file; None where there is none, or with a warning where it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        LOG.warning("%s is damaged or of another version, and is made anew (%s)", path, error)
        return None


def write_record(path: Path, record: msgspec.Struct) -> None:
    """Keep a record; where that cannot be done, a warning, and the next run finds it out again."""
    try:
        local.make_folder(path.parent)
        local.write_file(path, msgspec.json.format(msgspec.json.encode(record)), scratch=path.parent)
    except OutputError as error:
        LOG.warning("what was found out is not kept: %s", error)
