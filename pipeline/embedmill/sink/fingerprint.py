"""What an output was made from and how: the fingerprint that a resume must match."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from embedmill.base.config import RunConfig
from embedmill.base.records import InputFile


def fingerprint(config: RunConfig, identity: str, files: Iterable[InputFile]) -> dict[str, Any]:
    """Everything that changes the output, flat: option name -> value; plus the model and the input files.

    `input.files` maps a file's name to its size and digest. Two jobs with equal fingerprints write
    the same rows.
    """
    flat = _flatten(msgspec.to_builtins(config))
    kept = {key: value for key, value in flat.items() if not _is_free(key)}
    listed = {file.name: f"{file.size_bytes} bytes, {file.digest}" for file in files}
    return {"model.identity": identity, **kept, "input.files": listed}


def first_difference(before: dict[str, Any], now: dict[str, Any]) -> tuple[str, str] | None:
    """The first field in which two fingerprints differ, and the difference in words; None if equal."""
    for field in sorted(before.keys() | now.keys(), key=_told_first):
        old, new = before.get(field), now.get(field)
        if field == "input.files" and list((old or {}).items()) == list((new or {}).items()):
            continue
        if field == "input.files":
            return _first_file_difference(old or {}, new or {})
        if old == new:
            continue
        return field, f"`{field}` was {old!r} and is now {new!r}"
    return None


def _told_first(field: str) -> tuple[int, str]:
    """Options come before the identity that they may change, and both before the files."""
    return ("model.identity", "input.files").index(field) + 1 if field in (
        "model.identity",
        "input.files",
    ) else 0, field


def _first_file_difference(before: dict[str, str], now: dict[str, str]) -> tuple[str, str]:
    for name in sorted(before.keys() | now.keys()):
        if name not in now:
            return "input.files", f"`input.files`: {name} is no longer there"
        if name not in before:
            return "input.files", f"`input.files`: {name} is new"
        if before[name] != now[name]:
            return "input.files", f"`input.files`: {name} has changed ({before[name]}; now {now[name]})"
    return "input.files", "`input.files`: the order of the files has changed"


_FREE_TABLES = ("engine.",)
_FREE_KEYS = frozenset({"model", "input.paths", "output.path", "limits.expansion", "rows.max_quarantined"})


def _is_free(key: str) -> bool:
    """Whether an option may differ on a resume: it changes how the job runs, not what it writes."""
    return key in _FREE_KEYS or key.startswith(_FREE_TABLES)


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and prefix == "":
            flat |= _flatten(value, f"{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat
