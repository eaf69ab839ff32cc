"""Names and values with quotes, escapes and line ends: taken as they are, and shown on one line."""

from __future__ import annotations

import glob
import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import duckdb
import pytest

from embedmill.base.streams import Console, one_line
from tests.support.jobs import embedmill, make_rows, write_jsonl
from tests.support.running import build

ESCAPE, CONTROL = "\x1b[31mred\x07", re.compile("(?![\\n\\t])[\\0-\\x1f\\x7f-\\x9f\\u202e]")
pytestmark = pytest.mark.hostile
NAMES = ["out🚀", 'o"ut', "o'ut", "[1]", "1", "true", "{a = 1}", " x ", "a=b", "$HOME", "`id`", "o;ut", "--x"]
ODD = [f"{ESCAPE}", "two\nlines", "back\rward", "right\u202eleft", "c1\x9b2J"]


@pytest.fixture
def words(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    write_jsonl(tmp_path / "a.jsonl", make_rows(5))
    build(tiny_model, tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)
    return ["--input", "a.jsonl", "--model", str(tmp_path / "bundle"), "--provider", "cpu"]


@pytest.mark.parametrize("name", NAMES)
def test_an_option_is_a_value_and_no_text_to_be_parsed(
    tmp_path: Path, words: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embedmill("run", *words, f"--output={name}", "--quiet") == 0
    assert (tmp_path / name / "_manifest.json").is_file()
    [command] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("read them: ")]
    # What a shell makes of it is what DuckDB gets.
    if os.name != "nt":
        script = f"printf '%s\\0' {command.removeprefix('read them: ')}"
        found = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
        query = found.split("\0")[2]
        assert shlex.split(command)[-1] == query
        assert f"'{glob.escape(name).replace(chr(39), chr(39) * 2)}/*.parquet'" in query
        assert len(duckdb.execute(query).fetchall()) == 5


@pytest.mark.skipif(os.name == "nt", reason="no such names there")
@pytest.mark.parametrize("name", ODD)
def test_what_a_name_does_to_a_terminal_is_shown_escaped(
    tmp_path: Path, words: list[str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*make_rows(2), {"id": name, "text": None}, {"id": name, "text": name}]
    write_jsonl(tmp_path / f"{name}.jsonl", rows)
    (tmp_path / f"a.{name}").touch()
    job = ["--input", str(tmp_path), *words[2:], "--output", name, "--set", "rows.malformed=fail"]
    commands = [
        ["run", *job, "--max-quarantined", "1"],
        ["run", *job],
        ["run", *job, "--set", f"{name}=1"],
        ["run", *job, "--model", name],
        ["run", *job, "--input", name],
        ["plan", *job],
        ["verify", name],
        ["verify", str(tmp_path / name / name)],
        ["report", name],
        ["model", "add", name],
        ["model", "show", name],
        ["bench", *job, "--texts", "2", "--rounds", "1"],
        [name],
    ]
    (tmp_path / name).mkdir()
    (tmp_path / name / f"{name}.parquet").unlink(missing_ok=True)
    for command in commands:
        embedmill(*command)
        if command[0] == "run" and (tmp_path / name / "_ledger").is_dir():
            (tmp_path / name / f"{name}.parquet").touch()
        told = capsys.readouterr()
        assert CONTROL.search(told.out + told.err) is None, command
        said = [line for line in told.err.splitlines() if re.match(r"\w+(Error|Quarantined|Corrupt|Mismatch): ", line)]
        assert len(said) <= 1, command
        assert not [line for line in (told.out + told.err).splitlines() if line.startswith("lines")], command


@pytest.mark.parametrize("name", ODD)
def test_one_line_keeps_all_that_is_no_control_character(name: str) -> None:
    assert "\n" not in one_line(name)
    assert CONTROL.search(one_line(name)) is None
    assert one_line("Ünïcödé 東京 🚀 a\u200db \\n") == "Ünïcödé 東京 🚀 a\u200db \\n"
    assert json.loads(f'"{one_line(name)}"'.replace("\\x", "\\u00")) == name


def test_a_console_lets_lines_and_bars_through(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="utf-8", newline="") as stream:
        Console(stream).write("a\r\tb\n\x1b[0m\u202e")
    assert (tmp_path / "out").read_bytes() == b"a\r\tb\n\\x1b[0m\\u202e"
