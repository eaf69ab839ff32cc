"""A look through a driver, in a child process."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from embedmill.base.process.child import leave_no_trace, run_child
from embedmill.engine.machine.adapters.adapter import Look


def look_in_child(module: str, timeout_s: float) -> Look:
    """Run `main()` of a module, which ends with `answer`, in a child process.

    A child that crashes, takes longer than `timeout_s` seconds or says nothing sensible gives a `Look` with the
    reason, never an exception.
    """
    ended = run_child(module, timeout_s=timeout_s)
    return Look(reason=ended.words) if ended.words else _parsed(ended.lines)


def answer(look: Callable[[], Look]) -> None:
    """Look, and print what was seen as one line of JSON; for a child."""
    leave_no_trace()
    print(msgspec.json.encode(look()).decode(), flush=True)


def _parsed(lines: list[str]) -> Look:
    """The answer among what was printed: a driver may print too, before it and after."""
    for line in reversed(lines):
        try:
            return msgspec.json.decode(line, type=Look)
        except msgspec.DecodeError:
            continue
    return Look(reason="ended without an answer")
