"""JSON records cached between runs in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from platformdirs import user_cache_path

from embedmill.base.errors import OutputError
from embedmill.base.files import local

LOG = logging.getLogger("embedmill")
Record = TypeVar("Record", bound=msgspec.Struct)


def key_of(parts: Any) -> str:
    """Hash a JSON value to a cache key."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def read_record(path: Path, kind: type[Record]) -> Record | None:
    """Read a cached record; None if absent or unreadable."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        # A cache only saves time: a record that another version wrote is measured again, not an error.
        LOG.warning("%s is damaged or of another version, and will be replaced (%s)", path, error)
        return None


def write_record(path: Path, record: msgspec.Struct) -> None:
    """Cache a record; log a warning where that fails."""
    try:
        local.make_folder(path.parent)
        local.write_file(path, msgspec.json.format(msgspec.json.encode(record)), scratch=path.parent)
    except OutputError as error:
        LOG.warning("results are not cached: %s", error)


def home_folder() -> Path:
    """Return `$EMBEDMILL_HOME`, else `embedmill` in the user's cache folder."""
    home = os.environ.get("EMBEDMILL_HOME")
    return Path(home) if home else user_cache_path("embedmill", appauthor=False)
