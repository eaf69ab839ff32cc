"""A bundle is completed by running it: its length, its known vectors, and what does not fit together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from embedmill.base.config import TextTable
from embedmill.base.errors import ConfigError, ModelError
from embedmill.jobs.embed import Embedder
from embedmill.jobs.models import add_model, find_bundle
from embedmill.model.bundle import check_files
from tests.model.test_export import IDS, MASK, export_model, write_export
from tests.support.exports import write_positioned
from tests.support.running import build
from tests.support.tiny_model import VOCABULARY, write_json, write_tiny_model


class TestLength:
    """A bundle's maximum length is one that its graph takes."""

    @pytest.mark.parametrize(("positions", "first"), [(40, 2), (34, 2), (20, 1), (7, 2), (64, 2)])
    def test_the_longest_length_that_runs_is_kept(
        self, tmp_path: Path, empty_home: Path, caplog: pytest.LogCaptureFixture, positions: int, first: int
    ) -> None:
        model = write_positioned(tmp_path / "model", positions, first=first, max_tokens=positions)
        bundle = add_model(str(model))
        takes = positions - first
        assert bundle.card.recipe.max_tokens == takes
        assert f"its graph takes {takes} tokens, not the {positions} stated; texts are cut there" in caplog.text
        assert find_bundle("model").card.recipe.max_tokens == takes
        check_files(bundle)

    def test_a_stated_length_that_runs_is_kept_without_a_word(
        self, tmp_path: Path, empty_home: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        model = write_positioned(tmp_path / "model", 64, max_tokens=62)
        assert add_model(str(model)).card.recipe.max_tokens == 62
        assert caplog.text == ""

    def test_a_graph_that_takes_more_than_is_stated_takes_what_is_stated(
        self, tmp_path: Path, empty_home: Path
    ) -> None:
        model = write_positioned(tmp_path / "model", 100, config={"max_position_embeddings": 50}, max_tokens=90)
        assert add_model(str(model)).card.recipe.max_tokens == 50

    def test_a_text_longer_than_the_graph_takes_is_cut(self, tmp_path: Path, empty_home: Path) -> None:
        model = write_positioned(tmp_path / "model", 40, max_tokens=40)
        with Embedder(str(model)) as embedder:
            vectors = embedder.embed(["river " * 500, "river " * 36])
        np.testing.assert_array_equal(vectors[0], vectors[1])

    def test_more_tokens_than_the_graph_takes_are_a_config_error(self, tmp_path: Path, empty_home: Path) -> None:
        bundle = add_model(str(write_positioned(tmp_path / "model", 40, max_tokens=40)))
        with pytest.raises(
            ConfigError, match=r"`text\.max_tokens` = 39, but model takes 38 at most; lower it or leave"
        ):
            bundle.model(TextTable(max_tokens=39))

    def test_the_identity_is_that_of_the_same_model_with_the_length_stated(
        self, tmp_path: Path, empty_home: Path
    ) -> None:
        found = {
            add_model(str(write_positioned(tmp_path / str(tokens), 40, max_tokens=tokens))).model(TextTable()).identity
            for tokens in (38, 40)
        }
        assert len(found) == 1


def test_a_graph_whose_vectors_depend_on_the_batch_is_refused(tmp_path: Path) -> None:
    """A run that is killed and resumed would end with other vectors."""
    export = export_model(inputs=(IDS, MASK), output="words")
    export.graph.node.append(helper.make_node("ReduceMax", ["words", "first"], ["most"]))
    export.graph.node.append(helper.make_node("Sub", ["words", "most"], ["last_hidden_state"]))
    export.graph.initializer.append(helper.make_tensor("first", TensorProto.INT64, [1], [0]))
    export.graph.output[0].name = "last_hidden_state"
    with pytest.raises(ModelError, match=r"a text's vector changes with the texts beside it in a batch \(cosine"):
        build(write_export(tmp_path / "model", export), tmp_path / "bundle")


def test_tokens_that_the_graph_does_not_know_are_told(
    tmp_path: Path, empty_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = write_tiny_model(tmp_path / "model")
    tokenizer = json.loads((model / "tokenizer.json").read_text("utf-8"))
    tokenizer["added_tokens"].append(tokenizer["added_tokens"][0] | {"id": len(VOCABULARY), "content": "<extra>"})
    write_json(model / "tokenizer.json", tokenizer)
    add_model(str(model))
    assert f"does not know every token of its tokenizer (up to {len(VOCABULARY)}, '<extra>')" in caplog.text


def test_a_tokenizer_that_cannot_be_read_is_named_without_the_scratch_folder(tmp_path: Path, empty_home: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    write_json(model / "tokenizer.json", {"version": "1.0", "model": {"type": "Telepathy"}})
    with pytest.raises(ModelError, match=r"folder model: its tokenizer\.json cannot be read \(.+\); it may be") as info:
        add_model(str(model))
    assert ".new-" not in str(info.value)


def test_a_tokenizer_of_another_model_is_told_without_advice_to_resume(tmp_path: Path, empty_home: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    tokenizer = json.loads((model / "tokenizer.json").read_text("utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {word: number + 1000 * (number > 40) for word, number in vocabulary.items()}
    write_json(model / "tokenizer.json", tokenizer)
    with pytest.raises(ModelError, match=r"its graph and its tokenizer do not run together: .*take both from") as info:
        add_model(str(model))
    assert "resume" not in str(info.value)


@pytest.mark.parametrize("length", [1, 2])
def test_a_length_without_room_for_text_is_refused(tmp_path: Path, empty_home: Path, length: int) -> None:
    model = write_tiny_model(tmp_path / "short")
    write_json(model / "sentence_bert_config.json", {"max_seq_length": length})
    with pytest.raises(ModelError, match=r"max_seq_length"):
        add_model(str(model))
