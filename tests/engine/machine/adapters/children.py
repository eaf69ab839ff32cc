"""What a driver may do to the process that asks it: EMBEDMILL_TEST_CHILD says what."""

from __future__ import annotations

import atexit
import os
import signal
import time

from embedmill.engine.machine.adapters import Adapter, Scan
from embedmill.engine.machine.adapters.child import answer

SEEN = Scan(adapters=(Adapter(seen_by="vulkan", name="a GPU", kind="gpu", luid=5),))


def main() -> None:
    """Do it, and answer if that is still possible."""
    answer(lambda: _do(os.environ["EMBEDMILL_TEST_CHILD"]))


def _do(what: str) -> Scan:
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
    return SEEN
