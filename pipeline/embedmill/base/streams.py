"""Standard streams that are closed, full or of another encoding."""

from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Callable
from typing import TextIO

from embedmill.base.errors import OutputError

# What C libraries read, print to and complain to.
_STANDARD = (0, 1, 2)
# What terminals obey, and what turns the order of characters or begins lines.
_CONTROLS = "\0-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
_CONTROL = re.compile(f"[{_CONTROLS}]")
_CONTROL_IN_LINES = re.compile(f"(?![\n\r\t])[{_CONTROLS}]")


def escaped(text: str) -> str:
    """Escape control characters, other than line ends and tabs."""
    return _CONTROL_IN_LINES.sub(_escape, text)


def one_line(text: str) -> str:
    """Escape control characters and line ends."""
    return _CONTROL.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def hold_descriptors() -> None:
    """Open the null device for closed descriptors 0 to 2."""
    # Else the next file or socket takes the number, and native libraries print into it.
    for descriptor in _STANDARD:
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
            os.set_inheritable(descriptor, True)


class Console(io.TextIOBase):
    """Text stream that escapes, and drops what nobody can read.

    Nobody reads a stream that is None, or a pipe whose reader has left. Other failures are dropped too, or raised as
    OutputError where the text is `needed`.
    """

    def __init__(self, stream: TextIO | None, *, needed: bool = False) -> None:
        self._stream = stream
        self._needed = needed
        self._problem: OutputError | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Return the encoding of the stream below."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """Name the treatment of other characters."""
        return "backslashreplace"

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Tell if the stream is a terminal."""
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:
            return False

    def fileno(self) -> int:
        """Return the descriptor. Raises OSError without one."""
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Write text, escaped; return the number of characters."""
        shown = escaped(text).encode(self.encoding, self.errors).decode(self.encoding)
        self._attempt(lambda stream: stream.write(shown))
        return len(text)

    def flush(self) -> None:
        """Write out what is buffered."""
        self._attempt(lambda stream: stream.flush())

    def __del__(self) -> None:
        """Leave the stream below alone."""
        # The base class would flush it, at any time: an interrupt there would be lost.

    def _attempt(self, act: Callable[[TextIO], object]) -> None:
        """Act on the stream until that fails once. Raises OutputError."""
        if self._stream is not None:
            try:
                act(self._stream)
            except (OSError, ValueError) as error:
                self._stream = None
                if self._needed and not _reader_left(error):
                    reason = getattr(error, "strerror", None) or error
                    self._problem = OutputError(
                        f"the result cannot be printed, standard output fails: {reason}; send it to a file with space"
                    )
        # Each time, for a library may have swallowed it.
        if self._problem is not None:
            raise self._problem


def _reader_left(error: OSError | ValueError) -> bool:
    # Windows reports a broken pipe as an invalid argument.
    return isinstance(error, BrokenPipeError) or (os.name == "nt" and getattr(error, "errno", 0) == errno.EINVAL)
