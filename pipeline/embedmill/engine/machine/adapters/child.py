"""Detection in a child process, safe from drivers that crash."""

from __future__ import annotations

import sys
from collections.abc import Callable

import msgspec

from embedmill.base.process.child import leave_no_trace, run_child
from embedmill.engine.machine.adapters.adapter import Detection


def detect_in_child(module: str, timeout_s: float) -> Detection:
    """Run `main()` of a module, which calls `print_detection`.

    A child that crashes, takes longer than `timeout_s` seconds or prints no result gives a `Detection` with the
    reason, never an exception.
    """
    ended = run_child(module, timeout_s=timeout_s)
    return Detection(reason=ended.words) if ended.words else _parsed(ended.lines)


def print_detection(detect: Callable[[], Detection]) -> None:
    """Print a detection as one line of JSON."""
    leave_no_trace()
    # Bytes, for an encoding of the parent's environment may not have the name of a device.
    sys.stdout.buffer.write(msgspec.json.encode(detect()) + b"\n")
    sys.stdout.flush()


def _parsed(lines: list[str]) -> Detection:
    # A driver may print lines too, before and after the result.
    for line in reversed(lines):
        try:
            return msgspec.json.decode(line, type=Detection)
        except msgspec.DecodeError:
            continue
    return Detection(reason="ended without an answer")
