"""Sealed files: every flipped bit is found, and what is in them comes back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedmill.base.files.sealed import Sealed, is_sealed_page, read_sealed, seal, seal_page
from tests.support.systems import make_odd


class Note(Sealed, frozen=True, kw_only=True):
    """A record like those of an output."""

    text: str = ""
    numbers: list[int] = msgspec.field(default_factory=list)
    pairs: dict[str, Any] = msgspec.field(default_factory=dict)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NOTES = st.builds(
    Note, text=TEXTS, numbers=st.lists(st.integers(-(2**60), 2**60)), pairs=st.dictionaries(TEXTS, TEXTS, max_size=3)
)


@given(note=NOTES, indent=st.sampled_from([0, 2]))
def test_a_sealed_record_comes_back_with_its_digest(
    tmp_path_factory: pytest.TempPathFactory, note: Note, indent: int
) -> None:
    sealed, data = seal(note, indent=indent)
    path = tmp_path_factory.getbasetemp() / "note.json"
    path.write_bytes(data)
    assert read_sealed(path, Note) == sealed
    assert msgspec.structs.replace(sealed, digest="") == note
    assert seal(sealed, indent=indent) == (sealed, data)


@pytest.mark.parametrize("indent", [0, 2])
def test_every_flipped_bit_of_a_record_is_found(tmp_path: Path, indent: int) -> None:
    path = tmp_path / "note.json"
    _, data = seal(Note(text='"" and more', numbers=[1, 2], pairs={"a": {}}), indent=indent)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="it is damaged"):
            read_sealed(path, Note)


@pytest.mark.parametrize("change", [b"", b" ", b"\n"])
def test_every_flipped_bit_of_a_page_is_found(tmp_path: Path, change: bytes) -> None:
    path, page = tmp_path / "page.html", seal_page("<!doctype html>\n<p>grüße</p>\n".encode(), "job")
    path.write_bytes(page)
    assert is_sealed_page(path, "job")
    assert not is_sealed_page(path, "jab")
    for bit in range(8 * len(page)):
        damaged = bytearray(page)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged + change)
        assert not is_sealed_page(path, "job")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b'{"digest":""}', b'{"text":"a"}', b"[" * 10**6])
def test_other_content_is_told_as_that(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "note.json").write_bytes(data)
    with pytest.raises(ValueError, match="damaged, or of an earlier version: it has no digest"):
        read_sealed(tmp_path / "note.json", Note)


def test_the_record_of_another_version_is_told_as_that(tmp_path: Path) -> None:
    class Other(Sealed, frozen=True, kw_only=True):
        text: int

    (tmp_path / "note.json").write_bytes(seal(Other(text=1))[1])
    with pytest.raises(ValueError, match="it is of another version: Expected `str`"):
        read_sealed(tmp_path / "note.json", Note)


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes and devices")
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_regular_file_is_not_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "note.json"
    make_odd(path, kind)
    with pytest.raises(ValueError, match="not a regular file"):
        read_sealed(path, Note)
