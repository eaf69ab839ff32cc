"""Commits are atomic, and found again by a resume."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import msgspec
import pytest

from embedmill.base.errors import ConservationError, Corrupt, OutputError
from embedmill.sink.folder import read_entries
from embedmill.sink.ledger import Ledger
from embedmill.sink.verify import verify
from tests.support.outputs import (
    make_entry,
    make_job,
    make_lines,
    make_part,
    make_vectors,
    names,
    write_output,
)
from tests.support.systems import LEFT_LOCK, WINDOWS


def commit_two(ledger: Ledger) -> None:
    """A shard with a quarantined row, and one without."""
    ledger.commit(make_entry(0, quarantined=1), make_part(make_vectors(5)), make_lines())
    ledger.commit(make_entry(1), make_part(), b"")


class TestCommit:
    def test_a_committed_shard_is_there_for_the_next_run(self, tmp_path: Path) -> None:
        with Ledger(tmp_path / "out") as ledger:
            ledger.begin(make_job(2))
            entry = ledger.commit(make_entry(0), make_part(), b"")
            assert [shard.ordinal for shard in ledger.pending()] == [1]
        with Ledger(tmp_path / "out") as ledger:
            assert ledger.entries == {0: entry}
            assert [shard.ordinal for shard in ledger.pending()] == [1]

    def test_the_entry_has_size_and_hash_of_the_part(self, tmp_path: Path) -> None:
        with Ledger(tmp_path / "out") as ledger:
            ledger.begin(make_job())
            entry = ledger.commit(make_entry(0), memoryview(b"hello"), b"")
        assert entry.bytes == 5
        assert entry.sha256 == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
        assert (tmp_path / "out" / "part-00000.parquet").read_bytes() == b"hello"

    def test_rejected_rows_are_listed_with_their_reasons(self, tmp_path: Path) -> None:
        with Ledger(tmp_path / "out") as ledger:
            ledger.begin(make_job())
            ledger.commit(make_entry(0, quarantined=2), make_part(make_vectors(4)), make_lines(2))
        lines = (tmp_path / "out" / "quarantine" / "part-00000.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == [
            {"file": "a.jsonl", "row": 1, "reason": "the text is empty", "id": None, "excerpt": ""},
            {"file": "a.jsonl", "row": 2, "reason": "the text is empty", "id": None, "excerpt": ""},
        ]

    @pytest.mark.parametrize(
        "lost",
        [{"rows_written": 5}, {"rows_quarantined": 1}, {"rows_skipped": 1}, {"rows_read": 7}, {"rows_read": 5}],
    )
    def test_a_row_that_is_unaccounted_for_commits_nothing(self, tmp_path: Path, lost: dict[str, int]) -> None:
        with Ledger(tmp_path / "out") as ledger:
            ledger.begin(make_job())
            with pytest.raises(ConservationError, match="6 rows were planned"):
                ledger.commit(msgspec.structs.replace(make_entry(0), **lost), make_part(), make_lines())
            assert ledger.entries == {}
        assert names(tmp_path / "out") == ["_ledger/job.json", *LEFT_LOCK]

    def test_rows_set_aside_are_accounted_for(self, tmp_path: Path) -> None:
        with Ledger(tmp_path / "out") as ledger:
            ledger.begin(make_job())
            ledger.commit(make_entry(0, quarantined=1, skipped=2), make_part(make_vectors(3)), make_lines())
            assert list(ledger.entries) == [0]

    def test_a_committed_shard_is_never_replaced(self, tmp_path: Path) -> None:
        with Ledger(tmp_path / "out") as ledger:
            ledger.begin(make_job())
            entry = ledger.commit(make_entry(0), memoryview(b"first"), b"")
            with pytest.raises(Corrupt):
                ledger.commit(make_entry(0), memoryview(b"second"), b"")
        assert list(read_entries(tmp_path / "out")) == [entry]
        assert (tmp_path / "out" / "part-00000.parquet").read_bytes() == b"first"

    @pytest.mark.parametrize("call", range(1, 6 if WINDOWS else 11))
    def test_a_sync_that_fails_commits_all_or_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
    ) -> None:
        calls: list[int] = []
        fsync = os.fsync

        def fail_once(descriptor: int) -> None:
            calls.append(descriptor)
            if len(calls) == call:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            fsync(descriptor)

        with Ledger(tmp_path / "out") as ledger:
            ledger.begin(make_job())
            monkeypatch.setattr(os, "fsync", fail_once)
            with pytest.raises(OutputError, match="cannot be written: "):
                commit_two(ledger)
        monkeypatch.undo()
        with Ledger(tmp_path / "out") as ledger:
            committed = list(ledger.entries)
        parts = [name for name in names(tmp_path / "out") if name.startswith("part-")]
        assert parts == [f"part-{ordinal:05d}.parquet" for ordinal in committed]


class TestResume:
    def test_temporary_files_of_a_killed_run_are_removed(self, tmp_path: Path) -> None:
        write_output(tmp_path / "out")
        before = names(tmp_path / "out")
        (tmp_path / "out" / "_tmp").mkdir()
        (tmp_path / "out" / "_tmp" / f"{'0a' * 16}.tmp").touch()
        with Ledger(tmp_path / "out"):
            pass
        assert names(tmp_path / "out") == before

    @pytest.mark.parametrize("stopped_at", ["part", "entry", "after the entry"])
    def test_a_stop_between_a_part_and_its_entry_leaves_neither_or_both(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_at: str
    ) -> None:
        link = os.link

        def stopped(source: Path, path: Path) -> None:
            entry = path.parent.name == "_ledger"
            if stopped_at == "entry" and entry:
                raise KeyboardInterrupt
            link(source, path)
            if stopped_at == ("after the entry" if entry else "part"):
                raise KeyboardInterrupt

        with Ledger(tmp_path / "out") as ledger:
            ledger.begin(make_job())
            monkeypatch.setattr(os, "link", stopped)
            with pytest.raises(KeyboardInterrupt):
                ledger.commit(make_entry(0, quarantined=1), make_part(make_vectors(5)), make_lines())
        there = [name for name in names(tmp_path / "out") if "part-" in name or name.endswith("00000.json")]
        assert len(there) == (3 if stopped_at == "after the entry" else 0)
        assert verify(tmp_path / "out").problems == []

    def test_what_never_reached_the_ledger_is_made_again(self, tmp_path: Path) -> None:
        output = write_output(tmp_path / "out", committed=1)
        (output / "part-00001.parquet").write_bytes(make_part(ordinal=1))
        (output / "part-00002.parquet").write_bytes(make_part(ordinal=2, lines=make_lines()))
        (output / "quarantine").mkdir()
        (output / "quarantine" / "part-00002.jsonl").write_bytes(make_lines())
        with Ledger(output) as ledger:
            assert [shard.ordinal for shard in ledger.pending()] == [1, 2]
        assert names(output) == ["_ledger/00000.json", "_ledger/job.json", *LEFT_LOCK, "part-00000.parquet"]

    def test_a_committed_part_that_is_missing_is_corrupt(self, tmp_path: Path) -> None:
        write_output(tmp_path / "out")
        (tmp_path / "out" / "part-00001.parquet").unlink()
        with pytest.raises(Corrupt, match=r"part-00001\.parquet is committed but missing"):
            Ledger(tmp_path / "out").__enter__()

    def test_a_committed_part_of_another_size_is_corrupt(self, tmp_path: Path) -> None:
        write_output(tmp_path / "out")
        with (tmp_path / "out" / "part-00001.parquet").open("ab") as part:
            part.write(b"x")
        with pytest.raises(Corrupt, match="of another size"):
            Ledger(tmp_path / "out").__enter__()

    def test_the_remedy_for_a_missing_part_is_true(self, tmp_path: Path) -> None:
        write_output(tmp_path / "out")
        (tmp_path / "out" / "part-00001.parquet").unlink()
        (tmp_path / "out" / "_ledger" / "00001.json").unlink()
        (tmp_path / "out" / "_manifest.json").unlink()
        with Ledger(tmp_path / "out") as ledger:
            assert [shard.ordinal for shard in ledger.pending()] == [1]

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"ordinal": 1}'])
    def test_an_unreadable_entry_is_corrupt(self, tmp_path: Path, text: str) -> None:
        write_output(tmp_path / "out")
        (tmp_path / "out" / "_ledger" / "00001.json").write_text(text)
        with pytest.raises(Corrupt, match=r"00001\.json cannot be read"):
            Ledger(tmp_path / "out").__enter__()
