"""Fingerprint of a job, which a resume must match."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from embedmill.base.config import RunConfig
from embedmill.base.records import InputFile

# Options that may differ on a resume: they change how a job runs, not its output. `model` and
# `input.paths` count by what they lead to, the identity and the files.
_FREE_TABLES = ("engine.",)
_FREE_KEYS = frozenset(
    {
        "model",
        "input.paths",
        "output.path",
        "limits.carried_bytes",
        "limits.expansion",
        "limits.window_log",
        "rows.max_quarantined",
    }
)
# To be raised with a change by which the same options and files give other rows or texts.
RULES = 3


def fingerprint(config: RunConfig, identity: str, files: Iterable[InputFile]) -> dict[str, Any]:
    """Return all that determines the rows: options, model, files."""
    # Options are `table.key` -> value; `input.files` maps a name to size and digest.
    flat: dict[str, Any] = {}
    # Through JSON, where tuples become lists: a recorded fingerprint is compared with a new one.
    for table, value in msgspec.json.decode(msgspec.json.encode(config)).items():
        flat |= {f"{table}.{key}": one for key, one in value.items()} if isinstance(value, dict) else {table: value}
    options = {key: value for key, value in flat.items() if key not in _FREE_KEYS and not key.startswith(_FREE_TABLES)}
    listed = {file.name: f"{file.size_bytes} bytes, {file.digest}" for file in files}
    return {"rules": RULES, "model.identity": identity, **options, "input.files": listed}


def first_difference(before: dict[str, Any], now: dict[str, Any]) -> tuple[str, str] | None:
    """Return the first differing field and a description, or None."""
    for field in sorted(before.keys() | now.keys(), key=_priority):
        old, new = before.get(field), now.get(field)
        if field == "input.files":
            old, new = old or {}, new or {}
            # Equal dicts may differ in order, and with it the rows of the output.
            if list(old.items()) != list(new.items()):
                return field, f"`input.files`: {_file_difference(old, new)}"
        elif field == "rules" and old != new:
            return field, "it was begun by another version of embedmill, which reads or cuts texts by other rules"
        elif old != new:
            return field, f"`{field}` was {old!r} and is now {new!r}"
    return None


def _priority(field: str) -> tuple[int, str]:
    # A changed option may change the identity too, and is what the user can act on; files come last.
    return {"rules": -1, "model.identity": 1, "input.files": 2}.get(field, 0), field


def _file_difference(before: dict[str, str], now: dict[str, str]) -> str:
    for name in sorted(before.keys() | now.keys()):
        if name not in now:
            return f"{name} is no longer there"
        if name not in before:
            return f"{name} is new"
        if before[name] != now[name]:
            return f"{name} has changed ({before[name]}; now {now[name]})"
    return "the order of the files has changed"
