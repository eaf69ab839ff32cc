"""What may crash or hang happens in a child process: a driver takes its process along."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from typing import IO

from msgspec import Struct

# A process that the kernel holds inside a driver does not die when it is killed; it is left behind then.
_GRACE_S = 2.0
_SHOWN = 300


class ChildResult(Struct, frozen=True, kw_only=True):
    """How a child ended: `words` is empty where it ended well; `lines` is what it printed."""

    words: str = ""
    lines: list[str] = []


def run_child(module: str, *arguments: str, timeout_s: float) -> ChildResult:
    """Run `main(*arguments)` of a module in a child that imports from where this process does.

    A crash, an error, and a child that takes longer than `timeout_s` seconds are told in words, never raised.
    """
    # Files, not pipes: nothing waits for whoever else holds their other end.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            code = _run(command_of(module, *arguments), out, err, timeout_s)
        except OSError as error:
            return ChildResult(words=f"a process could not be started: {error.strerror}")
        if code is None:
            return ChildResult(words=f"did not answer in {timeout_s:g} s")
        return ChildResult(words=ending(code, lines_of(err)), lines=lines_of(out))


def command_of(module: str, *arguments: str) -> list[str]:
    """The command that runs `main(*arguments)` of a module, importing from where this process does."""
    program = (
        f"import sys; sys.path[:] = {sys.path!r}; import importlib;"
        f" importlib.import_module({module!r}).main(*sys.argv[1:])"
    )
    # -P: nothing is imported from the working directory, which may hold a folder of any name.
    return [sys.executable, "-P", "-c", program, *arguments]


def leave_no_trace() -> None:
    """For a child to begin with: if it crashes, it leaves no core dump and shows no dialog.

    What stops its parent reaches it too (a terminal's Ctrl-C goes to both): when it ends is the parent's affair.
    """
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    if sys.platform == "win32":
        import msvcrt

        msvcrt.SetErrorMode(msvcrt.SEM_FAILCRITICALERRORS | msvcrt.SEM_NOGPFAULTERRORBOX)
    else:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _run(command: list[str], out: IO[bytes], err: IO[bytes], timeout_s: float) -> int | None:
    """The exit status; None where it took too long."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
    try:
        return child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        end_child(child)


def end_child(child: subprocess.Popen[bytes]) -> None:
    """Kill a child that has not ended; one that cannot be killed is left behind."""
    if child.poll() is not None:
        return
    child.kill()
    try:
        child.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        return


def lines_of(file: IO[bytes]) -> list[str]:
    """All lines of a file that a child wrote."""
    file.seek(0)
    return file.read().decode("utf-8", errors="replace").split("\n")


def ending(code: int, errors: list[str]) -> str:
    """How a child ended, by its exit status and what it said last; empty where it ended well."""
    if code == 0:
        return ""
    said = next((line.strip() for line in reversed(errors) if line.strip()), "")[:_SHOWN]
    words = f": {said}" if said else ""
    if code < 0:
        return f"crashed with signal {-code} ({signal.Signals(-code).name}){words}"
    if code >= 0xC0000000:
        # Windows: an NTSTATUS of severity "error", such as an access violation.
        return f"crashed with code {code:#010x}{words}"
    return f"ended with code {code}{words}"
