"""Child processes, for drivers that may crash or hang."""

from __future__ import annotations

import contextlib
import math
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import IO

from msgspec import Struct

from embedmill.base import telemetry
from embedmill.base.home import temporary_folder
from embedmill.base.signals import STOP_SIGNALS, slices

# A process that the kernel holds inside a driver does not die when it is killed: it is left behind after so long.
_GRACE_S = 2.0
# Characters of an error line that a message quotes.
_SHOWN = 300


class ChildResult(Struct, frozen=True, kw_only=True):
    """Outcome of a child: `words` name a failure, `lines` stdout."""

    words: str = ""
    lines: list[str] = []


def run_child(
    module: str, *arguments: str, timeout_s: float, limit: Callable[[int], str] = lambda _: ""
) -> ChildResult:
    """Run `main(*arguments)` of a module, as `run_command` does."""
    return run_command(command_of(module, *arguments), timeout_s=timeout_s, limit=limit)


def run_command(
    command: list[str], *, timeout_s: float = math.inf, limit: Callable[[int], str] = lambda _: ""
) -> ChildResult:
    """Run a command; return failures and timeouts as words.

    `limit` gets the process id five times a second; its words end the process.
    """
    # A stop signal kills the child and is raised.
    # Files, not pipes: a pipe would be waited for while a grandchild holds its other end.
    place = temporary_folder()
    with tempfile.TemporaryFile(dir=place) as out, tempfile.TemporaryFile(dir=place) as err:
        try:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        except OSError as error:
            return ChildResult(words=f"a process could not be started: {error.strerror}")
        try:
            for seconds in slices(timeout_s):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return ChildResult(words=ending(child.wait(seconds), lines_of(err)), lines=lines_of(out))
                if words := limit(child.pid):
                    return ChildResult(words=words, lines=lines_of(out))
            return ChildResult(words=f"did not answer in {timeout_s:g} s")
        finally:
            end_child(child)


def command_of(module: str, *arguments: str) -> list[str]:
    """Return the command of `main(*arguments)`, with sys.path and telemetry settled."""
    program = (
        f"import sys; sys.path[:] = {sys.path!r}; import importlib; from embedmill.base import telemetry;"
        f" telemetry.settle({telemetry.allowed()}); importlib.import_module({module!r}).main(*sys.argv[1:])"
    )
    # -P: nothing is imported from the working directory, which may hold a folder of any name.
    return [sys.executable, "-P", "-c", program, *arguments]


def leave_no_trace() -> None:
    """Ignore stop signals; crash without core dump or dialog (child)."""
    # A terminal's Ctrl-C reaches the child too: the parent decides when it ends.
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    if sys.platform == "win32":
        import msvcrt

        msvcrt.SetErrorMode(msvcrt.SEM_FAILCRITICALERRORS | msvcrt.SEM_NOGPFAULTERRORBOX)
    else:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def end_child(child: subprocess.Popen[bytes]) -> None:
    """Kill a running child, and wait 2 s at most."""
    if child.poll() is not None:
        return
    child.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_GRACE_S)


def lines_of(file: IO[bytes]) -> list[str]:
    """Read all lines of a file that a child wrote."""
    file.seek(0)
    # Under Windows ONNX Runtime writes UTF-16 between what others write, and lines end in two characters.
    said = file.read().replace(b"\0", b"").replace(b"\r\n", b"\n")
    return said.decode("utf-8", errors="replace").split("\n")


def ending(code: int, errors: list[str]) -> str:
    """Name a failure by exit status and last error line."""
    if code == 0:
        return ""
    last = next((line.strip() for line in reversed(errors) if line.strip()), "")[:_SHOWN]
    reason = f": {last}" if last else ""
    if code < 0:
        return f"crashed with signal {-code} ({signal.Signals(-code).name}){reason}"
    if code >= 0xC0000000:
        # Windows: an NTSTATUS of severity "error", such as an access violation.
        return f"crashed with code {code:#010x}{reason}"
    return f"ended with code {code}{reason}"
