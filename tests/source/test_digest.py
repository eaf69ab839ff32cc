"""A digest identifies content: all of a small file, samples of a large one."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from embedmill.base.config import MIB
from embedmill.source.digest import FILES_PER_TASK, WHOLE_BYTES, digest, digests


def sparse(path: Path, size: int, **written: bytes) -> str:
    with path.open("wb") as file:
        file.truncate(size)
        for at, data in written.items():
            file.seek(int(at.removeprefix("at")))
            file.write(data)
    return digest(str(path), size)


def test_a_small_file_is_hashed_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    assert digest(str(tmp_path / "a"), 5) == "sha256:" + hashlib.sha256(b"hello").hexdigest()


def test_a_large_file_is_sampled_from_its_first_to_its_last_byte(tmp_path: Path) -> None:
    size = 2 * WHOLE_BYTES
    zeros = sparse(tmp_path / "a", size)
    assert zeros.startswith("sampled-sha256:")
    assert zeros != sparse(tmp_path / "b", size, at0=b"x")
    assert zeros != sparse(tmp_path / "b", size, **{f"at{size - 1}": b"x"})
    assert zeros != sparse(tmp_path / "b", size, **{f"at{(size - MIB) // 63}": b"x"})
    assert zeros != sparse(tmp_path / "b", size + 1)


def test_digests_keep_the_order(tmp_path: Path) -> None:
    names = [f"{number:04}" for number in range(2 * FILES_PER_TASK + 1)]
    for name in names:
        (tmp_path / name).write_text(name)
    paths = [(str(tmp_path / name), 4) for name in names]
    assert digests(paths) == [digest(path, size) for path, size in paths]


@pytest.mark.skipif(sys.platform != "linux", reason="a file that can be opened and not read")
def test_a_read_that_fails_names_the_file() -> None:
    with pytest.raises(OSError, match="/proc/self/mem"):
        digest("/proc/self/mem", 1)
