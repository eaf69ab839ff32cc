"""Names that every system takes, and paths that Windows takes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from embedmill.base.config import InputTable
from embedmill.base.errors import InputError, OutputError
from embedmill.base.files import names
from embedmill.base.files.names import beyond_limit, is_portable, longest_path, portable
from embedmill.sink.ledger import Ledger
from embedmill.source import discover

GOOD = ["a", "org--model", "model.v2", "com", "com10", "console", "nulls", "Modell ä", "日本", "a~b", ".x", "aux-1"]
BAD = [
    "Z:x", "a:b", "a<b", "a>b", 'a"b', "a|b", "a?b", "a*b", "a/b", "a\\b", "a\nb", "a\0b",
    "con", "CON", "nul.txt", "aux.tar.gz", "PRN", "com1", "LPT9.x", "com¹", "con .x", "CONIN$", "conout$", "a.", "a ",
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_plain_name_is_portable(name: str) -> None:
    assert is_portable(name)
    assert portable(name) == name


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_windows_refuses_is_not_portable(name: str) -> None:
    assert not is_portable(name)


@pytest.mark.parametrize("name", BAD)
def test_a_suffix_makes_any_name_portable(name: str) -> None:
    assert is_portable(f"{portable(name)}-0123")


@pytest.fixture
def _short_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(names, "longest_path", lambda: len(str(tmp_path)) + 100)


@pytest.mark.usefixtures("_short_paths")
def test_an_output_too_deep_for_windows_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 50)
    with pytest.raises(OutputError, match=r"Windows takes paths of .*; choose a shorter one, write it as .*LongPaths"):
        Ledger(folder).__enter__()
    assert not folder.exists()
    with Ledger(tmp_path / ("x" * 20)) as ledger:
        written = [os.path.relpath(path, ledger.folder) for path in ledger.folder.rglob("*")]
    assert written


@pytest.mark.usefixtures("_short_paths")
def test_an_input_too_long_for_windows_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Windows takes paths of"):
        discover(InputTable(paths=(str(tmp_path / ("x" * 120) / "a.jsonl"),)))
    with pytest.raises(InputError, match="check the path"):
        discover(InputTable(paths=(str(tmp_path / "a.jsonl"),)))


@pytest.mark.usefixtures("_short_paths")
def test_what_is_written_in_the_long_form_has_no_limit(tmp_path: Path) -> None:
    assert beyond_limit(tmp_path / ("x" * 120))
    assert beyond_limit(Path("\\\\?\\C:\\" + "x" * 400)) == ""


@pytest.mark.skipif(os.name == "nt", reason="Windows has a limit unless its registry says otherwise")
def test_other_systems_have_no_such_limit() -> None:
    assert longest_path() is None
