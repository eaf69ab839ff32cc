"""A driver that crashes or hangs gives a reason, never an exception or an endless wait."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from embedmill.base.process import child
from embedmill.engine.machine.adapters import Detection
from embedmill.engine.machine.adapters.child import detect_in_child
from tests.engine.machine.adapters.children import FOUND

CHILD = "tests.engine.machine.adapters.children"


@pytest.mark.parametrize("mood", ["nothing", "chatter", "chatter at the end"])
def test_the_detection_of_a_child_comes_back(monkeypatch: pytest.MonkeyPatch, mood: str) -> None:
    monkeypatch.setenv("EMBEDMILL_TEST_CHILD", mood)
    assert detect_in_child(CHILD, 30) == FOUND


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_crash_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDMILL_TEST_CHILD", "crash")
    assert detect_in_child(CHILD, 30) == Detection(reason="crashed with signal 11 (SIGSEGV)")


def test_a_child_that_hangs_is_ended_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDMILL_TEST_CHILD", "hang")
    begun = time.monotonic()
    assert detect_in_child(CHILD, 1) == Detection(reason="did not answer in 1 s")
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("mood", "reason"),
    [("silence", "ended without an answer"), ("fail", "ended with code 1: RuntimeError: the driver said no")],
)
def test_a_child_that_does_not_answer_says_why(monkeypatch: pytest.MonkeyPatch, mood: str, reason: str) -> None:
    monkeypatch.setenv("EMBEDMILL_TEST_CHILD", mood)
    assert detect_in_child(CHILD, 30).reason == reason


def test_a_crash_under_windows_is_named() -> None:
    assert child.ending(0xC0000005, []) == "crashed with code 0xc0000005"


def test_last_words_in_utf_16_are_read(tmp_path: Path) -> None:
    program = (
        "import sys; sys.stderr.buffer.write(b'begun\\n' + 'the driver said no\\r\\n'.encode('utf-16-le')); sys.exit(3)"
    )
    done = child.run_command([sys.executable, "-c", program], timeout_s=30)
    assert done.words == "ended with code 3: the driver said no"


def test_no_process_at_all_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    assert detect_in_child(CHILD, 30).reason.startswith("a process could not be started: ")


def test_a_child_imports_nothing_from_the_working_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "embedmill").mkdir()
    (tmp_path / "embedmill/__init__.py").write_text("raise SystemExit('the wrong house')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.setenv("EMBEDMILL_TEST_CHILD", "nothing")
    assert detect_in_child(CHILD, 30) == FOUND
