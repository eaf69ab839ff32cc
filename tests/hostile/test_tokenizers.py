"""Tokenizers that fail on some text or on all, as panics of Rust and otherwise."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import embedmill as library
from embedmill.base.errors import ModelError
from tests.hostile.command import Cli
from tests.support.jobs import embedmill, ids_of, make_config, quarantined_in, tiny_bundle, words_of, write_jsonl
from tests.support.tiny_model import write_tiny_model

pytestmark = pytest.mark.hostile

# The search of this pattern gives up on this text, and on no shorter one.
PATTERN, FATAL = "Q(a|a)*b", "Q" + "a" * 60


@pytest.fixture
def fragile(tmp_path: Path) -> Path:
    """A model whose tokenizer panics on one kind of text."""
    model = write_tiny_model(tmp_path / "fragile")
    place = model / "tokenizer.json"
    tokenizer = json.loads(place.read_text("utf-8"))
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"Regex": PATTERN}, "content": "x"}
    place.write_text(json.dumps(tokenizer), "utf-8")
    return model


@pytest.mark.parametrize("chunk_tokens", [0, 16])
def test_a_text_that_a_tokenizer_fails_on_is_set_aside(
    tmp_path: Path, fragile: Path, capfd: pytest.CaptureFixture[str], chunk_tokens: int
) -> None:
    rows = [{"id": str(number), "text": FATAL if number in (3, 13) else "the river"} for number in range(20)]
    source = write_jsonl(tmp_path / "a.jsonl", rows)
    text = {"chunk_tokens": chunk_tokens}
    config = make_config(fragile, source, tmp_path / "out", shard={"rows": 5}, text=text)
    assert embedmill(*words_of(config), "--quiet") == 7
    assert "Traceback" not in capfd.readouterr().err
    assert [row["id"] for row in quarantined_in(tmp_path / "out")] == ["3", "13"]
    assert all("the tokenizer fails on it: Onig" in row["reason"] for row in quarantined_in(tmp_path / "out"))
    assert len(set(ids_of(tmp_path / "out"))) == 18
    assert embedmill("verify", tmp_path / "out") == 0


def test_a_prompt_that_a_tokenizer_fails_on_blames_no_row(
    tmp_path: Path, fragile: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"id": str(number), "text": "the river"} for number in range(5)])
    for chunk_tokens in (0, 16):
        text = {"chunk_tokens": chunk_tokens, "prompt": FATAL}
        config = make_config(fragile, source, tmp_path / f"out-{chunk_tokens}", text=text)
        assert embedmill(*words_of(config), "--quiet") == 4
        assert "encodes no text after the prompt" in capfd.readouterr().err


def test_a_tokenizer_that_fails_on_test_texts_is_refused_with_the_model(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    tokenizer = json.loads((model / "tokenizer.json").read_text("utf-8"))
    tokenizer["model"]["unk_token"] = "[NOPE]"
    (model / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    with pytest.raises(ModelError, match=r"its tokenizer (fails on a test text|encodes no text)"):
        library.embed(["the river"], model=str(model), provider="cpu")


def test_many_texts_that_a_tokenizer_fails_on_cost_one_search_for_each_shard(tmp_path: Path, fragile: Path) -> None:
    rows = [{"id": str(number), "text": FATAL if number % 3 else "the river"} for number in range(120)]
    source = write_jsonl(tmp_path / "a.jsonl", rows)
    config = make_config(fragile, source, tmp_path / "out", shard={"rows": 40}, rows={"max_quarantined": 120})
    assert embedmill(*words_of(config), "--quiet") == 0
    assert (len(ids_of(tmp_path / "out")), len(quarantined_in(tmp_path / "out"))) == (40, 80)


def test_the_plan_and_the_library_end_in_a_sentence_too(
    tmp_path: Path, fragile: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"id": "1", "text": FATAL}])
    assert embedmill("plan", "--input", source, "--model", fragile, "--provider", "cpu") == 4
    assert "Traceback" not in capfd.readouterr().err
    with pytest.raises(ModelError, match="fails on a text"):
        library.embed([FATAL], model=str(fragile), provider="cpu")


ENDLESS = [
    {"type": "Prepend", "prepend": FATAL},
    {"type": "Replace", "pattern": {"Regex": PATTERN}, "content": "x"},
]
SPOILT: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a template of unknown tokens": lambda tokenizer: tokenizer["post_processor"].update(special_tokens={}),
    "ids beyond int32": lambda tokenizer: tokenizer["model"]["vocab"].update(the=2**32 - 1),
    "a search that never ends": lambda tokenizer: tokenizer.update(
        normalizer={"type": "Sequence", "normalizers": ENDLESS}
    ),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT.keys())
def test_a_bundle_of_others_with_a_mad_tokenizer_is_refused_in_a_sentence(
    cli: Cli, spoil: Callable[[dict[str, Any]], Any]
) -> None:
    folder = Path(shutil.copytree(tiny_bundle(cli.model), cli.folder / "bundle"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    spoil(tokenizer)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    card = json.loads((folder / "bundle.json").read_text("utf-8"))
    card["files"]["tokenizer.json"] = hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest()
    (folder / "bundle.json").write_text(json.dumps(card), "utf-8")
    source = write_jsonl(cli.folder / "the.jsonl", [{"id": "1", "text": "the river"}])
    words: list[str | Path] = [
        "run",
        "--model",
        folder,
        "--input",
        source,
        "--output",
        cli.output,
        "--quiet",
        "--provider",
        "cpu",
    ]
    assert cli.refused(4, *words).startswith("ModelError: ")
