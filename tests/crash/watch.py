"""What a run does to the file system, call by call: counted, recorded, and at a chosen one killed or failed."""

from __future__ import annotations

import errno
import io
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

CALLS = ("fsync", "replace", "rename", "link", "unlink", "mkdir", "rmdir")


class Call(Struct):
    """One call: its name, the paths it was given (of fsync: what was synced), what was written, whether it failed."""

    name: str
    paths: list[str]
    data: bytes = b""
    failed: bool = False


class Fault(Struct, frozen=True):
    """The `number`-th call of that name fails so; with `forever` every later call of any name, too."""

    name: str
    number: int
    errno: int = errno.EIO
    forever: bool = False


class Watch:
    """Watches this process from `begin` on. A call has two points, before and after it; a write has one half-way."""

    def __init__(
        self, *, kill_at: int | None = None, stop_at: int | None = None, fault: Fault | None = None, trace: str = ""
    ) -> None:
        self.points = 0
        self._kill_at, self._stop_at, self._fault, self._trace = kill_at, stop_at, fault, trace
        self._calls: list[Call] = []
        self._seen: Counter[str] = Counter()
        self._broken = False

    def begin(self) -> None:
        """Take the place of the calls."""
        for name in CALLS:
            setattr(os, name, self._through(name, getattr(os, name)))
        opened = Path.open

        def open_watched(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            if mode == "xb":
                return io.BufferedWriter(_File(path, self))
            return opened(path, mode, *arguments, **options)

        setattr(Path, "open", open_watched)  # noqa: B010

    def save(self) -> None:
        """Write down what was recorded, if that was asked for."""
        if self._trace:
            Path(self._trace).write_bytes(msgspec.msgpack.encode(self._calls))

    def reach(self) -> None:
        """A point: count it, or die or stop at it."""
        if self.points == self._kill_at:
            self.save()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.points == self._stop_at:
            os.kill(os.getpid(), signal.SIGSTOP)
        self.points += 1

    def enter(self, call: Call) -> None:
        """The point before a call; raises OSError where it shall fail."""
        self.reach()
        number = self._seen[call.name]
        self._seen[call.name] += 1
        fault = self._fault
        hit = fault is not None and (call.name, number) == (fault.name, fault.number)
        self._broken = self._broken or (hit and fault is not None and fault.forever)
        if fault is not None and (hit or self._broken):
            call.failed = True
            self._calls.append(call)
            raise OSError(fault.errno, os.strerror(fault.errno))

    def leave(self, call: Call) -> None:
        """The point after a call."""
        self._calls.append(call)
        self.reach()

    def _through(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call_watched(*arguments: Any, **options: Any) -> Any:
            if name == "mkdir" and os.path.isdir(arguments[0]):  # noqa: PTH112
                return original(*arguments, **options)
            paths = [_synced(arguments[0])] if name == "fsync" else [os.fspath(path) for path in _paths(arguments)]
            call = Call(name, paths)
            self.enter(call)
            try:
                return original(*arguments, **options)
            except OSError:
                call.failed = True
                raise
            finally:
                self.leave(call)

        return call_watched


class _File(io.FileIO):
    """A new file whose creation and writes are calls, too."""

    def __init__(self, path: Path, watch: Watch) -> None:
        self._watch = watch
        self._path = os.fspath(path)
        call = Call("create", [self._path])
        watch.enter(call)
        super().__init__(self._path, "x")
        watch.leave(call)

    def write(self, data: Any) -> int:
        """In two halves, with a point between them; of a write that fails, the first half is written."""
        content = bytes(data)
        half = len(content) // 2
        call = Call("write", [self._path], content)
        try:
            self._watch.enter(call)
        except OSError:
            call.data = content[:half]
            super().write(content[:half])
            raise
        done = super().write(content[:half])
        self._watch.reach()
        if done == half:
            done += super().write(content[half:])
        call.data = content[:done]
        self._watch.leave(call)
        return done


def read_trace(path: Path) -> list[Call]:
    """What a watched run recorded."""
    return msgspec.msgpack.decode(path.read_bytes(), type=list[Call])


def _paths(arguments: tuple[Any, ...]) -> list[Any]:
    return [argument for argument in arguments if isinstance(argument, str | os.PathLike)]


def _synced(descriptor: int) -> str:
    """The path that a descriptor was opened with; empty where the system does not tell."""
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError:
        return ""
