"""Writes are atomic and durable, whichever system call fails."""

from __future__ import annotations

import errno
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from embedmill.base.errors import Corrupt, OutputError
from embedmill.base.files import local

NO_HARD_LINKS = [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS]
posix = pytest.mark.skipif(sys.platform == "win32", reason="folders are synced, and limits set, on POSIX only")
WRITERS = [local.write_file, local.publish_file]


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def failing(number: int, *, on_call: int = 1) -> Callable[..., Any]:
    """Return a call that fails with `number`, the `on_call`th time."""
    calls: list[Any] = []

    def call(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == on_call:
            raise OSError(number, os.strerror(number))

    return call


def trace(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record syncs, renames and links, in order."""
    calls: list[str] = []
    folders: dict[int, str] = {}
    fsync, replace, link, open_folder = os.fsync, os.replace, os.link, os.open

    def watched_open(path: Path, flags: int) -> int:
        descriptor = open_folder(path, flags)
        folders[descriptor] = path.name
        return descriptor

    def watched_fsync(descriptor: int) -> None:
        folder = folders.pop(descriptor, None)
        calls.append(f"sync folder {folder}" if folder else f"sync file of {os.fstat(descriptor).st_size} bytes")
        fsync(descriptor)

    def watched_replace(source: Path, target: Path) -> None:
        calls.append(f"rename to {Path(target).name}")
        replace(source, target)

    def watched_link(source: Path, target: Path) -> None:
        calls.append(f"link as {Path(target).name}")
        link(source, target)

    monkeypatch.setattr(os, "open", watched_open)
    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    monkeypatch.setattr(os, "link", watched_link)
    return calls


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the kernel refuse files beyond `size` bytes."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("write", WRITERS)
def test_a_file_gets_its_bytes_and_leaves_no_temporary(
    tmp_path: Path, scratch: Path, write: Callable[..., None]
) -> None:
    write(tmp_path / "file", b"new", scratch=scratch)
    assert (tmp_path / "file").read_bytes() == b"new"
    assert list(scratch.iterdir()) == []


def test_writing_replaces_what_was_there(tmp_path: Path, scratch: Path) -> None:
    (tmp_path / "file").write_bytes(b"old and longer")
    local.write_file(tmp_path / "file", memoryview(b"new"), scratch=scratch)
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES])
def test_a_failed_call_leaves_the_old_file_and_no_temporary(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    (tmp_path / "file").write_bytes(b"old")
    monkeypatch.setattr(os, name, failing(number))
    with pytest.raises(OutputError):
        local.write_file(tmp_path / "file", b"new", scratch=scratch)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert list(scratch.iterdir()) == []


@posix
def test_a_write_that_stops_half_way_leaves_the_old_file_and_no_temporary(tmp_path: Path, scratch: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with files_of_at_most(100_000), pytest.raises(OutputError, match="File too large"):
        local.write_file(tmp_path / "file", bytes(1_000_000), scratch=scratch)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_with_the_file_and_the_remedy(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "fsync", failing(number))
    with pytest.raises(OutputError, match=r"no space left to write .*file; .* is kept: free some and run again"):
        local.write_file(tmp_path / "file", b"new", scratch=scratch)


def test_errors_speak_of_what_is_kept_only_where_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for kept, ending in (("", ""), ("all of it", "; all of it is kept")):
        with pytest.raises(OutputError, match=f"cannot be written: [^;]+{ending}$"):
            local.make_folder(tmp_path / "file" / "below", kept=kept)
    with pytest.raises(OutputError, match="cannot be written"), local.scratch_folder(tmp_path / "file"):
        pass


def test_a_failed_sync_is_not_tried_again(tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def fail(descriptor: int) -> None:
        calls.append(descriptor)
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError):
        local.write_file(tmp_path / "file", b"new", scratch=scratch)
    assert len(calls) == 1


@posix
def test_all_bytes_are_synced_before_the_rename_and_the_folder_after(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = trace(monkeypatch)
    local.write_file(tmp_path / "file", b"new", scratch=scratch)
    assert calls == ["sync file of 3 bytes", "rename to file", f"sync folder {tmp_path.name}"]


@posix
def test_all_bytes_are_synced_before_the_link_and_the_folder_after(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = trace(monkeypatch)
    local.publish_file(tmp_path / "file", b"new", scratch=scratch)
    assert calls == ["sync file of 3 bytes", "link as file", f"sync folder {tmp_path.name}"]


def test_a_published_file_is_never_replaced(tmp_path: Path, scratch: Path) -> None:
    local.publish_file(tmp_path / "file", b"first", scratch=scratch)
    with pytest.raises(Corrupt, match="this run did not write it"):
        local.publish_file(tmp_path / "file", b"second", scratch=scratch)
    assert (tmp_path / "file").read_bytes() == b"first"
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("number", NO_HARD_LINKS)
def test_without_hard_links_a_file_is_published_all_the_same(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "link", failing(number))
    local.publish_file(tmp_path / "file", b"new", scratch=scratch)
    assert (tmp_path / "file").read_bytes() == b"new"
    assert list(scratch.iterdir()) == []


def test_without_hard_links_a_published_file_is_never_replaced(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"first")
    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    with pytest.raises(Corrupt, match="this run did not write it"):
        local.publish_file(tmp_path / "file", b"second", scratch=scratch)
    assert (tmp_path / "file").read_bytes() == b"first"
    assert list(scratch.iterdir()) == []


def test_a_link_that_fails_for_another_reason_is_an_error(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", failing(errno.EIO))
    with pytest.raises(OutputError):
        local.publish_file(tmp_path / "file", b"new", scratch=scratch)
    assert not (tmp_path / "file").exists()


def test_of_eight_writers_at_once_one_publishes(tmp_path: Path, scratch: Path) -> None:
    start = threading.Barrier(8)
    won: list[bytes] = []

    def write(number: int) -> None:
        data = b"writer %d" % number
        start.wait()
        try:
            local.publish_file(tmp_path / "file", data, scratch=scratch)
        except Corrupt:
            return
        won.append(data)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(tmp_path / "file").read_bytes()] == won


def test_a_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    local.make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()


@posix
def test_the_folder_above_each_new_folder_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = trace(monkeypatch)
    local.make_folder(tmp_path / "a" / "b")
    assert calls[1:] == [f"sync folder {tmp_path.name}", "sync folder a"]


@posix
@pytest.mark.parametrize("write", WRITERS)
def test_a_name_whose_folder_cannot_be_synced_is_taken_back(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[..., None]
) -> None:
    monkeypatch.setattr(os, "fsync", failing(errno.EIO, on_call=2))
    with pytest.raises(OutputError):
        write(tmp_path / "file", b"data", scratch=scratch)
    assert not (tmp_path / "file").exists()
    assert list(scratch.iterdir()) == []


@posix
def test_a_folder_that_is_there_is_made_safe_as_its_maker_may_have_been_killed_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = trace(monkeypatch)
    local.make_folder(tmp_path)
    assert calls == [f"sync folder {tmp_path.parent.name}"]


def test_a_folder_cannot_be_made_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        local.make_folder(tmp_path / "file" / "folder")


@posix
def test_a_published_folder_is_synced_with_its_files_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "file").write_bytes(b"four")
    calls = trace(monkeypatch)
    assert local.publish_folder(tmp_path / "new", tmp_path / "final")
    assert calls == ["sync file of 4 bytes", "sync folder new", f"sync folder {tmp_path.name}"]
    assert (tmp_path / "final" / "file").read_bytes() == b"four"


def test_of_two_folders_with_one_name_the_first_stays(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    assert local.publish_folder(tmp_path / "first", tmp_path / "final")
    assert not local.publish_folder(tmp_path / "second", tmp_path / "final")
    assert (tmp_path / "final" / "file").read_text() == "first"


def test_a_folder_that_cannot_be_published_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "final").touch()
    with pytest.raises(OutputError, match="final"):
        local.publish_folder(tmp_path / "new", tmp_path / "final")


def test_removing_takes_files_and_folders_and_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    for name in ("file", "folder", "absent"):
        local.remove(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_removing_a_link_keeps_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    local.remove(tmp_path / "link")
    assert (tmp_path / "folder").is_dir()
    assert not (tmp_path / "link").exists()


class TestCheck:
    def test_a_place_that_can_be_written_stays_as_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "there").write_text("kept")
        local.check_writable(tmp_path / "there")
        local.check_writable(tmp_path / "new")
        assert [path.name for path in tmp_path.iterdir()] == ["there"]
        assert (tmp_path / "there").read_text() == "kept"

    @posix
    @pytest.mark.parametrize("kind", ["pipe", "device"])
    def test_what_is_no_file_is_not_replaced(self, tmp_path: Path, kind: str) -> None:
        path = Path("/dev/null") if kind == "device" else tmp_path / "pipe"
        if kind == "pipe":
            os.mkfifo(path)
        with pytest.raises(OutputError, match="cannot be written: it is not a regular file; choose another place"):
            local.check_writable(path)

    @pytest.mark.parametrize("name", ["absent/file", "file/below", "."])
    def test_a_place_that_cannot_is_told(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(OutputError, match=r"cannot be written: .*; choose another place"):
            local.check_writable(tmp_path / name)


def test_scratch_folders_of_killed_processes_are_removed_in_time(tmp_path: Path) -> None:
    for name, age_s in (("stale", 10 * 3600), ("in use", 60)):
        (tmp_path / f".new-{name}").mkdir()
        (tmp_path / f".new-{name}" / "weights").touch()
        os.utime(tmp_path / f".new-{name}", (time.time() - age_s,) * 2)
    (tmp_path / ".new-file").touch()
    with local.scratch_folder(tmp_path) as scratch:
        assert scratch.parent == tmp_path
    assert sorted(path.name for path in tmp_path.iterdir()) == [".new-file", ".new-in use"]


@posix
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_that_syncs_no_folders_is_named_once_and_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    fsync = os.fsync

    def files_only(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", files_only)
    local._warn_of_folder_sync.cache_clear()
    for name in ("a", "b"):
        local.make_folder(tmp_path / name)
        local.write_file(tmp_path / name / "file", b"data", scratch=tmp_path)
        local.publish_file(tmp_path / name / "other", b"data", scratch=tmp_path)
    assert caplog.text.count("syncs no folders") == 1
    assert (tmp_path / "b" / "file").read_bytes() == b"data"
