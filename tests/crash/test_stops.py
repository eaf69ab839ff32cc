"""SIGTERM at random instants of every command that takes longer ends it within seconds, and leaves no child or file."""

from __future__ import annotations

import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.conftest import Tell
from tests.crash.failpoints import at_once
from tests.crash.test_crash import wait_for_handlers
from tests.support.jobs import finish, make_config, make_rows, start, tiny_bundle, words_of, write_jsonl

pytestmark = [
    pytest.mark.crash,
    pytest.mark.skipif(sys.platform != "linux", reason="waits for the handlers by /proc"),
]

SEED, STOPS, BOUND_S = 20261125, 12, 5.0
# Parts of them wait for a child process; `run` and `verify` loop over files.
COMMANDS: dict[str, Callable[[list[str], str, Path], list[str]]] = {
    "run": lambda job, bundle, output: [*job, "--quiet"],
    "plan": lambda job, bundle, output: ["plan", *job[1:]],
    "tune": lambda job, bundle, output: ["tune", *job[1:], "--time", "4"],
    "bench": lambda job, bundle, output: ["bench", *job[1:], "--texts", "64", "--rounds", "2"],
    "doctor": lambda job, bundle, output: ["doctor", "--model", bundle],
    "verify": lambda job, bundle, output: ["verify", str(output)],
    "model add": lambda job, bundle, output: ["model", "add", str(Path(bundle).with_name("tiny"))],
}


@pytest.fixture(scope="module")
def finished(place: Path, tiny_model: Path) -> Path:
    """An output of 400 shards, and the job it is of."""
    folder = place / "stops"
    source = write_jsonl(folder / "a.jsonl", make_rows(4000))
    config = make_config(tiny_model, source, folder / "done", shard={"rows": 10})
    code, _, errors = finish(start([*words_of(config), "--quiet"]))
    assert code == 0, errors
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_stops_within_seconds_of_a_signal_at_any_instant(
    finished: Path,
    tiny_model: Path,
    empty_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tell: Tell,
    name: str,
) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))

    def words(output: Path) -> list[str]:
        config = make_config(tiny_model, finished / "a.jsonl", output, shard={"rows": 10})
        return COMMANDS[name](words_of(config), str(tiny_bundle(tiny_model)), finished / "done")

    def life_s(number: int) -> float:
        began = time.monotonic()
        code, _, errors = finish(start(words(tmp_path / f"life {number}")))
        assert code == 0, errors
        return time.monotonic() - began

    def stopped(trial: int) -> tuple[int, float]:
        draw = random.Random(SEED + trial)
        process = start(words(tmp_path / f"out {trial}"))
        wait_for_handlers(process.pid)
        time.sleep((trial + draw.random()) / STOPS * life)
        began = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        code, _, errors = finish(process)
        took_s = time.monotonic() - asked
        assert code in (0, 143), f"seed {SEED}, trial {trial}: {errors}"
        if code == 143:
            assert errors.splitlines()[-1].startswith("Stopped: stopped by SIGTERM"), errors
            assert "Traceback" not in errors
        assert psutil.wait_procs(began, timeout=BOUND_S)[1] == []
        shutil.rmtree(tmp_path / f"out {trial}", ignore_errors=True)
        return code, took_s

    life = min(at_once(life_s, range(2)))
    found = at_once(stopped, range(STOPS))
    taken = sorted(took_s for code, took_s in found if code == 143)
    assert taken, "every signal came too late"
    assert taken[-1] < BOUND_S
    assert list(scratch.glob("embedmill-*")) == []
    assert list(empty_home.glob(".new-*")) == []
    title = f"{len(taken)} of {STOPS} signals to `{name}` ({life:.1f} s), seed {SEED}: the slowest stop took"
    tell(f"{title} {taken[-1]:.2f} s, the median {taken[len(taken) // 2]:.2f} s", {})
