"""A process that is asked one thing after another; however it ends, the one that asks goes on."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil
import pytest

from embedmill.base.process.worker import Worker, WorkerEnded

MODULE = "tests.base.process.workers"


def test_it_answers_one_question_after_another() -> None:
    with Worker(MODULE, "ready") as worker:
        assert worker.hear(timeout_s=30) == b"ready"
        assert [worker.ask(word, timeout_s=30) for word in (b"one", b"two", b"one")] == [b"ONE", b"TWO", b"ONE"]


def test_what_native_code_prints_is_no_answer() -> None:
    with Worker(MODULE, "ready") as worker:
        worker.hear(timeout_s=30)
        assert worker.ask(b"noise", timeout_s=30) == b"NOISE"
        assert worker.ask(b"more", timeout_s=30) == b"MORE"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    ("word", "words"),
    [
        (b"crash", r"crashed with signal 11 \(SIGSEGV\)"),
        (b"fail", "ended with code 1: RuntimeError: the driver said no"),
        (b"leave", "ended without an answer"),
    ],
)
def test_an_end_is_named(word: bytes, words: str) -> None:
    with Worker(MODULE, "ready") as worker:
        worker.hear(timeout_s=30)
        with pytest.raises(WorkerEnded, match=words):
            worker.ask(word, timeout_s=30)
        with pytest.raises(WorkerEnded):
            worker.ask(b"again", timeout_s=30)


def test_a_hang_ends_at_its_deadline_and_leaves_no_process() -> None:
    with Worker(MODULE, "ready") as worker:
        worker.hear(timeout_s=30)
        begun = time.monotonic()
        with pytest.raises(WorkerEnded, match=r"did not answer in 0\.5 s"):
            worker.ask(b"hang", timeout_s=0.5)
        assert time.monotonic() - begun < 10
        assert children() == []


def test_leaving_the_context_ends_the_process() -> None:
    with Worker(MODULE, "ready") as worker:
        worker.hear(timeout_s=30)
        assert len(children()) == 1
    assert children() == []


def test_no_process_at_all_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(WorkerEnded, match="a process could not be started"):
        Worker(MODULE, "ready")


def children() -> list[psutil.Process]:
    """Processes of this one that still run."""
    return [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
