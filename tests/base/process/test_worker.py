"""A process that is asked one thing after another; however it ends, the one that asks goes on."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from embedmill.base.process.worker import Worker, WorkerEnded, worker_of

MODULE = "tests.base.process.workers"
ROOT = Path(__file__).parents[3]


@pytest.fixture
def frames() -> queue.Queue[bytes | None]:
    """What was heard."""
    return queue.Queue()


@pytest.fixture
def worker(frames: queue.Queue[bytes | None]) -> Iterator[Worker]:
    """A process that has said the first word."""
    with worker_of(MODULE, "ready") as worker:
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
    with worker_of("tests.base.process.absent") as worker:
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
    with worker_of(MODULE, "ready") as worker:
        worker.listen(frames.put)
        worker.send(b"file")
        assert frames.get(timeout=30) == b"ready"
        left = Path((frames.get(timeout=30) or b"").decode())
        assert left.is_dir()
        worker.end()
    assert not left.parent.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("doing", ["file", "wait"])
def test_the_temporary_folder_goes_with_a_parent_that_is_killed(tmp_path: Path, doing: str) -> None:
    program = f"""
import time
from embedmill.base.process.worker import worker_of

worker = worker_of("{MODULE}", "ready")
worker.listen(lambda frame: print((frame or b"").decode(), flush=True))
worker.send(b"file")
worker.send(b"{doing}")
time.sleep(600)
"""
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    (tmp_path / "of-somebody-else").mkdir()
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment, cwd=ROOT) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        left = Path(parent.stdout.readline().decode().strip())
        assert left.parent.parent == tmp_path
        parent.kill()
    end_s = time.monotonic() + 30
    while left.parent.exists() and time.monotonic() < end_s:
        time.sleep(0.02)
    assert [entry.name for entry in tmp_path.iterdir()] == ["of-somebody-else"]


def test_no_process_at_all_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(WorkerEnded, match="a process could not be started"):
        worker_of(MODULE, "ready")


def children() -> list[psutil.Process]:
    """Processes of this one that still run."""
    return [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
