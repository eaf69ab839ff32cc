"""Worker process that answers frames, so that drivers crash alone."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Self

from embedmill.base import home
from embedmill.base.process.child import command_of, end_child, ending, leave_no_trace, lines_of

# A process that has closed its output has so long to end by itself.
_GRACE_S = 5.0
# A frame is its length, little-endian, then so many bytes.
_LENGTH_BYTES = 4
# Vectors of the largest batch have a hundredth of it.
_MOST_BYTES = 1 << 30
_SCRATCH = "embedmill-worker-"


class WorkerEnded(Exception):
    """Worker that has ended."""


def worker_of(module: str, *arguments: str) -> Worker:
    """Start `main(*arguments)` of a module here. Raises WorkerEnded."""
    return Worker(command_of(module, *arguments))


class Worker:
    """Process with a `ParentPipe`; a context manager."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start a command; only `listen` reads. Raises WorkerEnded."""
        place = home.temporary_folder()
        # A process that is killed, or whose driver crashes, cannot remove its temporary files: its parent does.
        self._scratch = tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=place, ignore_cleanup_errors=True)
        self._errors = tempfile.TemporaryFile(dir=place)  # noqa: SIM115
        pipe = subprocess.PIPE
        environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), self._scratch.name)
        # A home in the temporary folder must not go with the scratch folder.
        environment[home.VARIABLE] = str(home.home_folder())
        try:
            self._child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._errors, env=environment)
        except OSError as error:
            self._errors.close()
            self._scratch.cleanup()
            raise WorkerEnded(f"a process could not be started: {error.strerror}") from error
        self._sending = threading.Lock()
        self._reader: threading.Thread | None = None

    def listen(self, heard: Callable[[bytes | None], None]) -> None:
        """Pass each frame, then None, to `heard` in a thread."""
        self._reader = threading.Thread(target=self._read, args=[heard], name="worker-answers", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        if self._reader is not None:
            self._reader.join(_GRACE_S)
        with self._sending:
            for pipe in (self._child.stdin, self._child.stdout):
                if pipe is not None:
                    _close(pipe)
            self._errors.close()
        self._scratch.cleanup()

    def send(self, frame: bytes) -> None:
        """Send a frame; thread-safe. Raises WorkerEnded after the end."""
        assert self._child.stdin is not None
        try:
            with self._sending:
                _write(self._child.stdin, frame)
        except (OSError, ValueError) as error:
            raise WorkerEnded(self.ending()) from error

    def end(self) -> None:
        """Kill the process."""
        end_child(self._child)

    def ending(self) -> str:
        """Name the end of the process, awaited for 5 s."""
        try:
            self._child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self.end()
        with self._sending:
            errors = [] if self._errors.closed else lines_of(self._errors)
        return ending(self._child.returncode or 0, errors) or "ended without an answer"

    def _read(self, heard: Callable[[bytes | None], None]) -> None:
        assert self._child.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            for frame in _frames(self._child.stdout):
                heard(frame)
        heard(None)


class ParentPipe:
    """Child's end of a worker's pipes; a context manager."""

    def __enter__(self) -> Self:
        leave_no_trace()
        # Native libraries print to standard output: what they print goes to standard error, and only frames go out.
        sys.stdout.flush()
        self._out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self._saying = threading.Lock()
        return self

    def __exit__(self, *_: object) -> None:
        self._out.close()

    def questions(self) -> Iterator[bytes]:
        """Read frames until the parent closes the pipe."""
        yield from _frames(sys.stdin.buffer)
        _remove_scratch()

    def say(self, frame: bytes) -> None:
        """Send a frame; thread-safe. Raises OSError after the parent's end."""
        try:
            with self._saying:
                _write(self._out, frame)
        except OSError:
            _remove_scratch()
            raise


def _remove_scratch() -> None:
    """Remove the temporary folder after the parent has ended."""
    # A parent that lives kills the process first; one that was killed itself removes nothing.
    folder = Path(os.environ.get("TMPDIR", ""))
    if folder.name.startswith(_SCRATCH):
        shutil.rmtree(folder, ignore_errors=True)


def _write(pipe: IO[bytes], frame: bytes) -> None:
    pipe.write(len(frame).to_bytes(_LENGTH_BYTES, "little"))
    pipe.write(frame)
    pipe.flush()


def _frames(pipe: IO[bytes]) -> Iterator[bytes]:
    """Read frames, up to one that is cut short."""
    while len(head := pipe.read(_LENGTH_BYTES)) == _LENGTH_BYTES:
        size = int.from_bytes(head, "little")
        # No frame of ours: what another program printed.
        if size > _MOST_BYTES:
            return
        frame = pipe.read(size)
        if len(frame) < size:
            return
        yield frame


def _close(pipe: IO[bytes]) -> None:
    # Fails on buffered bytes that the process no longer reads.
    with contextlib.suppress(OSError):
        pipe.close()
