"""Input paths that mean harm, or look as if: refused or defined before anything is read, and never a hang."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.hostile.forks import Ending, Forks
from tests.support.jobs import make_rows, write_jsonl
from tests.support.systems import make_odd


def refused(ending: Ending, *words: str) -> None:
    assert (ending.error, ending.exit_code) == ("InputError", 3), ending.words
    assert all(word in ending.words for word in words), ending.words


@pytest.mark.parametrize("place", ["/dev/zero", "/dev/stdin", "/dev/random", "/proc/self/mem"])
def test_a_device_is_refused(forks: Forks, place: str) -> None:
    refused(forks.read(place), place)


@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
@pytest.mark.parametrize("named", ["file", "folder", "glob"])
def test_what_is_no_file_is_refused_however_it_is_named(forks: Forks, tmp_path: Path, kind: str, named: str) -> None:
    trap = tmp_path / "a.jsonl"
    make_odd(trap, kind)
    path = {"file": trap, "folder": tmp_path, "glob": tmp_path / "*.jsonl"}[named]
    refused(forks.read(path), str(trap), "not a regular file")


def test_links_in_a_circle_are_refused_by_name(forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").symlink_to("b.jsonl")
    (tmp_path / "b.jsonl").symlink_to("a.jsonl")
    for path in (tmp_path, tmp_path / "a.jsonl", tmp_path / "*.jsonl"):
        refused(forks.read(path), "symbolic links")


@pytest.mark.parametrize("depth", ["**", "**/*.jsonl", ""])
def test_folders_linked_in_a_circle_are_read_once(forks: Forks, tmp_path: Path, depth: str) -> None:
    write_jsonl(tmp_path / "in/a.jsonl", make_rows(3))
    (tmp_path / "in/again").symlink_to("..", target_is_directory=True)
    (tmp_path / "in/self").symlink_to(".", target_is_directory=True)
    assert forks.read(tmp_path / "in" / depth).rows_written == 3


def test_a_link_out_of_the_folder_is_read_as_the_file_that_it_names(forks: Forks, tmp_path: Path) -> None:
    """The user's own link says what is meant; a file that is linked twice is read once."""
    secret = write_jsonl(tmp_path / "elsewhere/b.jsonl", make_rows(3))
    (tmp_path / "in").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / "in" / name).symlink_to(secret)
    assert forks.read(tmp_path / "in").rows_written == 3


def test_dots_in_a_path_are_resolved_and_read_once(forks: Forks, tmp_path: Path) -> None:
    plain = write_jsonl(tmp_path / "in/a.jsonl", make_rows(3))
    assert forks.read(tmp_path / "in/../in/./a.jsonl", plain).rows_written == 3


@pytest.mark.parametrize("name", ["a\nb", "'; DROP", "$(touch x)", "-r", "漢 🎉", "a" * 240, "[x]*?", "\x1b[2J", "%s"])
def test_an_odd_name_is_a_name_like_any_other(forks: Forks, tmp_path: Path, name: str) -> None:
    path = write_jsonl(tmp_path / f"{name}.jsonl", make_rows(3))
    assert forks.read(path).rows_written == 3
    assert forks.read(tmp_path).rows_written == 3


@pytest.mark.parametrize("path", ["a" * 5000, "", "\n", "~nobody/x.jsonl", "file:///etc/passwd"])
def test_a_path_that_cannot_be_one_is_refused(forks: Forks, path: str) -> None:
    refused(forks.read(path))


def test_a_pipe_beside_good_files_is_refused_before_any_is_read(forks: Forks, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", make_rows(3))
    os.mkfifo(tmp_path / "b.jsonl")
    refused(forks.read(tmp_path), "b.jsonl")
