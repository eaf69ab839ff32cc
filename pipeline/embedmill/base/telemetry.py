"""Telemetry of libraries, off unless the config allows reports."""

from __future__ import annotations

import os

# ONNX Runtime and some of its plugins read the first one as they load; a value of 0 leaves them reporting.
_RUNTIME, _HUB = "ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"
_FORBIDDING = (_RUNTIME, "DO_NOT_TRACK")
_NO = frozenset({"", "0", "false", "no", "off", "n"})

_given = os.environ.get(_RUNTIME)
_allowed = False


def settle(allowed: bool) -> bool:
    """Switch ONNX Runtime's reports before loading; return the state.

    The user's environment may forbid them, and cannot allow them. The hub's client never reports.
    """
    global _allowed
    os.environ[_HUB] = "1"
    os.environ.pop(_RUNTIME, None)
    if _given is not None:
        os.environ[_RUNTIME] = _given
    _allowed = allowed and all(os.environ.get(name, "").strip().lower() in _NO for name in _FORBIDDING)
    if not _allowed:
        os.environ[_RUNTIME] = "1"
    return _allowed


def allowed() -> bool:
    """Tell if ONNX Runtime may report from this process."""
    return _allowed
