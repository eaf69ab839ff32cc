"""The command line in a process whose standard streams are in some state."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from tests.support.jobs import make_config, make_rows, tiny_bundle, words_of, write_jsonl

# What a shell makes of the descriptors; `| true` is a pipe whose reader has left.
CLOSED = ("<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-")
FULL = (">/dev/full", "2>/dev/full", ">/dev/full 2>&1", "1</dev/null")
LEFT = ("| true", "2>&1 | true")
# States in which what a command prints is lost, and nobody has chosen that.
LOST = (">/dev/full", ">/dev/full 2>&1", "1</dev/null")


class Command(Struct, frozen=True):
    """Words, the exit code where all is well, and whether the command does nothing but print."""

    words: Sequence[str]
    code: int = 0
    prints: bool = False

    def expected(self, state: str) -> int:
        return 6 if self.prints and state in LOST else self.code


def commands(folder: Path, model: Path) -> dict[str, Command]:
    """Every command and ending, on a small corpus in `folder`, with an output in `folder / "done"`."""
    good = write_jsonl(folder / "文書" / "日本語→.jsonl", make_rows(6))
    bad = write_jsonl(folder / "bad.jsonl", [*make_rows(3), {"id": "日→", "text": None}])
    job = words_of(make_config(model, good, folder / "out"))[1:]
    done, bundle = str(folder / "done"), str(tiny_bundle(model))
    assert run(["run", *words_of(make_config(model, good, folder / "done"))[1:]], "")[0] == 0
    return {
        "run": Command(["run", *job]),
        "quarantine": Command(words_of(make_config(model, bad, folder / "out-7")), 7),
        "no input": Command(words_of(make_config(model, folder / "→nowhere.jsonl", folder / "out-3")), 3),
        "no model": Command(["run", "--model", "日→", "--input", str(good), "--output", str(folder / "out-4")], 4),
        "plan": Command(["plan", *job], prints=True),
        "plan --json": Command(["plan", *job, "--json"], prints=True),
        "tune": Command(["tune", *job, "--time", "1"]),
        "tune --show": Command(["tune", "--show"], prints=True),
        "bench": Command(["bench", *job, "--texts", "2", "--rounds", "1"], prints=True),
        "doctor": Command(["doctor", "--model", bundle], prints=True),
        "verify": Command(["verify", done], prints=True),
        "verify nothing": Command(["verify", str(folder / "→")], 6),
        "report": Command(["report", done]),
        "model add": Command(["model", "add", str(model)]),
        "model list": Command(["model", "list"], prints=True),
        "model show": Command(["model", "show", bundle], prints=True),
        "--help": Command(["--help"], prints=True),
        "--version": Command(["--version"], prints=True),
        "no command": Command([], 2),
        "wrong usage": Command(["run", "--fly→"], 2),
    }


def run(
    words: Sequence[str], state: str, environment: Mapping[str, str] | None = None, *, before: Sequence[str] = ()
) -> tuple[int, str]:
    """The exit code, and all that is printed where it can be read."""
    target, pipe, _ = state.partition("| true")
    command = [*before, "sh", "-c", f'"$0" "$@" {target}', sys.executable, "-m", "embedmill", *words]
    environment = dict(os.environ if environment is None else environment)
    if not pipe:
        done = subprocess.run(command, capture_output=True, check=False, env=environment, timeout=120)
        return done.returncode, (done.stdout + done.stderr).decode("utf-8", errors="replace")
    reading, writing = os.pipe()
    os.close(reading)
    try:
        left = subprocess.run(
            command, stdout=writing, stderr=subprocess.PIPE, check=False, env=environment, timeout=120
        )
    finally:
        os.close(writing)
    return left.returncode, left.stderr.decode("utf-8", errors="replace")
