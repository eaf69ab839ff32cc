"""A process that is asked one thing after another; however it ends, the one that asks goes on."""

from __future__ import annotations

import queue
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from embedmill.base.process.worker import Worker, WorkerEnded

MODULE = "tests.base.process.workers"


@pytest.fixture
def frames() -> queue.Queue[bytes | None]:
    """What was heard."""
    return queue.Queue()


@pytest.fixture
def worker(frames: queue.Queue[bytes | None]) -> Iterator[Worker]:
    """A process that has said the first word."""
    with Worker(MODULE, "ready") as worker:
        worker.listen(frames.put)
        assert frames.get(timeout=30) == b"ready"
        yield worker
    assert children() == []


def test_it_answers_one_question_after_another(worker: Worker, frames: queue.Queue[bytes | None]) -> None:
    for word in (b"one", b"two", b"one"):
        worker.send(word)
    assert [frames.get(timeout=30) for _ in range(3)] == [b"ONE", b"TWO", b"ONE"]


def test_what_native_code_prints_is_no_answer(worker: Worker, frames: queue.Queue[bytes | None]) -> None:
    worker.send(b"noise")
    worker.send(b"more")
    assert [frames.get(timeout=30) for _ in range(2)] == [b"NOISE", b"MORE"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    ("word", "words"),
    [
        (b"crash", "crashed with signal 11 (SIGSEGV)"),
        (b"fail", "ended with code 1: RuntimeError: the driver said no"),
        (b"leave", "ended without an answer"),
    ],
)
def test_an_end_is_named(worker: Worker, frames: queue.Queue[bytes | None], word: bytes, words: str) -> None:
    worker.send(word)
    assert frames.get(timeout=30) is None
    assert worker.ending() == words
    with pytest.raises(WorkerEnded):
        worker.send(b"again")


def test_a_process_that_ends_at_once_is_heard_of(frames: queue.Queue[bytes | None]) -> None:
    with Worker("tests.base.process.absent") as worker:
        time.sleep(0.5)
        worker.listen(frames.put)
        assert frames.get(timeout=30) is None
        assert "No module named 'tests.base.process.absent'" in worker.ending()


def test_a_process_that_hangs_can_be_ended(worker: Worker, frames: queue.Queue[bytes | None]) -> None:
    worker.send(b"hang")
    worker.end()
    assert frames.get(timeout=10) is None
    assert children() == []


def test_what_a_killed_process_left_in_its_temporary_folder_is_removed(frames: queue.Queue[bytes | None]) -> None:
    with Worker(MODULE, "ready") as worker:
        worker.listen(frames.put)
        worker.send(b"file")
        assert frames.get(timeout=30) == b"ready"
        left = Path((frames.get(timeout=30) or b"").decode())
        assert left.is_dir()
        worker.end()
    assert not left.parent.exists()


def test_no_process_at_all_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(WorkerEnded, match="a process could not be started"):
        Worker(MODULE, "ready")


def children() -> list[psutil.Process]:
    """Processes of this one that still run."""
    return [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
