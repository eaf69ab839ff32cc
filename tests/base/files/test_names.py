"""Names that every system takes."""

from __future__ import annotations

import pytest

from embedmill.base.files.names import is_portable, portable

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
