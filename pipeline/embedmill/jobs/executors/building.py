"""Bounded building of bundles in child processes."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from embedmill.base import errors
from embedmill.base.errors import ConfigError, ModelError, PipelineError
from embedmill.base.home import temporary_folder
from embedmill.base.process.child import leave_no_trace, run_child
from embedmill.engine.machine.memory.host import HostProbe
from embedmill.engine.machine.memory.processes import resident_bytes

LOG = logging.getLogger("embedmill")
# A model may be endless, or make gigabytes of one letter.
TIMEOUT_S = 900.0
_MEMORY_FRACTION = 0.8


class BuildTask(Struct, frozen=True, kw_only=True):
    """Work of the child: arguments of `build_bundle`."""

    source: str
    folder: str
    options: dict[str, Any]


class _Said(Struct, frozen=True, kw_only=True):
    """Line of the child: a log record, or an error."""

    message: str
    level: int = logging.ERROR
    error: str = ""
    number: int | None = None


def build(source: Path, folder: Path, *, timeout_s: float | None = None, **options: Any) -> None:
    """Build a bundle with canaries in an empty folder.

    `options` are those of `build_bundle`. Raises what that raises, and ModelError for a model that takes longer, or
    more than most of the free memory, or ends the process.
    """
    if timeout_s is not None and not timeout_s > 0:
        raise ConfigError(f"timeout_s = {timeout_s}, which is no time; give seconds above 0")
    free = HostProbe().read().free_bytes
    most = None if free is None else int(free * _MEMORY_FRACTION)

    def limit(process: int) -> str:
        used = resident_bytes(process)
        return f"takes more than {most >> 20:,} MiB of memory" if most and used and used > most else ""

    task = BuildTask(source=str(source), folder=str(folder), options=options)
    with tempfile.TemporaryDirectory(dir=temporary_folder()) as scratch:
        path = Path(scratch) / "task.json"
        path.write_bytes(msgspec.json.encode(task, enc_hook=str))
        done = run_child("embedmill.jobs.executors.building", str(path), timeout_s=timeout_s or TIMEOUT_S, limit=limit)
    for said in [msgspec.json.decode(line, type=_Said) for line in done.lines if line.startswith("{")]:
        if said.error:
            raise _again(said)
        LOG.log(said.level, "%s", said.message)
    if done.words:
        raise ModelError(f"{options.get('origin', source)}: building it {done.words}; it cannot be used")


def main(path: str) -> None:
    """Build the bundle of a task (child)."""
    leave_no_trace()
    logging.getLogger("embedmill").setLevel(logging.INFO)
    logging.getLogger("embedmill").addHandler(_Printer())
    task = msgspec.json.decode(Path(path).read_bytes(), type=BuildTask)
    from embedmill.model.build import build_bundle
    from embedmill.tune.reference import add_reference

    options = task.options
    if options.get("export"):
        options["export"] = Path(options["export"])
    try:
        add_reference(build_bundle(Path(task.source), Path(task.folder), **options))
    except PipelineError as error:
        _say(_Said(message=str(error), error=type(error).__name__))
    except OSError as error:
        _say(_Said(message=str(error), error="OSError", number=error.errno))


class _Printer(logging.Handler):
    """Handler that prints records for the parent."""

    def emit(self, record: logging.LogRecord) -> None:
        _say(_Said(message=record.getMessage(), level=record.levelno))


def _say(said: _Said) -> None:
    # ASCII: what the child prints is of no locale.
    print(json.dumps(msgspec.to_builtins(said)), flush=True)


def _again(said: _Said) -> Exception:
    if said.error == "OSError":
        return OSError(said.number, said.message)
    return getattr(errors, said.error, ModelError)(said.message)
