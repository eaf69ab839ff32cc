"""The commands of `embedmill model`."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.support.exports import write_positioned
from tests.support.jobs import embedmill, make_rows, write_jsonl
from tests.support.tiny_model import write_tiny_model


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDMILL_HOME", str(tmp_path / "home"))


def test_a_folder_is_added_listed_shown_and_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_tiny_model(tmp_path / "small", prompts={"query": "the river "})
    assert embedmill("model", "add", model, "--name", "org/mine", "--dim", "16") == 0
    added = capsys.readouterr().out
    assert added.startswith("org/mine (folder small)\n  16 dimensions, mean pooling, normalised, at most 32 tokens")
    assert embedmill("model", "list") == 0
    assert capsys.readouterr().out == added
    assert embedmill("model", "show", "org/mine") == 0
    assert capsys.readouterr().out == added
    source = write_jsonl(tmp_path / "a.jsonl", make_rows(3))
    line: list[str | Path] = [
        "run",
        "--model",
        "org/mine",
        "--input",
        source,
        "--output",
        tmp_path / "out",
        "--quiet",
    ]
    assert embedmill(*line) == 0


def test_the_list_is_json_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    embedmill("model", "add", write_tiny_model(tmp_path / "small"))
    capsys.readouterr()
    assert embedmill("model", "list", "--json") == 0
    [bundle] = json.loads(capsys.readouterr().out)
    assert (bundle["card"]["name"], bundle["card"]["dim"]) == ("small", 32)


def test_an_empty_list_says_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    assert embedmill("model", "list") == 0
    assert "`embedmill model add`" in capsys.readouterr().out


def test_a_model_that_is_not_there_ends_with_4(capsys: pytest.CaptureFixture[str]) -> None:
    assert embedmill("model", "show", "absent") == 4
    assert capsys.readouterr().err.count("\n") == 1


def test_a_place_that_is_nothing_ends_with_4(capsys: pytest.CaptureFixture[str]) -> None:
    assert embedmill("model", "add", "nothing here") == 4
    assert "is neither a folder, a wheel nor a hub name" in capsys.readouterr().err


def test_a_failed_addition_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_tiny_model(tmp_path / "small")
    (model / "tokenizer.json").unlink()
    assert embedmill("model", "add", model) == 4
    assert list((tmp_path / "home" / "models").iterdir()) == []


def test_a_run_cuts_texts_at_what_a_graph_of_514_positions_takes(tmp_path: Path) -> None:
    """Like RoBERTa's, whose config states 514 and which takes 512: the first long text ended the run."""
    model = write_positioned(tmp_path / "model", 514, max_tokens=514)
    rows = [{"id": str(words), "text": "river " * words} for words in (3, 510, 511, 600)]
    source, output = write_jsonl(tmp_path / "a.jsonl", rows), tmp_path / "out"
    assert embedmill("run", "--model", model, "--input", source, "--output", output, "--quiet") == 0
    table = pq.read_table(output / "part-00000.parquet")
    assert table["n_tokens"].to_pylist() == [5, 512, 512, 512]
    assert table["truncated"].to_pylist() == [False, False, True, True]
