"""Text streams that escape what they cannot show, and outlive their readers."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedmill.base.errors import OutputError
from embedmill.base.streams import Console, one_line

ENCODINGS = ["ascii", "cp1252", "latin-1", "utf-8", "utf-16-le", "shift_jis", "cp437"]


class Failing(io.StringIO):
    """A stream that fails as a device does."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error

    def flush(self) -> None:
        raise self.error


@given(text=st.text(st.characters()), encoding=st.sampled_from(ENCODINGS))
def test_any_text_can_be_written_in_any_encoding(text: str, encoding: str) -> None:
    below = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", newline="")
    console = Console(below, needed=True)
    assert console.write(text) == len(text)
    console.flush()
    written = below.buffer.getvalue().decode(encoding)
    escaped = "".join(char if char in "\n\r\t" else one_line(char) for char in text)
    assert written == escaped.encode(encoding, "backslashreplace").decode(encoding)


@pytest.mark.parametrize("needed", [False, True])
@pytest.mark.parametrize("stream", [None, Failing(BrokenPipeError(errno.EPIPE, "Broken pipe"))], ids=["none", "left"])
def test_nobody_reads_what_nobody_can_read(stream: io.StringIO | None, needed: bool) -> None:
    console = Console(stream, needed=needed)
    assert [console.write("text"), console.write("more")] == [4, 4]
    console.flush()
    assert not console.isatty()


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EIO, "I/O"), ValueError("closed file")]
)
def test_a_failure_is_an_error_only_where_the_text_is_needed(error: Exception) -> None:
    Console(Failing(error)).write("text")
    console = Console(Failing(error), needed=True)
    for _ in range(2):
        with pytest.raises(OutputError, match="the result cannot be printed, standard output fails: "):
            console.write("text")


def test_a_stream_that_is_none_has_no_descriptor() -> None:
    with pytest.raises(OSError, match="fileno"):
        Console(None).fileno()
    assert Console(None).encoding == "utf-8"


HOLDING = """
import os, sys
from embedmill.base.streams import hold_descriptors
real = os.dup(1)
os.closerange(0, 3)
if sys.argv[1:]:
    os.open(sys.argv[1], os.O_RDONLY)
hold_descriptors()
held = [os.fstat(number).st_rdev == os.stat(os.devnull).st_rdev for number in range(3)]
os.write(real, repr([*held, os.open(os.devnull, os.O_RDONLY) > 2, os.get_inheritable(2)]).encode())
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX descriptors")
@pytest.mark.parametrize(("words", "held"), [([], [True, True, True]), ([__file__], [False, True, True])])
def test_closed_descriptors_are_held_and_open_ones_left(words: list[str], held: list[bool]) -> None:
    done = subprocess.run([sys.executable, "-c", HOLDING, *words], capture_output=True, text=True, check=True)
    assert done.stdout == repr([*held, True, True])
