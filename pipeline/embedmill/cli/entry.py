"""Entry point of the `embedmill` command."""

from __future__ import annotations

import os
import signal
import sys

from embedmill.base.errors import Stopped
from embedmill.base.signals import STOP_SIGNALS, StopSignals


def entry_point() -> None:
    """Run the `embedmill` command and exit."""
    _run_in_utf8()
    # Before the imports, which take 0.1 s: a signal that comes meanwhile ends the command like a later one.
    stop = stop_signals()
    from embedmill.cli.main import main

    code = main(stop=stop)
    # Not sys.exit, which would wait for threads that are still in native code.
    os._exit(code)


def _run_in_utf8() -> None:
    """Start again in UTF-8 mode, unless file names are UTF-8."""
    # Native libraries take paths as UTF-8 only. The console keeps its encoding.
    if os.name == "nt" or sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1":
        return
    if sys.stdout is not None:
        os.environ.setdefault("PYTHONIOENCODING", sys.stdout.encoding)
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def stop_signals() -> StopSignals:
    """Install the handlers of the command line."""
    return StopSignals(_stopped, *STOP_SIGNALS)


def _stopped(signum: signal.Signals) -> Stopped:
    return Stopped(
        f"stopped by {signum.name}; everything committed is kept, the same command goes on from there", signum=signum
    )
