"""A run that is killed, stopped or crowded out goes on where it was, and two never write at once."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer

from embedmill.base.config import RunConfig
from embedmill.jobs.run import run
from embedmill.sink.folder import LEDGER, read_entries
from embedmill.sink.ledger import Ledger
from embedmill.sink.verify import verify
from tests.support.jobs import (
    embedmill,
    files_of,
    finish,
    ids_of,
    make_config,
    make_rows,
    parts_of,
    start,
    words_of,
    write_jsonl,
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
SEED = 20240607
ROWS = 1600


class Job:
    """A corpus of 32 shards, and what an undisturbed run makes of it."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.model = model
        self.ids = [row["id"] for row in make_rows(ROWS)]
        self.source = write_jsonl(folder / "a.jsonl", make_rows(ROWS))
        self.undisturbed = folder / "undisturbed"
        run(self.config(self.undisturbed), quiet=True)

    def config(self, output: Path) -> RunConfig:
        return make_config(self.model, self.source, output, shard={"rows": 50}, engine={"streams": 2})

    def words(self, output: Path) -> list[str]:
        return words_of(self.config(output))

    def finish(self, output: Path) -> None:
        """Run to the end, and compare with the undisturbed run."""
        run(self.config(output), quiet=True)
        assert parts_of(output) == parts_of(self.undisturbed)
        assert files_of(output) == files_of(self.undisturbed)
        assert ids_of(output) == self.ids


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Job:
    return Job(tmp_path_factory.mktemp("resume"), tiny_model)


@contextmanager
def held(job: Job, output: Path) -> Iterator[Popen[str]]:
    """A run in another process, held by SIGSTOP with a few shards committed and more to come."""
    while (process := _stopped(job, output)) is None:
        # It was done before it could be held, as may happen where much else runs.
        shutil.rmtree(output)
    try:
        yield process
    finally:
        process.kill()
        finish(process)


def _stopped(job: Job, output: Path) -> Popen[str] | None:
    process = start(job.words(output))
    while process.poll() is None and _committed(output) < 3:
        time.sleep(0.002)
    process.send_signal(signal.SIGSTOP)
    if process.returncode is None:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if _committed(output) < 32:
            return process
        process.kill()
    code, *told = finish(process)
    assert code in (0, -signal.SIGKILL), told
    return None


def _committed(output: Path) -> int:
    return len(list((output / LEDGER).glob("[0-9]*.json")))


def test_a_run_killed_at_random_instants_ends_as_if_it_had_not_been(job: Job, tmp_path: Path) -> None:
    draw = random.Random(SEED)
    output = tmp_path / "out"
    for _ in range(2):
        process = start(job.words(output))
        time.sleep(draw.uniform(0.4, 1.2))
        process.kill()
        finish(process)
    job.finish(output)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_a_run_in_seconds_with_everything_committed_kept(
    job: Job, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    output = tmp_path / "out"
    with held(job, output) as process:
        process.send_signal(sent)
        process.send_signal(signal.SIGCONT)
        asked = time.monotonic()
        found, _, errors = finish(process)
        assert time.monotonic() - asked < 10
    assert found == code
    assert errors.splitlines()[-1] == (
        f"Stopped: stopped by {sent.name}; everything committed is kept, the same command goes on from there"
    )
    kept = {entry.file: entry.sha256 for entry in read_entries(output)}
    assert 3 <= len(kept) < 32
    assert verify(output).problems == []
    job.finish(output)
    assert kept.items() <= parts_of(output).items()


def test_a_second_signal_does_not_break_the_stop(job: Job, tmp_path: Path) -> None:
    with held(job, tmp_path / "out") as process:
        for sent in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGCONT):
            process.send_signal(sent)
        code, _, errors = finish(process)
    assert code in (130, 143), "signals that are pending together come in any order"
    assert "Traceback" not in errors


