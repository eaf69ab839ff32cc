"""Hive partitions: columns in folder names, such as `lang=en`."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import PurePath
from urllib.parse import unquote

_SEGMENT = re.compile(r"([^=]+)=(.*)", re.DOTALL)
# What Hive and Spark write for null.
_NULL = "__HIVE_DEFAULT_PARTITION__"


def partitioned(path: str, name: str) -> str:
    """Prefix a file's name with partitions above the input root."""
    # So that a folder `lang=en` has the same columns whether it is named or found.
    above = PurePath(path).parts[: -len(PurePath(name).parts)]
    keys = list(takewhile(_SEGMENT.fullmatch, reversed(above)))
    return "/".join([*reversed(keys), name])


def partition_values(name: str) -> dict[str, str | None]:
    """Return partition columns in a file's name."""
    found = (_SEGMENT.fullmatch(folder) for folder in name.split("/")[:-1])
    pairs = (map(_unquoted, match.groups()) for match in found if match)
    return {key: None if value == _NULL else value for key, value in pairs}


def _unquoted(text: str) -> str:
    # What is no UTF-8 stays as it is, so that two values stay two.
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        return text
