"""What Windows says of files that others hold, and of file systems that lack something."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedmill.base.errors import OutputError
from embedmill.base.files import local
from embedmill.base.files.failures import has_no_hard_links, is_disk_full

ACCESS_DENIED, SHARING_VIOLATION, LOCK_VIOLATION = 5, 32, 33
WRITERS = {"replace": local.write_file, "link": local.publish_file}


def windows_error(number: int, posix: int = errno.EINVAL) -> OSError:
    """Return an error as Windows' Python raises it."""
    error = OSError(posix, "words of Windows")
    error.winerror = number  # type: ignore[attr-defined,unused-ignore]
    return error


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses that were made, in no time."""
    made: list[float] = []
    monkeypatch.setattr(time, "sleep", made.append)
    return made


def held(call: Callable[..., Any], *, times: float, number: int) -> Callable[..., Any]:
    """A call that fails so many times, because somebody holds the file."""
    failed = 0

    def attempt(*arguments: Any, **options: Any) -> Any:
        nonlocal failed
        if failed < times:
            failed += 1
            raise windows_error(number, errno.EACCES)
        return call(*arguments, **options)

    return attempt


@pytest.mark.parametrize("number", [ACCESS_DENIED, SHARING_VIOLATION, LOCK_VIOLATION])
@pytest.mark.parametrize("name", ["replace", "link", "unlink"])
def test_a_file_that_is_held_for_a_moment_is_written(
    tmp_path: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    # Path.unlink calls os.unlink.
    monkeypatch.setattr(os, name, held(getattr(os, name), times=4, number=number))
    write = WRITERS.get(name, local.publish_file)
    write(tmp_path / "file", b"new", scratch=tmp_path)
    assert (tmp_path / "file").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert len(pauses) == 4


@pytest.mark.parametrize("name", ["replace", "link"])
def test_a_file_that_is_held_for_long_is_told_after_five_seconds(
    tmp_path: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(os, name, held(getattr(os, name), times=10**6, number=SHARING_VIOLATION))
    with pytest.raises(OutputError, match="cannot be written: words of Windows"):
        WRITERS[name](tmp_path / "file", b"new", scratch=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert 4 < sum(pauses) < 7


def test_a_temporary_file_that_is_held_for_long_costs_no_shard(
    tmp_path: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "unlink", held(os.unlink, times=10**6, number=SHARING_VIOLATION))
    local.publish_file(tmp_path / "file", b"new", scratch=tmp_path)
    assert (tmp_path / "file").read_bytes() == b"new"


def test_other_failures_are_told_at_once(tmp_path: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", held(os.replace, times=10**6, number=87))
    with pytest.raises(OutputError):
        local.write_file(tmp_path / "file", b"new", scratch=tmp_path)
    assert pauses == []


def test_a_folder_with_a_file_that_is_held_is_published(
    tmp_path: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made").mkdir()
    monkeypatch.setattr(os, "rename", held(os.rename, times=3, number=ACCESS_DENIED))
    assert local.publish_folder(tmp_path / "made", tmp_path / "there")
    assert len(pauses) == 3


def test_a_folder_that_is_there_already_is_not_waited_for(
    tmp_path: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.setattr(os, "rename", held(os.rename, times=10**6, number=ACCESS_DENIED))
    assert not local.publish_folder(tmp_path / "made", tmp_path / "there")
    assert pauses == []


def test_a_folder_with_a_file_that_is_held_is_removed(
    tmp_path: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").mkdir()
    monkeypatch.setattr(shutil, "rmtree", held(shutil.rmtree, times=2, number=SHARING_VIOLATION))
    local.remove(tmp_path / "old")
    assert not (tmp_path / "old").exists()


@pytest.mark.parametrize(
    ("error", "full", "no_links"),
    [
        (windows_error(1), False, True),
        (windows_error(50), False, True),
        (windows_error(1142), False, True),
        (windows_error(39), True, False),
        (windows_error(112, errno.ENOSPC), True, False),
        (windows_error(87), False, False),
        (OSError(errno.EINVAL, "posix"), False, False),
        (OSError(errno.ENOSPC, "posix"), True, False),
        (OSError(errno.EPERM, "posix"), False, True),
    ],
)
def test_failures_are_known_by_the_numbers_of_both_systems(error: OSError, full: bool, no_links: bool) -> None:
    assert (is_disk_full(error), has_no_hard_links(error)) == (full, no_links)


@pytest.mark.parametrize("number", [1, 50, 1142])
def test_without_hard_links_under_windows_a_file_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def no_links(*_: object) -> None:
        raise windows_error(number)

    monkeypatch.setattr(os, "link", no_links)
    local.publish_file(tmp_path / "file", b"new", scratch=tmp_path)
    assert (tmp_path / "file").read_bytes() == b"new"
