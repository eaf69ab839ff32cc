"""A row that ends the process is set aside by the next run, which embeds all others."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.platform == "win32":
    pytest.skip("limits the memory of a process", allow_module_level=True)

import resource

from embedmill.base.errors import InputError, TokenizerFailed
from embedmill.jobs.executors.isolation import fatal_rows
from embedmill.jobs.job import Job
from embedmill.jobs.run import run
from embedmill.sink.folder import OutputJob
from embedmill.sink.ledger import Ledger
from tests.support.jobs import make_config, make_rows, quarantined_in, words_of, write_jsonl
from tests.support.tiny_model import write_tiny_model

pytestmark = [pytest.mark.crash, pytest.mark.skipif(os.name == "nt", reason="limits the memory of a process")]

MEMORY_BYTES = 3 << 30
# Each becomes a million letters, so that a row of these takes more memory than the process may have.
BOMB = "\u2620"


@pytest.fixture(scope="module")
def greedy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a tokenizer that no memory is enough for, on one kind of text."""
    folder = write_tiny_model(tmp_path_factory.mktemp("models") / "greedy")
    place = folder / "tokenizer.json"
    tokenizer = json.loads(place.read_text("utf-8"))
    grown = {"type": "Replace", "pattern": {"String": BOMB}, "content": "y" * 1_000_000}
    tokenizer["normalizer"] = {"type": "Sequence", "normalizers": [tokenizer["normalizer"], grown]}
    place.write_text(json.dumps(tokenizer), "utf-8")
    return folder


def run_limited(words: list[str]) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    command = [sys.executable, "-m", "embedmill", *words]
    return subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("places", [[70], [0, 71, 199]], ids=str)
@pytest.mark.parametrize("chunk_tokens", [0, 16])
def test_the_next_run_goes_past_rows_that_killed_the_process(
    tmp_path: Path, greedy_model: Path, places: list[int], chunk_tokens: int
) -> None:
    rows: list[dict[str, Any]] = make_rows(200)
    for place in places:
        rows[place]["text"] = BOMB * 500
    config = make_config(
        greedy_model,
        write_jsonl(tmp_path / "a.jsonl", rows),
        tmp_path / "out",
        shard={"rows": 50},
        text={"chunk_tokens": chunk_tokens},
    )
    for _ in range(len(places) + 1):
        ended = run_limited(words_of(config))
        if ended.returncode == 7:
            break
        assert ended.returncode == -6, ended.stderr
    assert ended.returncode == 7, ended.stderr
    rejected = quarantined_in(tmp_path / "out")
    assert [(row["row"], row["id"]) for row in rejected] == [(place + 1, rows[place]["id"]) for place in places]
    assert all("tokenising it ended the process: crashed with signal 6" in row["reason"] for row in rejected)
    assert run_limited(["verify", str(tmp_path / "out")]).returncode == 0


def test_a_run_that_was_killed_for_another_reason_sets_nothing_aside(tmp_path: Path, tiny_model: Path) -> None:
    config = make_config(tiny_model, write_jsonl(tmp_path / "a.jsonl", make_rows(20)), tmp_path / "out")
    job = Job(config)
    assert list(fatal_rows(job, job.plan()[0])) == []


def test_a_file_that_cannot_be_read_at_all_is_named(tmp_path: Path, tiny_model: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", make_rows(20))
    job = Job(make_config(tiny_model, path, tmp_path / "out"))
    shards = job.plan()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"a\.jsonl: reading it ends the process .*changed since"):
        list(fatal_rows(job, shards[0]))


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, InputError, MemoryError, TokenizerFailed])
def test_only_death_and_want_of_memory_leave_a_note(
    tmp_path: Path, tiny_model: Path, error: type[BaseException] | None
) -> None:
    job = Job(make_config(tiny_model, write_jsonl(tmp_path / "a.jsonl", make_rows(20)), tmp_path / "out"))
    with Ledger(tmp_path / "out") as ledger:
        ledger.begin(OutputJob(fingerprint={}, shards=job.plan()))
        (shard,) = ledger.pending()
        with contextlib.suppress(BaseException), ledger.attempt(shard):
            assert ledger.died_at() == shard
            if error is not None:
                raise error
        assert ledger.died_at() == (shard if error in (MemoryError, TokenizerFailed) else None)
    assert bool((tmp_path / "out" / "_ledger" / "attempt").read_bytes()) == (error in (MemoryError, TokenizerFailed))


def test_a_complete_output_has_no_note(tmp_path: Path, tiny_model: Path) -> None:
    run(make_config(tiny_model, write_jsonl(tmp_path / "a.jsonl", make_rows(20)), tmp_path / "out"), quiet=True)
    assert not (tmp_path / "out" / "_ledger" / "attempt").exists()
