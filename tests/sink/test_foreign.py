"""Files and folders of others in an output: never followed, removed or taken for ours."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from embedmill.base.errors import Corrupt, OutputError
from embedmill.base.files import local
from embedmill.base.records import SetAside
from embedmill.jobs.report import report
from embedmill.sink.ledger import Ledger
from embedmill.sink.verify import verify
from tests.support.outputs import (
    make_entry,
    make_job,
    make_lines,
    make_manifest,
    make_part,
    make_vectors,
    names,
    write_output,
)
from tests.support.tunings import TUNING

links = pytest.mark.skipif(os.name == "nt", reason="links need a right there")


def tree(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names(folder)}


@pytest.mark.parametrize("committed", [1, None], ids=["unfinished", "finished"])
@pytest.mark.parametrize(
    "name",
    [
        "zzz.parquet",
        "part-00007.parquet",
        "part-final.parquet",
        "notes.txt",
        "backup/part-00000.parquet",
        "quarantine/part-00000.jsonl",
        "quarantine/mine.jsonl",
        "_tmp/half.tmp",
        "_tmp/folder/0123456789abcdef0123456789abcdef.tmp",
        "_ledger/00001 (1).json",
        "_ledger/notes",
    ],
)
def test_files_of_others_are_left_by_a_run_and_named(
    tmp_path: Path, name: str, committed: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    output = write_output(tmp_path / "out", committed=committed)
    (output / name).parent.mkdir(exist_ok=True, parents=True)
    (output / name).write_bytes(b"mine")
    with caplog.at_level(logging.WARNING), Ledger(output):
        pass
    assert (output / name).read_bytes() == b"mine"
    found = verify(output)
    told = [one for one in (*found.problems, *found.foreign) if name.partition("/")[0] in one or name in one]
    assert told
    is_table = "/" not in name and name.lower().endswith(".parquet")
    assert bool(found.problems) == (is_table or name.startswith(("quarantine", "_ledger", "_tmp")))
    assert (name in caplog.text) == is_table


@pytest.mark.parametrize("content", [b"", b"mine", bytes(make_part()), bytes(make_part(ordinal=2))])
def test_a_file_in_the_place_of_a_shard_to_come_is_left_and_refused(tmp_path: Path, content: bytes) -> None:
    output = write_output(tmp_path / "out", committed=1)
    (output / "part-00001.parquet").write_bytes(content)
    before = tree(output)
    with pytest.raises(OutputError, match=r"part-00001\.parquet was not written by this job.*move it elsewhere"):
        Ledger(output).__enter__()
    assert tree(output) == before


@pytest.mark.parametrize("content", [b"mine", b'{"file":"b","row":1,"reason":"","id":null,"excerpt":""}', b"[" * 10**5])
def test_a_file_in_the_place_of_a_quarantine_to_come_is_left_and_refused(tmp_path: Path, content: bytes) -> None:
    output = write_output(tmp_path / "out", committed=1)
    (output / "quarantine").mkdir()
    (output / "quarantine" / "part-00001.jsonl").write_bytes(content)
    with pytest.raises(OutputError, match=r"part-00001\.jsonl was not written by this job"):
        Ledger(output).__enter__()
    assert (output / "quarantine" / "part-00001.jsonl").read_bytes() == content


@links
@pytest.mark.parametrize("name", ["_tmp", "quarantine", "_ledger"])
@pytest.mark.parametrize("committed", [0, 1, None], ids=["new", "unfinished", "finished"])
def test_a_link_in_the_place_of_a_folder_is_not_followed(tmp_path: Path, name: str, committed: int | None) -> None:
    elsewhere, output = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.mkdir()
    for file in ("part-00000.jsonl", f"{'0a' * 16}.tmp", "thesis.txt"):
        (elsewhere / file).write_bytes(b"mine")
    if committed != 0:
        write_output(output, committed=committed)
    output.mkdir(exist_ok=True)
    if (output / name).exists():
        shutil.rmtree(output / name)
    (output / name).symlink_to(elsewhere)
    before = tree(elsewhere)
    with pytest.raises(OutputError, match=f"{name} is a link, and nothing is written through it"):
        Ledger(output).__enter__()
    assert tree(elsewhere) == before


@links
@pytest.mark.parametrize("name", ["part-00001.parquet", "quarantine/part-00001.jsonl", f"_tmp/{'0a' * 16}.tmp"])
def test_a_link_in_the_place_of_a_leftover_is_not_followed(tmp_path: Path, name: str) -> None:
    output = write_output(tmp_path / "out", committed=1)
    (tmp_path / "mine").write_bytes(make_part(ordinal=1))
    (output / name).parent.mkdir(exist_ok=True)
    (output / name).symlink_to(tmp_path / "mine")
    with pytest.raises(OutputError, match="was not written by this job") if name[0] != "_" else Ledger(output):
        if name[0] != "_":
            Ledger(output).__enter__()
    assert (tmp_path / "mine").read_bytes() == bytes(make_part(ordinal=1))


@pytest.mark.parametrize("name", ["_tmp", "quarantine", "_ledger"])
def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).touch()
    with pytest.raises(OutputError, match=f"{name} is not a folder"):
        Ledger(tmp_path / "out").__enter__()


def test_a_quarantine_of_others_in_a_new_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out" / "quarantine").mkdir(parents=True)
    (tmp_path / "out" / "quarantine" / "part-00000.jsonl").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"is not an embedmill output \(it holds 'quarantine/part-00000\.jsonl'\)"):
        Ledger(tmp_path / "out").__enter__()
    assert names(tmp_path / "out") == ["quarantine/part-00000.jsonl"]


@pytest.mark.parametrize("content", [b"", make_lines(), make_lines(2)])
def test_a_quarantine_to_come_is_ours_only_with_its_part(tmp_path: Path, content: bytes) -> None:
    output = write_output(tmp_path / "out", committed=1)
    (output / "quarantine").mkdir()
    (output / "quarantine" / "part-00001.jsonl").write_bytes(content)
    with pytest.raises(OutputError, match=r"part-00001\.jsonl was not written by this job"):
        Ledger(output).__enter__()
    (output / "part-00001.parquet").write_bytes(make_part(ordinal=1, lines=make_lines()))
    if content == make_lines():
        with Ledger(output):
            pass
        assert names(output / "quarantine") == []
    else:
        with pytest.raises(OutputError, match=r"part-00001\.jsonl was not written by this job"):
            Ledger(output).__enter__()
        assert (output / "quarantine" / "part-00001.jsonl").read_bytes() == content


@pytest.mark.parametrize("name", ["part-00001.parquet", "quarantine/part-00001.jsonl", "_ledger/00001.json"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_others_put_in_the_way_of_a_commit_is_left(tmp_path: Path, name: str, kind: str) -> None:
    output = tmp_path / "out"
    with Ledger(output) as ledger:
        ledger.begin(make_job())
        ledger.commit(make_entry(0), make_part(), b"")
        mine = output / name / "mine" if kind == "folder" else output / name
        mine.parent.mkdir(parents=True, exist_ok=True)
        mine.write_bytes(b"mine")
        with pytest.raises(OutputError, match=r"exists already, and this run did not write it"):
            ledger.commit(make_entry(1, quarantined=1), make_part(make_vectors(5), ordinal=1), make_lines())
        assert mine.read_bytes() == b"mine"


@links
@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder"])
def test_nothing_is_written_through_the_note_of_an_attempt(tmp_path: Path, kind: str) -> None:
    output = write_output(tmp_path / "out", committed=1)
    note, mine = output / "_ledger" / "attempt", tmp_path / "mine"
    mine.write_bytes(b"mine")
    if kind == "link":
        note.symlink_to(mine)
    elif kind == "hard link":
        note.hardlink_to(mine)
    elif kind == "pipe":
        os.mkfifo(note)
    else:
        (note / "inner").mkdir(parents=True)
    with suppress(Corrupt):
        assert verify(output).problems
    with Ledger(output) as ledger:
        assert ledger.died_at() is None
        with ledger.attempt(ledger.pending()[0]):
            pass
    assert mine.read_bytes() == b"mine"
    assert (note / "inner").is_dir() == (kind == "folder")


def moved_away(output: Path) -> None:
    output.rename(output.with_name("moved"))


def exchanged(output: Path) -> None:
    moved_away(output)
    write_output(output, committed=1)


def with_another_ledger(output: Path) -> None:
    (output / "_ledger").rename(output / "old")
    shutil.copytree(output / "old", output / "_ledger")


def with_another_quarantine(output: Path) -> None:
    (output / "quarantine").rename(output.with_name("moved"))
    (output.with_name("elsewhere")).mkdir()
    (output / "quarantine").symlink_to(output.with_name("elsewhere"))


def without_lock(output: Path) -> None:
    (output / "_run.lock").unlink()
    with Ledger(output):
        pass


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be moved there")
@pytest.mark.parametrize("swap", [moved_away, exchanged, with_another_ledger, with_another_quarantine, without_lock])
def test_a_run_that_finds_another_folder_in_the_place_of_its_output_stops(
    tmp_path: Path, swap: Callable[[Path], None]
) -> None:
    output = tmp_path / "out"
    with Ledger(output) as ledger:
        ledger.begin(make_job())
        ledger.commit(make_entry(0), make_part(), b"")
        swap(output)
        before = tree(output) if output.is_dir() else {}
        with pytest.raises(OutputError, match="was moved, replaced or emptied while this run wrote to it"):
            ledger.commit(make_entry(1), make_part(ordinal=1), make_lines(0))
        assert (tree(output) if output.is_dir() else {}) == before


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be moved there")
def test_a_folder_that_is_moved_between_check_and_write_is_named_as_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, publish = tmp_path / "out", local.publish_file

    def moved(*arguments: Any, **named: Any) -> None:
        output.rename(tmp_path / "moved")
        publish(*arguments, **named)

    with Ledger(output) as ledger:
        ledger.begin(make_job())
        monkeypatch.setattr(local, "publish_file", moved)
        with pytest.raises(OutputError, match="was moved, replaced or emptied while this run wrote to it"):
            ledger.commit(make_entry(0), make_part(), b"")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("_ledger/00000.json", r"00000\.json is missing"),
        ("_ledger/job.json", r"job\.json was removed or replaced during the run"),
        ("part-00000.parquet", r"part-00000\.parquet is committed but missing"),
        ("quarantine/part-00000.jsonl", r"part-00000\.jsonl is committed but missing"),
    ],
)
def test_what_was_removed_while_a_run_wrote_keeps_it_from_being_called_complete(
    tmp_path: Path, name: str, problem: str
) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.begin(make_job(1))
        ledger.commit(make_entry(0, quarantined=1), make_part(), make_lines(1))
        manifest = make_manifest(ledger)
        (tmp_path / name).unlink()
        with pytest.raises(Corrupt, match=problem):
            ledger.complete(manifest, "<p>")
        assert not (tmp_path / "_manifest.json").exists()


def test_a_page_that_somebody_put_there_while_a_run_wrote_is_left(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.begin(make_job(1))
        ledger.commit(make_entry(0), make_part(), b"")
        (tmp_path / "_report.html").write_text("mine")
        with pytest.raises(OutputError, match="was not written by embedmill"):
            ledger.complete(make_manifest(ledger), "<p>")
    assert (tmp_path / "_report.html").read_text() == "mine"


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be moved there")
def test_a_run_that_finds_another_folder_while_it_plans_writes_no_job(tmp_path: Path) -> None:
    other = write_output(tmp_path / "other", committed=1)
    with Ledger(tmp_path / "out") as ledger:
        (tmp_path / "out").rename(tmp_path / "moved")
        other.rename(tmp_path / "out")
        (tmp_path / "out" / "_tmp").mkdir()
        before = tree(tmp_path / "out")
        with pytest.raises(OutputError, match="was moved, replaced or emptied"):
            ledger.begin(make_job(1))
    assert tree(tmp_path / "out") == before


def test_a_report_removes_nothing(tmp_path: Path) -> None:
    output = write_output(tmp_path / "out")
    (output / "_ledger" / "00001.json").unlink()
    before = tree(output)
    with pytest.raises(Corrupt, match=r"00001\.json is missing, but _manifest\.json says complete"):
        report(output)
    assert tree(output) == before


@pytest.mark.parametrize("name", ["_manifest.json", "_report.html", "_tuning.json", "_ledger/set-aside.json"])
@pytest.mark.parametrize("finished", [True, False])
def test_files_of_another_output_are_found(tmp_path: Path, name: str, finished: bool) -> None:
    """Of the same model, and with digests in order."""
    output, other = tmp_path / "out", tmp_path / "other"
    for folder, shards in ((output, 3), (other, 4)):
        with Ledger(folder) as ledger:
            ledger.begin(make_job(shards))
            ledger.write_tuning(TUNING)
            ledger.set_aside([SetAside(file=0, row=shards, reason="it ended the process")])
        write_output(folder, shards=shards, begun=True, committed=None if finished or folder is other else 1)
    assert verify(output).problems == []
    shutil.copy(other / name, output / name)
    assert problems_of(output)
    if name == "_manifest.json":
        with pytest.raises(Corrupt, match="is of another job"):
            Ledger(output).__enter__()


@pytest.mark.parametrize("name", ["_tuning.json", "_ledger/set-aside.json", "_report.html"])
def test_what_a_finished_output_lost_is_found(tmp_path: Path, name: str) -> None:
    output = tmp_path / "out"
    with Ledger(output) as ledger:
        ledger.begin(make_job())
        ledger.write_tuning(TUNING)
        ledger.set_aside([SetAside(file=0, row=1, reason="it ended the process")])
    write_output(output, begun=True)
    assert verify(output).problems == []
    (output / name).unlink()
    assert [problem for problem in verify(output).problems if name in problem]


@pytest.mark.parametrize("name", ["000001.json", "\u0660" * 4 + "\u0661.json"])
def test_an_entry_under_a_name_of_another_width_or_script_is_refused(tmp_path: Path, name: str) -> None:
    output = write_output(tmp_path / "out")
    (output / "_ledger" / "00001.json").rename(output / "_ledger" / name)
    with pytest.raises(Corrupt, match=r"00001\.json (has another name|is missing)"):
        Ledger(output).__enter__()
    assert problems_of(output)


@pytest.mark.parametrize("kind", ["missing", "device"])
def test_a_committed_quarantine_that_is_missing_is_corrupt(tmp_path: Path, kind: str) -> None:
    output = write_output(tmp_path / "out")
    path = output / "quarantine" / "part-00002.jsonl"
    path.unlink()
    if kind == "device":
        path.symlink_to("/dev/zero")
    with pytest.raises(Corrupt, match=r"part-00002\.jsonl is committed but missing"):
        Ledger(output).__enter__()


def problems_of(output: Path) -> list[str]:
    try:
        return verify(output).problems
    except Corrupt as error:
        return [str(error)]


def test_entries_of_another_output_are_refused(tmp_path: Path) -> None:
    output, other = tmp_path / "out", tmp_path / "other"
    write_output(output, committed=1)
    with Ledger(other) as ledger:
        ledger.begin(make_job(4))
        ledger.commit(make_entry(1), make_part(ordinal=1), b"")
    shutil.copy(other / "part-00001.parquet", output)
    shutil.copy(other / "_ledger" / "00001.json", output / "_ledger")
    with pytest.raises(Corrupt, match=r"00001\.json is of another job or model"):
        Ledger(output).__enter__()
    assert any("another job or model" in problem for problem in verify(output).problems)


def test_an_entry_under_another_name_is_refused(tmp_path: Path) -> None:
    output = write_output(tmp_path / "out", committed=1)
    (output / "_ledger" / "00000.json").rename(output / "_ledger" / "00001.json")
    with pytest.raises(Corrupt, match=r"00001\.json is the entry of shard 0"):
        Ledger(output).__enter__()


def test_entries_without_a_job_are_refused(tmp_path: Path) -> None:
    output = write_output(tmp_path / "out", committed=1)
    for name in ("part-00000.parquet", "_ledger/job.json"):
        (output / name).unlink()
    with pytest.raises(Corrupt, match=r"job\.json is missing from an output; restore it"):
        Ledger(output).__enter__()


@pytest.mark.parametrize("committed", [0, 1, None], ids=["begun", "unfinished", "finished"])
@pytest.mark.parametrize("content", [b"", b"my report", b"<html></html>" * 100])
def test_a_page_of_others_is_left_and_refused(tmp_path: Path, content: bytes, committed: int | None) -> None:
    output = write_output(tmp_path / "out", committed=committed)
    (output / "_report.html").write_bytes(content)
    before = tree(output)
    acts: list[Callable[[], object]] = [Ledger(output).__enter__]
    if committed is None:
        acts.append(partial(report, output))
    for act in acts:
        with pytest.raises(OutputError, match=r"_report\.html was not written by embedmill, or is damaged; move it"):
            act()
    assert tree(output) == before


def test_a_page_of_others_is_left_in_a_folder_that_is_no_output_yet(tmp_path: Path) -> None:
    (tmp_path / "_report.html").write_text("mine")
    with pytest.raises(OutputError, match="move it elsewhere"), Ledger(tmp_path):
        pass
    assert (tmp_path / "_report.html").read_text() == "mine"


@links
@pytest.mark.parametrize("target", ["missing", "there"])
@pytest.mark.parametrize("name", ["_report.html", "_manifest.json", "_tuning.json"])
def test_a_link_in_the_place_of_a_file_is_left_and_refused(tmp_path: Path, name: str, target: str) -> None:
    (tmp_path / "there").write_text("theirs")
    for output in (write_output(tmp_path / "out"), tmp_path / "new"):
        output.mkdir(exist_ok=True)
        (output / name).unlink(missing_ok=True)
        (output / name).symlink_to(tmp_path / target)
        with pytest.raises(OutputError, match="is a link, and nothing is written through it"), Ledger(output):
            pass
        assert (output / name).is_symlink()
    assert (tmp_path / "there").read_text() == "theirs"
    assert not (tmp_path / "missing").exists()


@links
def test_an_output_may_be_reached_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    write_output(tmp_path / "out")
    assert (tmp_path / "disk" / "_manifest.json").is_file()
    assert verify(tmp_path / "out").problems == []
    assert (tmp_path / "out").is_symlink()


@links
@pytest.mark.parametrize("target", ["nowhere", "out", "file"])
def test_an_output_whose_link_leads_to_no_folder_is_refused_as_that(tmp_path: Path, target: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "out").symlink_to(tmp_path / target)
    with pytest.raises(OutputError, match="out is a link, and leads to no folder; correct it"):
        write_output(tmp_path / "out")
