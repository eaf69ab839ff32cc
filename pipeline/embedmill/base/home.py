"""What one run finds out for the next ones: small JSON records below the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from platformdirs import user_cache_path

from embedmill.base.errors import OutputError
from embedmill.base.files import local

if TYPE_CHECKING:
    pass


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


def home_folder() -> Path:
    """Where embedmill keeps what it built and found out: `$EMBEDMILL_HOME`, else `embedmill` in the user's cache."""
    home = os.environ.get("EMBEDMILL_HOME")
    return Path(home) if home else user_cache_path("embedmill", appauthor=False)
