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
def test_a_text_that_a_tokenizer_fails_on_is_set_aside_by_the_next_run(
    tmp_path: Path, fragile: Path, capfd: pytest.CaptureFixture[str], chunk_tokens: int
) -> None:
    rows = [{"id": str(number), "text": FATAL if number in (3, 13) else "the river"} for number in range(20)]
    source = write_jsonl(tmp_path / "a.jsonl", rows)
    text = {"chunk_tokens": chunk_tokens}
    config = make_config(fragile, source, tmp_path / "out", shard={"rows": 5}, text=text)
    codes: list[int] = []
    while not codes or codes[-1] == 4:
        codes.append(embedmill(*words_of(config), "--quiet"))
        said = capfd.readouterr().err
        assert "Traceback" not in said
        if codes[-1] == 4:
            assert "run the same command again, which sets the row aside" in said
    assert codes == [4, 4, 7]
    assert [row["id"] for row in quarantined_in(tmp_path / "out")] == ["3", "13"]
    assert len(set(ids_of(tmp_path / "out"))) == 18
    assert embedmill("verify", tmp_path / "out") == 0


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
