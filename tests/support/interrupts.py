"""Signals at chosen bytecode instructions of the main thread, and what a call that met one leaves behind."""

from __future__ import annotations

import dis
import gc
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import embedmill
from tests.base.process.test_worker import children

_PACKAGE = str(Path(embedmill.__file__).parent)
# Where handlers are installed and exit codes settled: a signal is the interpreter's before, and does nothing after.
_HANDLING = ("base/signals.py", "cli/entry.py", "cli/main.py")
# The instruction that enters a `with` block in CPython 3.11 to 3.13.
_ENTERING = "BEFORE_WITH"

Point = tuple[CodeType, int]


class Interrupter:
    """Traces a call's instructions in the package; raises a signal where an instruction is first reached."""

    def __init__(self, signum: signal.Signals = signal.SIGINT, at: Point | None = None) -> None:
        self.points: dict[Point, None] = {}
        self._signum, self._at = signum, at

    def __call__(self, call: Callable[[], Any]) -> Any:
        """Call it under the trace."""
        sys.settrace(self._enter)
        try:
            return call()
        finally:
            sys.settrace(None)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        file = frame.f_code.co_filename
        if not file.startswith(_PACKAGE) or file.endswith(_HANDLING):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._reach

    def _reach(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        point = (frame.f_code, frame.f_lasti)
        if event == "opcode" and point not in self.points:
            self.points[point] = None
            if point == self._at:
                signal.raise_signal(self._signum)
        return self._reach

    def entering(self) -> list[Point]:
        """The instructions that enter a `with` block with what a call has just returned."""
        pairs = {code: pairwise(dis.get_instructions(code)) for code, _ in self.points}
        found = {
            (code, entering.offset)
            for code, instructions in pairs.items()
            for call, entering in instructions
            if call.opname == "CALL" and entering.opname == _ENTERING
        }
        return [point for point in self.points if point in found]


@contextmanager
def nothing_left(folder: Path) -> Iterator[None]:
    """Fail where the block leaves a thread, a child, a temporary file, or anything that was not closed."""
    folder.mkdir(exist_ok=True)
    threads, processes, unraisable = set(threading.enumerate()), set(children()), list[str]()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.setattr(sys, "unraisablehook", lambda found: unraisable.append(repr(found.exc_value)))
        warnings.simplefilter("error")
        yield
        gc.collect()
    assert unraisable == []
    assert set(threading.enumerate()) == threads
    assert set(children()) <= processes
    assert list(folder.iterdir()) == []
