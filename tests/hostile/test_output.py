"""An output folder that cannot be used is named, and what is committed in it is never lost."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from embedmill.jobs.run import run
from embedmill.sink.folder import read_entries
from embedmill.sink.ledger import Ledger
from embedmill.sink.verify import verify
from tests.hostile.command import Cli
from tests.support.jobs import (
    embedmill,
    make_config,
    make_rows,
    parts_of,
    write_jsonl,
)
from tests.support.systems import WINDOWS


class TestOutput:
    def test_a_folder_of_someone_else_is_refused_and_untouched(self, cli: Cli) -> None:
        cli.output.mkdir()
        (cli.output / "thesis.doc").write_text("mine")
        line = cli.refused(6, *cli.words())
        assert line.startswith(f"OutputError: {cli.output} is not an embedmill output (it holds 'thesis.doc'); ")
        assert "--output" in line
        assert [path.name for path in cli.output.iterdir()] == ["thesis.doc"]

    def test_a_file_is_refused(self, cli: Cli) -> None:
        cli.output.touch()
        assert "is a file; --output must name a folder" in cli.refused(6, *cli.words())

    def test_a_name_that_no_folder_can_have_is_refused(self, cli: Cli) -> None:
        line = cli.refused(6, "run", "--input", cli.source, "--output", "x" * 300)
        assert line.startswith("OutputError: xxx")

    def test_the_output_of_another_job_is_refused(self, cli: Cli) -> None:
        assert embedmill(*cli.words("--json")) == 0
        cli._capsys.readouterr()
        before = parts_of(cli.output)
        line = cli.refused(6, *cli.words("--set", "shard.rows=3"))
        assert line.startswith(f"FingerprintMismatch: {cli.output} holds the output of another job: `shard.rows`")
        assert parts_of(cli.output) == before

    def test_a_committed_part_that_is_gone_is_named(self, cli: Cli) -> None:
        assert embedmill(*cli.words()) == 0
        cli._capsys.readouterr()
        (cli.output / "part-00001.parquet").unlink()
        line = cli.refused(6, *cli.words())
        assert line.startswith(f"Corrupt: {cli.output / 'part-00001.parquet'} is committed but missing")

    def test_the_remedy_for_a_part_that_is_gone_brings_it_back(self, cli: Cli) -> None:
        assert embedmill(*cli.words()) == 0
        before = parts_of(cli.output)
        for name in ("part-00001.parquet", "_ledger/00001.json", "_manifest.json"):
            (cli.output / name).unlink()
        assert embedmill(*cli.words()) == 0
        assert parts_of(cli.output) == before

    @pytest.mark.parametrize("name", ["_ledger/job.json", "_ledger/00000.json", "_manifest.json"])
    def test_an_unreadable_ledger_is_named(self, cli: Cli, name: str) -> None:
        assert embedmill(*cli.words()) == 0
        cli._capsys.readouterr()
        (cli.output / name).write_text("{")
        assert cli.refused(6, *cli.words()).startswith(f"Corrupt: {cli.output / name} cannot be read")

    @pytest.mark.parametrize("call", [1, 6] if WINDOWS else [1, 6, 11, 16])
    def test_a_disk_that_is_full_is_told_and_the_run_goes_on_when_it_is_not(
        self, cli: Cli, monkeypatch: pytest.MonkeyPatch, call: int
    ) -> None:
        calls: list[int] = []
        fsync = os.fsync

        def full(descriptor: int) -> None:
            calls.append(descriptor)
            if len(calls) >= call:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", full)
        line = cli.refused(6, *cli.words())
        assert line.startswith("OutputError: no space left to write ")
        assert line.endswith("everything committed is kept: free some and run again")
        monkeypatch.undo()
        committed = {entry.file: entry.sha256 for entry in read_entries(cli.output)}
        assert embedmill(*cli.words()) == 0
        assert committed.items() <= parts_of(cli.output).items()
        assert verify(cli.output).problems == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can mount")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine does not let us mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("free_kib", [8, 300])
def test_a_disk_that_is_really_full_is_told_and_the_run_goes_on_when_it_is_not(
    cli: Cli, small_disk: Path, free_kib: int
) -> None:
    cli.source = write_jsonl(cli.folder / "many.jsonl", make_rows(300))
    run(make_config(cli.model, cli.source, cli.folder / "undisturbed", shard={"rows": 5}), quiet=True)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes((1024 - free_kib) * 1024))
    cli.output = small_disk / "out"
    line = cli.refused(6, *cli.words())
    assert line.startswith("OutputError: ")
    committed = {entry.file: entry.sha256 for entry in read_entries(cli.output)}
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert embedmill(*cli.words()) == 0
    assert committed.items() <= parts_of(cli.output).items()
    assert parts_of(cli.output) == parts_of(cli.folder / "undisturbed")


def test_what_is_committed_stays_when_a_later_run_is_refused(cli: Cli) -> None:
    assert embedmill(*cli.words()) == 0
    before = parts_of(cli.output)
    refusals: list[Callable[[], Any]] = [
        lambda: embedmill(*cli.words("--set", "shard.rows=2")),
        lambda: embedmill(*cli.words(source=cli.folder / "absent.jsonl")),
        lambda: embedmill(*cli.words("--model", "no-such-model", "--set", 'model="no-such-model"')),
        lambda: embedmill(*cli.words("--set", "nonsense=1")),
    ]
    assert [refuse() for refuse in refusals] == [6, 3, 4, 2]
    assert parts_of(cli.output) == before
    with Ledger(cli.output) as ledger:
        assert ledger.pending() == []
