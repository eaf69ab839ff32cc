"""A digest is of the whole content, and a file that changes after it is noticed."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from embedmill.base.errors import InputError
from embedmill.base.records import InputFile
from embedmill.source.digest import FILES_PER_TASK, is_unchanged, with_digest, with_digests


def input_file(path: Path) -> InputFile:
    return InputFile(path=str(path), name=path.name, format="jsonl", compression="", size_bytes=0, digest="")


def test_a_file_is_hashed_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    found = with_digest(input_file(tmp_path / "a"))
    assert found.digest == "sha256:" + hashlib.sha256(b"hello").hexdigest()
    assert found.size_bytes == 5


def test_a_byte_anywhere_in_a_large_file_is_of_the_digest(tmp_path: Path) -> None:
    size, found = 130 << 20, set()
    for at in (0, 1, 70_000_001, size - 1):
        with (tmp_path / "a").open("wb") as file:
            file.truncate(size)
            file.seek(at)
            file.write(b"x")
        found.add(with_digest(input_file(tmp_path / "a")).digest)
    assert len(found) == 4


def test_digests_keep_the_order(tmp_path: Path) -> None:
    names = [f"{number:04}" for number in range(2 * FILES_PER_TASK + 1)]
    for name in names:
        (tmp_path / name).write_text(name)
    found = with_digests([input_file(tmp_path / name) for name in names])
    assert [file.digest for file in found] == [f"sha256:{hashlib.sha256(name.encode()).hexdigest()}" for name in names]


@pytest.mark.skipif(sys.platform != "linux", reason="a file that can be opened and not read")
def test_a_read_that_fails_names_the_file() -> None:
    with pytest.raises(InputError, match="/proc/self/mem: cannot be read: Input/output error"):
        with_digest(input_file(Path("/proc/self/mem")))


def rewritten(path: Path) -> None:
    path.write_bytes(b"other")


def rewritten_within(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"x")


def rewritten_at_the_old_time(path: Path) -> None:
    status = path.stat()
    rewritten(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replaced(path: Path) -> None:
    (path.parent / "new").write_bytes(b"hello")
    (path.parent / "new").replace(path)


def replaced_at_the_old_time(path: Path) -> None:
    status = path.stat()
    replaced(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGES = [rewritten, rewritten_within, rewritten_at_the_old_time, replaced, replaced_at_the_old_time, Path.unlink]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_right_after_the_digest_is_noticed_though_size_and_time_are_kept(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    if os.name == "nt" and change in (rewritten_at_the_old_time, replaced_at_the_old_time):
        pytest.skip("there is no time of the entry's change")
    # Many times, because times of files go on in steps.
    for number in range(10):
        path = tmp_path / f"{number}"
        path.write_bytes(b"hello")
        found = with_digest(input_file(path))
        assert is_unchanged(found)
        change(path)
        assert not is_unchanged(found)
