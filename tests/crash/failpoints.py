"""Runs of the command line that kill themselves at their n-th call that changes the file system.

As a program it loads embedmill once and then, for each line of JSON on standard input, forks a run; so a
trial costs a fraction of a second. `Failpoints` is the other side.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
CALLS = ("fsync", "replace", "rename", "link", "unlink", "mkdir", "rmdir")


class Failpoints:
    """The process that forks runs; a context manager."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.failpoints"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=10)

    def run(self, words: list[str], *, kill_at: int | None = None) -> tuple[int, int]:
        """The exit code of a run (-9 if it was killed), and how many points it passed.

        Each call has two: before it and after it.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([words, kill_at]) + "\n")
        self._process.stdin.flush()
        code, points = json.loads(self._process.stdout.readline())
        return code, points


def serve() -> None:
    """Fork a run for each line of standard input and answer with its exit code and its points."""
    import pipeline.cli
    import pipeline.conductor  # loaded here once, for all forks

    for line in sys.stdin:
        words, kill_at = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            silence()
            points = watch(kill_at)
            code = pipeline.cli.main(words)
            os.write(writing, str(len(points)).encode())
            os._exit(code)
        os.close(writing)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        counted = os.read(reading, 20)
        os.close(reading)
        print(json.dumps([code, int(counted or 0)]), flush=True)


def silence() -> None:
    """Nothing of a run may get into the answers."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)


def watch(kill_at: int | None) -> list[str]:
    """Count the points of this process from now on, and die at one of them."""
    points: list[str] = []

    def reach(point: str) -> None:
        if len(points) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        points.append(point)

    def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def through(*arguments: Any, **options: Any) -> Any:
            reach(f"before {name}")
            result = call(*arguments, **options)
            reach(f"after {name}")
            return result

        return through

    for name in CALLS:
        setattr(os, name, watched(name, getattr(os, name)))
    return points


if __name__ == "__main__":
    serve()
