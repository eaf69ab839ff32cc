"""A process of sessions whose device does as a script says, for the tests of `ProcessRunner`."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np

from embedmill.base.errors import DeviceError, DeviceLost, OutOfMemory
from embedmill.base.records import Batch, FloatArray, Tokens
from embedmill.engine.runners.base import RunnerOptions
from embedmill.engine.runners.host import serve
from embedmill.engine.runners.local import LocalRunner
from embedmill.engine.spec import EngineSpec
from tests.support.works import FakeSession

# Where the script is: {"folder": ..., "faults": {batch number from 0: what happens}, "lost_above": rows, ...}
SCRIPT = "EMBEDMILL_TEST_SCRIPT"


def main(*_: str) -> None:
    """The process: as a run's, but for its sessions."""
    serve(runner)


def runner(spec: EngineSpec, options: RunnerOptions, said: Callable[[str], None]) -> LocalRunner:
    """A runner whose memory is not watched; it says that it is there."""
    said(f"at most {options.most_scale:g}")
    return LocalRunner(spec, most_scale=options.most_scale, open_session=cast(Any, Scripted))


class Scripted(FakeSession):
    """Numbers the batches of all processes by a file that each makes a byte longer."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._script = json.loads(os.environ[SCRIPT])
        if words := self._script.get("refuses"):
            raise DeviceError(words)

    def run(self, tokens: Tokens, batch: Batch) -> FloatArray:
        number = self._number()
        fault = self._script.get("faults", {}).get(str(number), "")
        if batch.size > self._script.get("lost_above", 1 << 30):
            fault = "lost"
        if batch.size > self._script.get("memory_above", 1 << 30):
            raise OutOfMemory("the moon is full")
        if fault:
            self._happen(fault)
        vectors = super().run(tokens, batch)
        return vectors * np.float32(np.nan) if fault == "nan" else vectors

    def _number(self) -> int:
        with self.lock, (Path(self._script["folder"]) / "batches").open("ab") as file:
            file.write(b".")
            return file.tell() - 1

    def _happen(self, fault: str) -> None:
        match fault:
            case "crash":
                signal.pthread_kill(threading.get_ident(), signal.SIGSEGV)
            case "lost":
                raise DeviceLost("887A0005")
            case "hang":
                time.sleep(600)
            case "error":
                raise DeviceError("it cannot")
            case "defect":
                raise KeyError("a defect")
            case "interrupt":
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGTERM)
