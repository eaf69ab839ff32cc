"""The Windows Python under Wine is laid out from what its parts export, and checked by README's own lines."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from hardware.windows.checks import CHECKS, powershell_lines, skipped
from hardware.windows.exports import exports
from hardware.windows.layout import COMPLEX

HEADER, SECTION, TABLE = 0x40, 0x148, 0x200
README = Path(__file__).parents[2] / "README.md"


def dll(names: dict[str, int]) -> bytes:
    """A file with the headers of a DLL, one section, and functions at the given addresses."""
    image = bytearray(0x800)
    struct.pack_into("<I", image, 0x3C, HEADER)
    struct.pack_into("<H", image, HEADER + 6, 1)
    struct.pack_into("<H", image, HEADER + 20, SECTION - HEADER - 24)
    struct.pack_into("<II", image, HEADER + 24 + 112, 0x1000, 0x400)
    struct.pack_into("<8sIIII", image, SECTION, b".edata", 0x600, 0x1000, 0x600, TABLE)
    # Below the directory: addresses of functions, of names, ordinals, then the names.
    count, texts = len(names), TABLE + 0x100
    struct.pack_into("<IIII", image, TABLE + 24, count, 0x1040, 0x1060, 0x1080)
    for index, (name, address) in enumerate(sorted(names.items())):
        struct.pack_into("<I", image, TABLE + 0x40 + 4 * index, address)
        struct.pack_into("<I", image, TABLE + 0x60 + 4 * index, 0x1000 + texts - TABLE)
        struct.pack_into("<H", image, TABLE + 0x80 + 2 * index, index)
        image[texts : texts + len(name)] = name.encode()
        texts += len(name) + 1
    return bytes(image)


def test_exports_are_own_functions_or_those_of_other_libraries() -> None:
    assert exports(dll({"cexp": 0x1500, "forwarded": 0x1200})) == {"cexp": TABLE + 0x500, "forwarded": None}


def test_each_complex_function_has_three_kinds() -> None:
    assert {"cexp", "cexpf", "cexpl", "cabs", "cpowf"} <= COMPLEX
    assert len(COMPLEX) == 63


def test_readme_has_a_first_run_for_powershell() -> None:
    lines = powershell_lines(README.read_text("utf-8"))
    assert lines[0].startswith("py -3 -m venv")
    assert lines[-1].endswith("embedmill run configs/default.toml")
    with pytest.raises(AssertionError, match="no lines for PowerShell"):
        powershell_lines("nothing")


def test_each_check_has_a_name() -> None:
    assert {"readme", "kills", "directml", "tests"} <= CHECKS.keys()


def test_skips_are_counted_by_their_reason() -> None:
    lines = [
        "SKIPPED [2] tests/a.py:11: no links: none here",
        "SKIPPED [3] tests\\b.py:7: no links: none here",
        "SKIPPED [1] tests/c.py: could not import 'resource'",
        "5 passed, 6 skipped in 1.00s",
    ]
    assert skipped(lines) == ["5 skipped: no links: none here", "1 skipped: could not import 'resource'"]
