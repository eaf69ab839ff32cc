"""A command that ends with an error says so in one line, in words or in JSON, and nothing beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from embedmill.base.records import Batch, Tokens
from embedmill.engine.sessions.session import pad
from embedmill.sink.verify import verify
from tests.hostile.command import Cli
from tests.support.jobs import (
    embedmill,
    finish,
    make_config,
    make_rows,
    start,
    words_of,
    write_jsonl,
)


class TestJson:
    def test_a_result_is_one_object_on_standard_output(self, cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
        assert embedmill(*cli.words("--json")) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["totals"]["rows_written"] == 10
        assert result["output"] == str(cli.output)

    def test_an_error_is_one_object_on_standard_error(self, cli: Cli) -> None:
        line = cli.refused(3, *cli.words("--json", source=cli.folder / "absent.jsonl"))
        error = json.loads(line)
        assert sorted(error) == ["error", "exit_code", "message"]
        assert (error["error"], error["exit_code"]) == ("InputError", 3)
        assert "absent.jsonl" in error["message"]

    def test_a_wrong_option_is_an_object_too(self, cli: Cli) -> None:
        error = json.loads(cli.refused(2, "run", "--json", "--no-such-option"))
        assert error["exit_code"] == 2
        assert "--no-such-option" in error["message"]


class TestProcess:
    """A few of the above with nothing between the test and the program."""

    def test_a_refused_command_ends_with_one_line_and_its_code(self, cli: Cli) -> None:
        code, output, errors = finish(start(cli.words(source=cli.folder / "absent.jsonl")))
        assert (code, output) == (3, "")
        assert errors.startswith(f"InputError: {cli.folder / 'absent.jsonl'}: no such file or folder")
        assert errors.count("\n") == 1

    def test_too_many_bad_rows_end_with_one_line_and_everything_written(self, cli: Cli) -> None:
        write_jsonl(cli.source, [*make_rows(10), {"id": "bad", "text": 5}])
        code, output, errors = finish(start(cli.words()))
        assert (code, output) == (7, "")
        assert errors.count("\n") == 1
        assert verify(cli.output).complete

    @pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
    def test_a_reader_that_went_away_is_no_traceback(self, cli: Cli) -> None:
        command = [sys.executable, "-m", "embedmill", *map(str, cli.words())]
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        os.close(writing)
        assert "Traceback" not in done.stderr
        assert verify(cli.output).complete


def test_a_runtime_that_fails_says_nothing_beside_the_one_line(
    tmp_path: Path, tiny_model: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime logs to the descriptor itself; token numbers that the model lacks make its batch of 3 fail."""

    def no_tokens(tokens: Tokens, batch: Batch, pad_id: int) -> tuple[Any, Any]:
        ids, mask = pad(tokens, batch, pad_id)
        return ids + 1_000_000 * (batch.size == 3), mask

    monkeypatch.setattr("embedmill.engine.sessions.session.pad", no_tokens)
    source = write_jsonl(tmp_path / "a.jsonl", make_rows(3))
    assert embedmill(*words_of(make_config(tiny_model, source, tmp_path / "out")), "--quiet") == 5
    told = capfd.readouterr()
    assert told.out == ""
    [line] = told.err.splitlines()
    assert line.startswith("DeviceError: cpu failed on a batch of 3 x ")
