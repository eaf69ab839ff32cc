"""A child process that is asked one thing after another: its driver's crash or hang ends it, and no one else."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import IO, Self

from pipeline.engine.child import command_of, end_child, ending, leave_no_trace, lines_of

# A process that said its last word has so long to end by itself.
_GRACE_S = 5.0


class WorkerEnded(Exception):
    """The process ended, or did not answer in time; its words say how. Not an error of the user's."""


class Worker:
    """Runs `main(*arguments)` of a module, which answers by `answer`; a context manager.

    Questions and answers are single lines of bytes, JSON say.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        """Raises WorkerEnded where no process can be started."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self._child = subprocess.Popen(
                command_of(module, *arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
            )
        except OSError as error:
            self._errors.close()
            raise WorkerEnded(f"a process could not be started: {error.strerror}") from error
        self._answers: queue.Queue[bytes] = queue.Queue()
        self._reader = threading.Thread(target=self._read, name="worker-answers", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        end_child(self._child)
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                _close(pipe)
        self._errors.close()

    def ask(self, question: bytes, *, timeout_s: float) -> bytes:
        """The answer to a question. Raises WorkerEnded where none comes in `timeout_s` seconds."""
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(question + b"\n")
            self._child.stdin.flush()
        except OSError as error:
            raise WorkerEnded(self._ending()) from error
        return self.hear(timeout_s=timeout_s)

    def hear(self, *, timeout_s: float) -> bytes:
        """What the process says next of its own accord. Raises WorkerEnded as `ask` does."""
        try:
            answer = self._answers.get(timeout=timeout_s)
        except queue.Empty as error:
            end_child(self._child)
            raise WorkerEnded(f"did not answer in {timeout_s:g} s") from error
        if not answer:
            raise WorkerEnded(self._ending())
        return answer

    def _read(self) -> None:
        assert self._child.stdout is not None
        try:
            for line in self._child.stdout:
                self._answers.put(line.rstrip(b"\n"))
        except (OSError, ValueError):
            pass
        self._answers.put(b"")

    def _ending(self) -> str:
        try:
            self._child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            end_child(self._child)
        return ending(self._child.returncode or 0, lines_of(self._errors)) or "ended without an answer"


def answer(first: Callable[[], bytes], reply: Callable[[bytes], bytes]) -> None:
    """For the child: say what `first` gives, then `reply` to every question until there are no more."""
    leave_no_trace()
    with _own_output() as out:
        _say(out, first())
        for question in _questions():
            _say(out, reply(question))


def _questions() -> Iterator[bytes]:
    for line in sys.stdin.buffer:
        yield line.rstrip(b"\n")


def _say(out: IO[bytes], words: bytes) -> None:
    out.write(words + b"\n")
    out.flush()


def _own_output() -> IO[bytes]:
    """Standard output for the answers alone: what native libraries print there goes to standard error instead."""
    sys.stdout.flush()
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return out


def _close(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except OSError:
        # What was still to be written has no reader any more.
        return
