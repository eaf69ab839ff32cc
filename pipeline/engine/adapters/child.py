"""A look through a driver happens in a child process: a driver may crash or hang, and takes its process along."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import IO

import msgspec

from pipeline.engine.adapters.adapter import Look

# A process that the kernel holds inside a driver does not die when it is killed; it is left behind then.
_GRACE_S = 2.0


def look_in_child(module: str, timeout_s: float) -> Look:
    """Run `main()` of a module, which ends with `answer`, in a child that imports from where this process does.

    A child that crashes, takes longer than `timeout_s` seconds or says nothing sensible gives a `Look` with the
    reason, never an exception.
    """
    program = f"import sys; sys.path[:] = {sys.path!r}; import importlib; importlib.import_module({module!r}).main()"
    # Files, not pipes: nothing waits for whoever else holds their other end.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            # -P: nothing is imported from the working directory, which may hold a folder of any name.
            code = _run([sys.executable, "-P", "-c", program], out, err, timeout_s)
        except OSError as error:
            return Look(reason=f"a process could not be started: {error.strerror}")
        if code is None:
            return Look(reason=f"did not answer in {timeout_s:g} s")
        return _parsed(_lines(out)) if code == 0 else Look(reason=_ending(code, _lines(err)))


def answer(look: Callable[[], Look]) -> None:
    """Look, and print what was seen as one line of JSON. For a child: it leaves no core dump and shows no dialog."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.SetErrorMode(msvcrt.SEM_FAILCRITICALERRORS | msvcrt.SEM_NOGPFAULTERRORBOX)
    else:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    print(msgspec.json.encode(look()).decode(), flush=True)


def _run(command: list[str], out: IO[bytes], err: IO[bytes], timeout_s: float) -> int | None:
    """The exit status; None where it took too long."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
    try:
        return child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is not None:
        return
    child.kill()
    try:
        child.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        return


def _lines(file: IO[bytes]) -> list[str]:
    file.seek(0)
    return file.read().decode("utf-8", errors="replace").split("\n")


def _parsed(lines: list[str]) -> Look:
    """The answer among what was printed: a driver may print too, before it and after."""
    for line in reversed(lines):
        try:
            return msgspec.json.decode(line, type=Look)
        except msgspec.DecodeError:
            continue
    return Look(reason="ended without an answer")


def _ending(code: int, errors: list[str]) -> str:
    """How a child ended that did not end well."""
    if code < 0:
        return f"crashed with signal {-code}"
    if code >= 0xC0000000:
        # Windows: an NTSTATUS of severity "error", such as an access violation.
        return f"crashed with code {code:#010x}"
    said = next((line.strip() for line in reversed(errors) if line.strip()), "")
    return f"ended with code {code}" + (f": {said}" if said else "")
