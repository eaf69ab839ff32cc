"""The output folder: one owner, nothing foreign."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from embedmill.base.errors import Corrupt, FingerprintMismatch, Locked, OutputError
from embedmill.sink.ledger import Ledger
from tests.support.outputs import (
    FINGERPRINT,
    make_job,
    names,
    write_output,
)
from tests.support.systems import LEFT_LOCK

HOLD = """
import sys, time
from pathlib import Path
from embedmill.sink.ledger import Ledger
with Ledger(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held_by_another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        try:
            assert holder.stdout.readline() == "held\n"
            yield holder
        finally:
            holder.kill()


class TestOwner:
    def test_a_second_ledger_of_the_same_process_is_refused_at_once(self, tmp_path: Path) -> None:
        started = time.monotonic()
        with Ledger(tmp_path / "out"), pytest.raises(Locked, match=r"another run is writing to .*out"):
            Ledger(tmp_path / "out").__enter__()
        assert time.monotonic() - started < 1

    def test_another_process_is_refused_until_the_owner_is_killed(self, tmp_path: Path) -> None:
        with held_by_another_process(tmp_path / "out") as holder:
            with pytest.raises(Locked):
                Ledger(tmp_path / "out").__enter__()
            holder.send_signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
            holder.wait()
            with Ledger(tmp_path / "out") as ledger:
                assert ledger.job is None

    def test_the_folder_is_free_after_the_block(self, tmp_path: Path) -> None:
        for _ in range(3):
            with Ledger(tmp_path / "out"):
                pass

    def test_the_folder_is_free_after_an_error_in_the_block(self, tmp_path: Path) -> None:
        with pytest.raises(ZeroDivisionError), Ledger(tmp_path / "out"):
            raise ZeroDivisionError
        with Ledger(tmp_path / "out"):
            pass

    def test_the_folder_is_free_after_it_was_refused_as_damaged(self, tmp_path: Path) -> None:
        (write_output(tmp_path / "out") / "part-00001.parquet").unlink()
        for ledger in (Ledger(tmp_path / "out"), Ledger(tmp_path / "out")):
            with pytest.raises(Corrupt):
                ledger.__enter__()

    def test_a_refused_ledger_leaves_what_the_owner_is_writing(self, tmp_path: Path) -> None:
        with Ledger(tmp_path / "out") as owner:
            owner.begin(make_job())
            temporary = tmp_path / "out" / "_tmp" / "half.tmp"
            temporary.touch()
            uncommitted = tmp_path / "out" / "part-00000.parquet"
            uncommitted.touch()
            with pytest.raises(Locked):
                Ledger(tmp_path / "out").__enter__()
            assert temporary.exists()
            assert uncommitted.exists()

    def test_an_owner_that_leaves_while_another_enters_does_no_harm(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, second = Ledger(tmp_path / "out"), Ledger(tmp_path / "out")
        first.__enter__()
        acquire = FileLock.acquire

        def acquire_after_the_owner_left(lock: FileLock, timeout: float) -> object:
            first.__exit__()
            return acquire(lock, timeout)

        monkeypatch.setattr(FileLock, "acquire", acquire_after_the_owner_left)
        with second:
            second.begin(make_job())


class TestFolder:
    def test_a_new_folder_is_made_with_those_above_it(self, tmp_path: Path) -> None:
        with Ledger(tmp_path / "a" / "b") as ledger:
            ledger.begin(make_job())
        assert (tmp_path / "a" / "b" / "_ledger" / "job.json").is_file()

    @pytest.mark.parametrize("name", ["notes.txt", "part-00000.parquet", ".hidden"])
    def test_a_folder_with_other_things_is_refused_and_untouched(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_text("mine")
        before = tmp_path.stat().st_mtime_ns
        with pytest.raises(OutputError, match="is not an embedmill output") as refused:
            Ledger(tmp_path).__enter__()
        assert name in str(refused.value)
        assert names(tmp_path) == [name]
        assert tmp_path.stat().st_mtime_ns == before

    def test_a_file_is_refused_as_an_output(self, tmp_path: Path) -> None:
        (tmp_path / "out").touch()
        with pytest.raises(OutputError, match="is a file"):
            Ledger(tmp_path / "out").__enter__()

    def test_a_run_that_was_killed_before_its_job_was_written_does_not_block_the_folder(self, tmp_path: Path) -> None:
        with Ledger(tmp_path / "out"):
            (tmp_path / "out" / "_tmp" / f"{'0' * 32}.tmp").touch()
        with Ledger(tmp_path / "out") as ledger:
            assert ledger.job is None
        assert names(tmp_path / "out") == LEFT_LOCK

    def test_no_empty_folders_are_left(self, tmp_path: Path) -> None:
        write_output(tmp_path / "out", shards=1)
        assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == ["_ledger", "quarantine"]

    def test_a_folder_that_cannot_be_written_to_is_an_output_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(Path, "mkdir", refuse)
        with pytest.raises(OutputError, match=r"out.* cannot be written: Permission denied"):
            Ledger(tmp_path / "out").__enter__()


class TestJob:
    def test_the_same_fingerprint_may_go_on(self, tmp_path: Path) -> None:
        write_output(tmp_path / "out")
        with Ledger(tmp_path / "out") as ledger:
            ledger.check_fingerprint(FINGERPRINT)

    @pytest.mark.parametrize("field", sorted(FINGERPRINT.keys() - {"input.files"}))
    def test_another_fingerprint_is_refused_by_the_field_that_differs(self, tmp_path: Path, field: str) -> None:
        write_output(tmp_path / "out")
        with Ledger(tmp_path / "out") as ledger, pytest.raises(FingerprintMismatch, match=field) as refused:
            ledger.check_fingerprint({**FINGERPRINT, field: "other"})
        assert refused.value.field == field

    def test_a_field_that_the_other_job_did_not_have_is_refused_too(self, tmp_path: Path) -> None:
        write_output(tmp_path / "out")
        with Ledger(tmp_path / "out") as ledger, pytest.raises(FingerprintMismatch, match=r"rows\.new"):
            ledger.check_fingerprint({**FINGERPRINT, "rows.new": 1})

    def test_a_folder_without_a_job_takes_any_fingerprint(self, tmp_path: Path) -> None:
        with Ledger(tmp_path / "out") as ledger:
            ledger.check_fingerprint(FINGERPRINT)

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"fingerprint": {}}'])
    def test_an_unreadable_job_is_corrupt(self, tmp_path: Path, text: str) -> None:
        write_output(tmp_path / "out")
        (tmp_path / "out" / "_ledger" / "job.json").write_text(text)
        with pytest.raises(Corrupt, match=r"job\.json cannot be read"):
            Ledger(tmp_path / "out").__enter__()
