"""A process that is asked, for the tests of `Worker`: what the question says, it does."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time

from embedmill.base.process.worker import ParentPipe


def main(greeting: str) -> None:
    """Say the greeting, then do as told."""
    with ParentPipe() as parent:
        parent.say(greeting.encode())
        for question in parent.questions():
            parent.say(reply(question))


def reply(question: bytes) -> bytes:
    """Answer, or end, in one of several ways."""
    word = question.decode()
    if word == "noise":
        # As native code prints: past Python's own streams.
        os.write(1, b"the driver says hello\n")
    elif word == "file":
        return tempfile.mkdtemp().encode()
    elif word == "wait":
        time.sleep(0.5)
    elif word == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif word == "fail":
        raise RuntimeError("the driver said no")
    elif word == "hang":
        time.sleep(600)
    elif word == "leave":
        sys.exit(0)
    return word.upper().encode()
