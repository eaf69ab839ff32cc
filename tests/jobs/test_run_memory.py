"""A run that is short of memory for real ends with every row, and says what it did."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec import structs

from embedmill.base.results import MemoryFacts
from embedmill.engine.machine.memory import MemoryReading, Probe
from embedmill.jobs.run import run
from embedmill.sink.folder import read_manifest
from embedmill.sink.verify import verify
from tests.support.jobs import (
    assert_close,
    embedded,
    make_config,
    make_rows,
    texts_of,
    vectors_of,
    words_of,
    write_jsonl,
)
from tests.support.readings import GIB, MIB, device
from tests.support.tiny_model import WORDS
from tests.support.works import CPU, ladder_of

# The limit begins when the session is open, so that it does not matter what libraries took before.
LIMITED = """
import numpy, pyarrow, resource, sys
from embedmill.engine.engine import Engine
from embedmill.cli.main import main
def enter(self, real=Engine.__enter__):
    with open("/proc/self/status") as file:
        [data] = [int(line.split()[1]) << 10 for line in file if line.startswith("VmData")]
    resource.setrlimit(resource.RLIMIT_DATA, (data + (int(sys.argv[1]) << 20), resource.RLIM_INFINITY))
    return real(self)
Engine.__enter__ = enter
pyarrow.array(numpy.arange(2))  # PyArrow imports pandas when it first meets an array, where it is installed.
sys.exit(main(sys.argv[2:]))
"""
ROWS = 8192


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this limit")
def test_a_batch_for_which_there_is_no_memory_runs_in_parts(tmp_path: Path, tiny_model: Path) -> None:
    """One batch of 8192 x 32 tokens takes more than 256 MiB, and 160 are left."""
    draw = random.Random(0)
    rows = [{"id": str(number), "text": " ".join(draw.choices(WORDS, k=30))} for number in range(ROWS)]
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    engine = {"provider": "cpu", "streams": 1, "threads": 1, "budget_tokens": 1 << 18}
    config = make_config(tiny_model, path, tmp_path / "out", shard={"rows": ROWS}, engine=engine)
    command = [sys.executable, "-c", LIMITED, "300", *words_of(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "batches shrink from full size to 1/4: there was no memory for a batch of 8192 x 32 tokens" in done.stderr
    assert "memory ran short: batches shrank to 1/" in done.stdout
    assert verify(tmp_path / "out").problems == []
    assert_close(vectors_of(tmp_path / "out"), embedded(tiny_model, texts_of(rows)))
    memory = memory_of(tmp_path / "out")
    assert memory.source == "RLIMIT_DATA"
    assert memory.changes[0].to_scale == 0.25
    page = (tmp_path / "out" / "_report.html").read_text("utf-8")
    assert "there was no memory for a batch of" in page


class Taken(Probe):
    """All is free at the first look, and next to nothing from then on."""

    def __init__(self) -> None:
        self.readings = [device(6 * GIB)]

    def read(self) -> MemoryReading:
        return self.readings.pop() if self.readings else device(MIB)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("budget", [64, 512])
def test_memory_that_others_take_makes_batches_smaller_and_changes_no_vector(
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    budget: int,
) -> None:
    fixed = structs.replace(CPU, shapes=ladder_of(8, 16, budget_tokens=budget, most_rows=32), runs="one")
    rows = make_rows(600)
    expected = embedded(tiny_model, texts_of(rows))
    monkeypatch.setattr("embedmill.tune.provider.find_provider", lambda *_: fixed)
    monkeypatch.setattr("embedmill.engine.memory.attach.probe_for", lambda *_: Taken())
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    run(make_config(tiny_model, path, tmp_path / "out", shard={"rows": 100}, engine={"provider": "cpu"}))
    assert_close(vectors_of(tmp_path / "out"), expected)
    assert verify(tmp_path / "out").problems == []
    memory = memory_of(tmp_path / "out")
    [change] = memory.changes
    assert (change.from_scale, change.to_scale) == (1, 1 / 64)
    assert memory.least_free_bytes == MIB
    said = capsys.readouterr().err
    assert "batches shrink from full size to 1/64: 1 MiB free of the 461 MiB to be kept free (NVML)" in said


def memory_of(output: Path) -> MemoryFacts:
    manifest = read_manifest(output)
    assert manifest is not None
    assert manifest.engine is not None
    assert manifest.engine.memory is not None
    return manifest.engine.memory
