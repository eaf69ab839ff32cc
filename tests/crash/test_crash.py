"""Runs killed with SIGKILL at random instants of their whole life end with what an undisturbed run ends with."""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from embedmill.sink.folder import LEDGER, MANIFEST
from embedmill.sink.verify import verify
from tests.conftest import Tell
from tests.crash.failpoints import AT_ONCE, at_once
from tests.support.jobs import (
    files_of,
    finish,
    ids_of,
    make_config,
    make_rows,
    parts_of,
    start,
    tiny_bundle,
    vectors_of,
    words_of,
    write_jsonl,
)

pytestmark = pytest.mark.crash

SEED = 20240607
KILLS = 30
SIGNALS = 16
ROWS = 2000
SHARD_ROWS = 20
SHARDS = ROWS // SHARD_ROWS


class Job:
    """The corpus, its output by an undisturbed run, and the output of a run that was killed half-way."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.model = model
        self.rows = make_rows(ROWS)
        self.source = write_jsonl(folder / "corpus.jsonl", self.rows)
        tiny_bundle(model)
        self.undisturbed, self.half = folder / "undisturbed", folder / "half"
        life_s = self._lives(self.undisturbed, None)
        process = start(self.words(self.half))
        while committed(self.half) < SHARDS // 2:
            time.sleep(0.002)
        process.kill()
        finish(process)
        self.life_s = {False: life_s, True: self._lives(folder / "second half", self.half)}

    def _lives(self, output: Path, first: Path | None) -> float:
        """Seconds that a run takes beside another, as in the trials; one is left in `output`."""
        outputs = [self.begin(output.name, first), *(self.begin(f"beside {n}", first) for n in range(1, AT_ONCE))]
        return max(at_once(self.finish, outputs))

    def words(self, output: Path) -> list[str]:
        return words_of(make_config(self.model, self.source, output, shard={"rows": SHARD_ROWS}))

    def begin(self, name: str, first: Path | None = None) -> Path:
        """A new output folder, or a copy of one that a killed run left."""
        output = self.folder / name
        shutil.rmtree(output, ignore_errors=True)
        return shutil.copytree(first, output) if first is not None and first.exists() else output

    def finish(self, output: Path) -> float:
        """Run to the end; seconds it took."""
        started = time.monotonic()
        code, _, errors = finish(start(self.words(output)))
        assert code == 0, errors
        return time.monotonic() - started

    def kill(self, output: Path, share: float, *, half: bool) -> str | None:
        """Kill a run after a share of its life; what it had reached by then, None if it had ended.

        How long a run lives is learnt from those that ended too early: the machine has other work.
        """
        before = committed(output)
        started = time.monotonic()
        process = start(self.words(output))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(share * self.life_s[half])
            self.life_s[half] = min(self.life_s[half], time.monotonic() - started)
        process.kill()
        code, _, errors = finish(process)
        assert code in (-9, 0), errors
        return stage_of(output, before) if code else None


def committed(output: Path) -> int:
    """Shards in the ledger."""
    return len(list((output / LEDGER).glob("[0-9]*.json")))


def stage_of(output: Path, before: int) -> str:
    """How far a killed run had come, by what it left."""
    now = committed(output)
    if (output / MANIFEST).exists():
        return "after the manifest"
    if now == SHARDS:
        return "between the last shard and the manifest"
    if now > before:
        return "among the shards"
    return "after planning" if (output / LEDGER / "job.json").exists() else "at start-up or while planning"


@pytest.fixture(scope="module")
def job(place: Path, tiny_model: Path) -> Job:
    return Job(place / "crash", tiny_model)


def test_thirty_kills_change_nothing(job: Job, tell: Tell) -> None:
    """Even trials begin a run, odd ones go on with the half; every tenth is killed again while it resumes.

    The instants are spread evenly over the life of a run; a run that ends before its kill is run again.
    """
    expected_ids, expected_parts = ids_of(job.undisturbed), parts_of(job.undisturbed)
    assert expected_ids == [row["id"] for row in job.rows]

    def survived(trial: int) -> list[str]:
        place, half = f"seed {SEED}, trial {trial}", trial % 2 == 1
        share, stages = (trial + random.Random(SEED + trial).random()) / KILLS, []
        first = job.half if half else None
        while (stage := job.kill(output := job.begin(f"trial {trial}", first), share, half=half)) is None:
            stages.append("ended before the kill, and was run again")
        stages.append(f"killed {stage}")
        if trial % 10 == 9:
            killed, share = output, 1.0
            while (stage := job.kill(output := job.begin(f"again {trial}", killed), share, half=True)) is None:
                share *= 0.9
            stages.append(f"killed again {stage}")
        job.finish(output)
        if (parts := parts_of(output)) != expected_parts:
            assert ids_of(output) == expected_ids, place
            np.testing.assert_array_equal(vectors_of(output), vectors_of(job.undisturbed), err_msg=place)
        assert parts == expected_parts, place
        assert files_of(output) == files_of(job.undisturbed), place
        assert verify(output).problems == [], place
        shutil.rmtree(output)
        return stages

    stages = Counter(stage for found in at_once(survived, range(KILLS)) for stage in found)
    tell(f"{KILLS} kills of runs that take {job.life_s[False]:.1f} s, seed {SEED}", stages)


@pytest.mark.skipif(sys.platform != "linux", reason="waits for the handlers by /proc")
def test_runs_stopped_by_a_signal_change_nothing(job: Job, tell: Tell) -> None:
    """SIGINT and SIGTERM at instants spread over the life of a run; every third is then finished."""

    def stopped(trial: int) -> tuple[str, float]:
        place, draw = f"seed {SEED}, trial {trial}", random.Random(SEED + trial)
        output = job.begin(f"stopped {trial}")
        sent = (signal.SIGINT, signal.SIGTERM)[trial % 2]
        process = start(job.words(output))
        wait_for_handlers(process.pid)
        time.sleep((trial + draw.random()) / SIGNALS * 0.8 * job.life_s[False])
        process.send_signal(sent)
        asked = time.monotonic()
        code, _, errors = finish(process)
        took_s = time.monotonic() - asked
        assert code in (0, 128 + sent), f"{place}: {errors}"
        if code == 128 + sent:
            assert "Traceback" not in errors, place
            assert errors.splitlines()[-1].startswith(f"Stopped: stopped by {sent.name}"), place
        if trial % 3 == 0:
            job.finish(output)
            assert parts_of(output) == parts_of(job.undisturbed), place
            assert files_of(output) == files_of(job.undisturbed), place
        shutil.rmtree(output, ignore_errors=True)
        return f"{sent.name}: exit code {code}", took_s

    found = at_once(stopped, range(SIGNALS))
    slowest_s = max(took_s for _, took_s in found)
    assert slowest_s < 10
    codes = Counter(code for code, _ in found)
    tell(f"{SIGNALS} signals, seed {SEED}, the slowest stop took {slowest_s:.2f} s", codes)


def wait_for_handlers(process: int) -> None:
    """Until embedmill catches SIGTERM; before that the signal is the interpreter's."""
    caught = 0
    while not caught >> (signal.SIGTERM - 1) & 1:
        time.sleep(0.002)
        [line] = re.findall(r"SigCgt:\s*(\w+)", Path(f"/proc/{process}/status").read_text())
        caught = int(line, 16)
