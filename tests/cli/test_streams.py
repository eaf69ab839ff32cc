"""Standard streams that are closed, full, left or of another encoding: the job is done, and the exit code says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_main import LEAVES
from tests.support.jobs import (
    embedmill,
    ids_of,
    make_config,
    make_rows,
    quarantined_in,
    tiny_bundle,
    words_of,
    write_jsonl,
)
from tests.support.streams import CLOSED, FULL, LEFT, Command, commands, run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a POSIX shell, and /dev/full")

STATES = (*CLOSED, *FULL, *LEFT)
NAMES = (
    "run",
    "quarantine",
    "no input",
    "no model",
    "plan",
    "plan --json",
    "tune",
    "tune --show",
    "bench",
    "doctor",
    "verify",
    "verify nothing",
    "report",
    "model add",
    "model list",
    "model show",
    "--help",
    "--version",
    "no command",
    "wrong usage",
)
# One of each kind: work that is kept, work that is only printed, an error; closed, full, left.
QUICK = (
    ("run", ">/dev/full 2>&1"),
    ("quarantine", ">&- 2>&-"),
    ("plan", ">/dev/full"),
    ("model list", "<&- >&- 2>&-"),
    ("model list", "2>/dev/full"),
    ("model list", "| true"),
    ("model list", "1</dev/null"),
    ("--help", ">/dev/full"),
    ("wrong usage", "<&- >&- 2>&-"),
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Command]:
    return commands(tmp_path_factory.mktemp("streams"), tiny_model)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"EMBEDMILL_HOME": str(tmp_path / "home")}


def check(command: Command, state: str, environment: dict[str, str]) -> None:
    code, printed = run(command.words, state, environment)
    assert code == command.expected(state), printed
    assert "Traceback" not in printed
    assert "Logging error" not in printed


def test_the_table_has_every_command_and_every_command_a_row(table: dict[str, Command]) -> None:
    assert tuple(table) == NAMES
    assert [
        words for words in LEAVES if not any(tuple(row.words[: len(words)]) == words for row in table.values())
    ] == []


@pytest.mark.parametrize(("name", "state"), QUICK)
def test_the_exit_code_says_what_was_done(
    table: dict[str, Command], environment: dict[str, str], name: str, state: str
) -> None:
    check(table[name], state, environment)


@pytest.mark.hostile
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", NAMES)
def test_every_command_in_every_state(
    table: dict[str, Command], environment: dict[str, str], name: str, state: str
) -> None:
    check(table[name], state, environment)


def test_what_cannot_be_printed_is_told_on_the_other_stream(
    table: dict[str, Command], environment: dict[str, str]
) -> None:
    assert run(table["model list"].words, ">/dev/full", environment)[1] == (
        "OutputError: the result cannot be printed, standard output fails: No space left on device; send it to a file"
        " with space\n"
    )
    assert "all is done, but the result cannot be printed" in run(table["report"].words, ">/dev/full", environment)[1]


@pytest.mark.parametrize("state", ["<&- >&- 2>&-", "2>&1 | true"])
def test_a_run_whose_streams_are_gone_is_whole(tmp_path: Path, tiny_model: Path, state: str) -> None:
    """Nothing that a library prints goes into a file that has taken the number of a closed stream."""
    rows = [*make_rows(8), {"id": "→", "text": None}]
    config = make_config(tiny_model, write_jsonl(tmp_path / "a.jsonl", rows), tmp_path / "out", shard={"rows": 3})
    assert run(words_of(config), state)[0] == 7
    assert ids_of(tmp_path / "out") == [row["id"] for row in rows[:-1]]
    assert [row["id"] for row in quarantined_in(tmp_path / "out")] == ["→"]


ENCODINGS = {
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "ascii": {"PYTHONIOENCODING": "ascii:strict"},
    "utf-16": {"PYTHONIOENCODING": "utf-16-le"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.mark.parametrize("encoding", ["cp1252", "C"])
def test_names_that_a_console_cannot_show_are_escaped(tmp_path: Path, tiny_model: Path, encoding: str) -> None:
    source = write_jsonl(tmp_path / "文書" / "日本語→.jsonl", make_rows(4))
    config = make_config(tiny_model, source, tmp_path / "out→")
    code, printed = run(words_of(config), "", os.environ | ENCODINGS[encoding])
    assert code == 0, printed
    assert f"vectors: {tmp_path}/out\\u2192/*.parquet (4 vectors" in printed
    assert len(ids_of(tmp_path / "out→")) == 4


@pytest.mark.hostile
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", NAMES)
def test_every_command_on_every_console(
    table: dict[str, Command], environment: dict[str, str], name: str, encoding: str
) -> None:
    check(table[name], "", environment | ENCODINGS[encoding])


@pytest.mark.parametrize("option", ["--input", "--output", "--model"])
def test_a_name_that_is_not_utf8_is_refused_and_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    place = tmp_path / os.fsdecode(b"caf\xe9") / "a.jsonl"
    assert embedmill("run", option, place) == 2
    assert (
        f"'{tmp_path}/caf\\udce9/a.jsonl' is not valid UTF-8; correct it, or rename the file or folder"
        in capsys.readouterr().err
    )


def test_a_model_whose_name_is_not_utf8_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert embedmill("model", "add", tmp_path / os.fsdecode(b"caf\xe9")) == 4
    assert "caf\\udce9' is not valid UTF-8" in capsys.readouterr().err


def test_options_take_emoji(tmp_path: Path, tiny_model: Path) -> None:
    source, output = write_jsonl(tmp_path / "😀.jsonl", make_rows(2)), tmp_path / "📁"
    assert embedmill("run", "--model", tiny_bundle(tiny_model), "--input", source, "--output", output) == 0
    assert len(ids_of(output)) == 2


API = """
import io, os, sys
state, words = sys.argv[1], sys.argv[2:]
real = os.dup(2)
if state == "closed":
    os.closerange(0, 3)
sys.stdin = sys.stdout = sys.stderr = None
if state == "left":
    reading, writing = os.pipe()
    os.close(reading)
    sys.stdout = sys.stderr = os.fdopen(writing, "w")
if state == "shut":
    sys.stdout = sys.stderr = io.StringIO()
    sys.stderr.close()
import embedmill
done = embedmill.run(embedmill.load_config(None, words))
held = [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]
with embedmill.Embedder(words[0].partition("=")[2]) as embedder:
    shape = embedder.embed(["one", "two"]).shape
os.write(real, f"{done.totals.rows_written} {shape} {held if state == 'closed' else ''}".encode())
os._exit(0)
"""


@pytest.mark.parametrize(
    "state", ["closed", *(pytest.param(state, marks=pytest.mark.hostile) for state in ("none", "left", "shut"))]
)
def test_a_library_call_needs_no_streams(tmp_path: Path, tiny_model: Path, state: str) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", make_rows(4))
    words = [f"model={tiny_bundle(tiny_model)}", f'input.paths=["{source}"]', f"output.path={tmp_path / 'out'}"]
    done = subprocess.run([sys.executable, "-c", API, state, *words], capture_output=True, text=True, check=False)
    held = "['/dev/null', '/dev/null', '/dev/null']" if state == "closed" else ""
    assert (done.returncode, done.stderr) == (0, f"4 (2, 32) {held}")