def after(call: Callable[..., Any], action: Callable[[], None]) -> Callable[..., Any]:
    def both(*arguments: Any, **options: Any) -> Any:
        result = call(*arguments, **options)
        action()
        return result

    return both


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("place", ["tokenizer", "plan", "commit", "manifest"])
def test_a_signal_is_heard_wherever_the_run_is(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    if place == "tokenizer":
        loading = SimpleNamespace(from_file=after(Tokenizer.from_file, terminate))
        monkeypatch.setattr("embedmill.batch.tokenise.Tokenizer", loading)
    else:
        name = {"plan": "begin", "commit": "commit", "manifest": "complete"}[place]
        monkeypatch.setattr(Ledger, name, after(getattr(Ledger, name), terminate))
    assert embedmill(*job.words(tmp_path / "out")) == 143
    assert capsys.readouterr().err.splitlines()[-1].startswith("Stopped: stopped by SIGTERM")


def test_a_signal_during_a_native_import_is_still_a_stop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], job: Job, tmp_path: Path
) -> None:
    def load(*_: object, **__: object) -> None:
        terminate()
        raise ImportError("initialization failed")  # what a pybind11 module makes of any error while it loads

    monkeypatch.setattr("embedmill.jobs.run.run", load)
    assert embedmill(*job.words(tmp_path / "out")) == 143
    assert capsys.readouterr().err.splitlines()[-1].startswith("Stopped: stopped by SIGTERM")


def test_a_second_run_is_refused_and_does_not_wait_while_one_writes(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    with held(job, output) as owner:
        assert embedmill(*job.words(output)) == 6
        refused = capsys.readouterr().err
        owner.send_signal(signal.SIGCONT)
        assert finish(owner)[0] == 0
    assert refused.startswith(f"Locked: another run is writing to {output}; ")
    assert len(refused.splitlines()) == 1
    job.finish(output)


def test_a_killed_owner_leaves_no_lock(job: Job, tmp_path: Path) -> None:
    with held(job, tmp_path / "out") as owner:
        owner.kill()
        owner.wait()
        job.finish(tmp_path / "out")


def test_a_verification_beside_a_run_checks_what_is_committed(job: Job, tmp_path: Path) -> None:
    with held(job, tmp_path / "out"):
        found = verify(tmp_path / "out")
    assert found.writing
    assert found.problems == []
    assert not found.complete


def test_verifications_while_a_run_begins_writes_and_ends_find_no_problem(job: Job, tmp_path: Path) -> None:
    output, problems = tmp_path / "out", []
    process = start(job.words(output))
    while process.poll() is None:
        if (output / LEDGER / "job.json").exists():
            problems += verify(output).problems
    assert finish(process)[0] == 0
    assert problems == []
    assert verify(output).complete


def test_a_resumed_run_reads_only_the_rest(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    with held(job, output) as process:
        process.kill()
        process.wait()
    committed = 50 * len(list(read_entries(output)))
    assert embedmill(*job.words(output)) == 0
    told = capsys.readouterr()
    assert f"embedding {ROWS - committed} rows" in told.err
    assert f"{committed} are committed" in told.err
    assert told.out.startswith(f"embedded {ROWS - committed} rows")
    assert f"({committed} were committed before)" in told.out


def test_duplicates_of_rows_that_an_earlier_run_committed_are_found(job: Job, tmp_path: Path, tiny_model: Path) -> None:
    rows = [*make_rows(30), *make_rows(5, seed=1)]
    source = write_jsonl(tmp_path / "a.jsonl", rows)
    config = make_config(tiny_model, source, tmp_path / "out", shard={"rows": 10}, rows={"max_quarantined": 5})
    run(config, quiet=True)
    before = parts_of(tmp_path / "out")
    for name in ("_manifest.json", "_ledger/00003.json", "part-00003.parquet", "quarantine/part-00003.jsonl"):
        (tmp_path / "out" / name).unlink()
    result = run(config, quiet=True)
    assert (result.rows_before, result.totals.rows_quarantined) == (30, 5)
    assert parts_of(tmp_path / "out") == before
