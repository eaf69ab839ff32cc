"""Misbehaving drivers in a child process, chosen by EMBEDMILL_TEST_CHILD."""

from __future__ import annotations

import atexit
import os
import signal
import time

from embedmill.engine.machine.adapters import Adapter, Detection
from embedmill.engine.machine.adapters.child import print_detection

FOUND = Detection(adapters=(Adapter(seen_by="vulkan", name="a GPU", kind="gpu", luid=5),))


def main() -> None:
    """Misbehave, and print a detection if still possible."""
    print_detection(lambda: _do(os.environ["EMBEDMILL_TEST_CHILD"]))


def _do(what: str) -> Detection:
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
    if what == "chatter":
        print("MESA: warning: {\n{}[]", flush=True)
    if what == "chatter at the end":
        atexit.register(print, "\ndriver unloaded\n")
    if what == "silence":
        os._exit(0)
    if what == "fail":
        raise RuntimeError("the driver said no")
    return FOUND
