"""Scan through a driver in a child process."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from embedmill.base.process.child import leave_no_trace, run_child
from embedmill.engine.machine.adapters.adapter import Scan


def scan_in_child(module: str, timeout_s: float) -> Scan:
    """Run a module's `main()`, which calls `answer`, in a child.

    A child that crashes, takes longer than `timeout_s` seconds or prints no answer gives a `Scan` with the reason,
    never an exception.
    """
    result = run_child(module, timeout_s=timeout_s)
    return Scan(reason=result.words) if result.words else _parsed(result.lines)


def answer(scan: Callable[[], Scan]) -> None:
    """Print a scan as one line of JSON (child side)."""
    leave_no_trace()
    print(msgspec.json.encode(scan()).decode(), flush=True)


def _parsed(lines: list[str]) -> Scan:
    # The driver may print too, before the answer and after.
    for line in reversed(lines):
        try:
            return msgspec.json.decode(line, type=Scan)
        except msgspec.DecodeError:
            continue
    return Scan(reason="ended without an answer")
