"""Hostile input is read in a child of its own, with little memory and time: a server forks one per case.

What forking saves is the start of Python and Arrow, so that a case costs milliseconds.
"""

from __future__ import annotations

import sys

import pytest

if sys.platform == "win32":
    pytest.skip("forks, and limits the memory of a process", allow_module_level=True)

import hashlib
import json
import os
import resource
import signal
import subprocess
from typing import Any, Self

import msgspec
from msgspec import Struct

from embedmill import source
from embedmill.base.config import MIB, RunConfig
from embedmill.base.configfile import parse_config
from embedmill.base.errors import PipelineError
from embedmill.source.plan import plan

MEMORY_BYTES = 2048 * MIB
TIME_S = 10
BOMB_TIME_S = 60


class Ending(Struct, frozen=True, kw_only=True):
    """How a case ended. `error` is the class of what was raised, "" for none, or how the process died.

    `peak_bytes` is its peak resident memory.
    """

    error: str
    typed: bool
    words: str
    exit_code: int
    rows_read: int
    rows_written: int
    rows_quarantined: int
    rows_skipped: int
    digest: str
    peak_bytes: int

    @property
    def conserved(self) -> bool:
        """Whether every row that was read is accounted for."""
        return self.rows_read == self.rows_written + self.rows_quarantined + self.rows_skipped


class Forks:
    """The server, in a process of its own; a context manager."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.hostile.forks"]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate(timeout=TIME_S)

    def read(self, *paths: object, **tables: dict[str, Any]) -> Ending:
        """Read an input with the product's reader: plan it, then every shard."""
        given = {"paths": [str(path) for path in paths], **tables.pop("input", {})}
        return self._ask("read", {"input": given, **tables})

    def defuse(self, *paths: object, **tables: dict[str, Any]) -> Ending:
        """The same for what decompresses to gigabytes, with more time."""
        return self._ask("read", {"input": {"paths": [str(path) for path in paths]}, **tables}, BOMB_TIME_S)

    def run(self, config: RunConfig) -> Ending:
        """Run a whole job, as the command line does."""
        return self._ask("run", msgspec.to_builtins(config))

    def _ask(self, work: str, config: dict[str, Any], time_s: int = TIME_S) -> Ending:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps([work, config, time_s]).encode() + b"\n")
        self._server.stdin.flush()
        return Ending(**json.loads(self._server.stdout.readline()))


def _read(config: RunConfig) -> dict[str, Any]:
    files = source.discover(config.input).files
    columns = source.resolve(files, config)
    seen = hashlib.sha256()
    counts = [0, 0, 0, 0]
    with source.Reader(files, config, columns) as reader:
        for shard in plan(files, config, columns):
            got = reader.read(shard)
            rows = (got.rows_read, len(got.ids), len(got.rejected), got.rows_skipped)
            counts = [one + more for one, more in zip(counts, rows, strict=True)]
            for row in (*zip(got.ids, got.texts, strict=True), *got.carried.to_pylist()):
                seen.update(repr(row).encode())
    return _counted(counts) | {"digest": seen.hexdigest()}


def _run(config: RunConfig) -> dict[str, Any]:
    from embedmill.jobs.run import run

    totals = run(config, quiet=True).totals
    return _counted([totals.rows_read, totals.rows_written, totals.rows_quarantined, totals.rows_skipped])


def _counted(counts: list[int]) -> dict[str, Any]:
    return dict(zip(("rows_read", "rows_written", "rows_quarantined", "rows_skipped"), counts, strict=True))


_WORKS = {"read": _read, "run": _run}
_NOTHING = {"error": "", "typed": True, "words": "", "exit_code": 0, "digest": "", **_counted([0, 0, 0, 0])}


def _attempt(work: str, values: dict[str, Any]) -> dict[str, Any]:
    """What came of a case, in the child."""
    try:
        return _WORKS[work](parse_config(values, place="the test"))
    except PipelineError as error:
        return {"error": type(error).__name__, "words": str(error), "exit_code": error.exit_code}
    except BaseException as error:
        return {"error": type(error).__name__, "typed": False, "words": str(error), "exit_code": 1}


def _fork(question: list[Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(question[2])
        os.write(writing, json.dumps(_attempt(question[0], question[1])).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, status, used = os.wait4(child, 0)
    ending = _NOTHING | {"peak_bytes": used.ru_maxrss * 1024}
    code = os.waitstatus_to_exitcode(status)
    if code < 0 or not said:
        return ending | {"error": signal.Signals(-code).name if code < 0 else "died", "typed": False, "exit_code": code}
    return ending | dict(json.loads(said))


def _serve() -> None:
    for question in sys.stdin.buffer:
        print(json.dumps(_fork(json.loads(question))), flush=True)


if __name__ == "__main__":
    _serve()
