"""Runs of the command line that are killed, stopped or failed at their n-th call that changes the file system.

As a program it loads embedmill once and then, for each order on standard input, forks runs; so a trial costs a
fraction of a second. `Failpoints` is the other side: it has two such programs, so that two trials go on at a time.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec
from msgspec import Struct

from tests.crash.watch import Fault, Watch

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60
AT_ONCE = 2

Case = TypeVar("Case")
Found = TypeVar("Found")


def at_once(trial: Callable[[Case], Found], cases: Iterable[Case]) -> list[Found]:
    """Two trials at a time; what they found, in the order of the cases. The first that fails ends it."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(trial, cases))


class Order(Struct, kw_only=True):
    """What to do: `count` runs at once, of which one that reaches the point `stop_at` stops until all others ended.

    `resume` says whether it then goes on or is killed.
    """

    words: list[str]
    count: int = 1
    kill_at: int | None = None
    kill_after_s: float | None = None
    stop_at: int | None = None
    resume: bool = True
    fault: Fault | None = None
    trace: str = ""
    said: str = os.devnull


class Ending(Struct, kw_only=True):
    """How a run ended: its exit code (-9 if it was killed), its points and seconds (0 then), whether it had stopped."""

    code: int
    points: int
    seconds: float
    stopped: bool


class Failpoints:
    """The processes that fork runs; a context manager. Each takes one order at a time."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.crash.failpoints"]
        self._idle: queue.Queue[subprocess.Popen[bytes]] = queue.Queue()
        for _ in range(AT_ONCE):
            self._idle.put(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT))
        return self

    def __exit__(self, *_: object) -> None:
        while not self._idle.empty():
            self._idle.get().communicate(timeout=10)

    def order(self, words: Sequence[str], **options: Any) -> list[Ending]:
        """Have runs made, as the fields of Order say."""
        process = self._idle.get()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(msgspec.json.encode(Order(words=list(words), **options)) + b"\n")
            process.stdin.flush()
            return msgspec.json.decode(process.stdout.readline(), type=list[Ending])
        finally:
            self._idle.put(process)

    def run(self, words: Sequence[str], **options: Any) -> tuple[int, int]:
        """The exit code of one run (-9 if it was killed), and how many points it passed."""
        [ending] = self.order(words, **options)
        return ending.code, ending.points


class Child:
    """A forked run."""

    def __init__(self, order: Order, gate: tuple[int, int]) -> None:
        self.code: int | None = None
        self.stopped = False
        self.told, writing = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            os.close(gate[1])
            os.read(gate[0], 1)
            _live(order, writing)
        os.close(writing)

    def look(self, *, block: bool = False) -> None:
        """See whether it has stopped or ended."""
        process, status = os.waitpid(self.process, os.WUNTRACED | (0 if block else os.WNOHANG))
        if process and os.WIFSTOPPED(status):
            self.stopped = True
        elif process:
            self.code = os.waitstatus_to_exitcode(status)

    def end(self) -> Ending:
        """Wait for its end."""
        while self.code is None:
            self.look(block=True)
        told = os.read(self.told, 100)
        os.close(self.told)
        points, seconds = msgspec.json.decode(told, type=tuple[int, float]) if told else (0, 0.0)
        return Ending(code=self.code, points=points, seconds=seconds, stopped=self.stopped)


def serve() -> None:
    """Fork runs for each line of standard input and answer with how they ended."""
    _load()
    for line in sys.stdin.buffer:
        order = msgspec.json.decode(line, type=Order)
        gate = os.pipe()
        children = [Child(order, gate) for _ in range(order.count)]
        for end in gate:
            os.close(end)
        if order.kill_after_s is not None:
            select.select([children[0].told], [], [], order.kill_after_s)
            os.kill(children[0].process, signal.SIGKILL)
        if order.stop_at is not None:
            _release(children, resume=order.resume)
        sys.stdout.buffer.write(msgspec.json.encode([child.end() for child in children]) + b"\n")
        sys.stdout.buffer.flush()


def _load() -> None:
    """What every run loads and looks up is there before it is forked."""
    import embedmill.cli.main
    import embedmill.jobs.run
    import embedmill.model.inspection
    import embedmill.report.run  # noqa: F401
    from embedmill.base.environment import environment

    environment()
    with contextlib.suppress(ImportError):
        import pandas  # noqa: F401 (pyarrow looks for it)


def _release(children: list[Child], *, resume: bool) -> None:
    """Once all others have ended, let those that stopped go on, or kill them."""
    deadline = time.monotonic() + PATIENCE_S
    while any(child.code is None and not child.stopped for child in children) and time.monotonic() < deadline:
        for child in children:
            if child.code is None:
                child.look()
        time.sleep(0.001)
    for child in children:
        if child.code is None:
            os.kill(child.process, signal.SIGCONT if resume else signal.SIGKILL)


def _live(order: Order, writing: int) -> None:
    """The life of a forked run; nothing of it may get into the answers."""
    import embedmill.cli.main

    nowhere = os.open(os.devnull, os.O_RDWR)
    said = os.open(order.said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream, target in enumerate((nowhere, nowhere, said)):
        os.dup2(target, stream)
    watch = Watch(kill_at=order.kill_at, stop_at=order.stop_at, fault=order.fault, trace=order.trace)
    watch.begin()
    began = time.monotonic()
    code = 1
    try:
        code = embedmill.cli.main.main(order.words)
    finally:
        os.write(writing, msgspec.json.encode((watch.points, time.monotonic() - began)))
        watch.save()
        os._exit(code)


if __name__ == "__main__":
    serve()
