"""A bundle's identity covers all that determines a vector; damage and missing files are reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from embedmill.base.config import TextTable
from embedmill.base.errors import ConfigError, ModelError
from embedmill.model.build import build_bundle
from embedmill.model.bundle import Bundle, check_files, open_bundle
from embedmill.model.canaries import read_canaries, write_canaries
from embedmill.model.names import CARD
from embedmill.tune.reference import add_reference
from tests.support.running import build, run
from tests.support.systems import at
from tests.support.tiny_model import bert_config, write_json, write_tiny_model, write_tokenizer

QUERY = {"query": "query: "}
FILES = [
    "canaries.safetensors",
    "fused-fp16.onnx",
    "fused.onnx",
    "tokenizer.json",
    "unfused-fp16.onnx",
    "unfused.onnx",
    "weights-fp16.bin",
    "weights.bin",
]


def identity(model: Path, folder: Path, *, text: TextTable | None = None, **options: Any) -> str:
    """The identity that a model folder's bundle gives to a job."""
    return build(model, folder, **options).model(text or TextTable()).identity


def change_a_weight(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    bias = np.array(weights["encoder.layer.1.output.dense.bias"])
    bias[3] += 1
    save_file({**weights, "encoder.layer.1.output.dense.bias": bias}, model / "model.safetensors")


def change_the_dense_layer(model: Path) -> None:
    weights = load_file(model / "2_Dense/model.safetensors")
    save_file({**weights, "linear.bias": weights["linear.bias"] + 1}, model / "2_Dense/model.safetensors")


def change_the_config(**changes: Any) -> Callable[[Path], Any]:
    return lambda model: write_json(model / "config.json", bert_config() | changes)


CHANGES: dict[str, Callable[[Path], Any]] = {
    "fewer layers": change_the_config(num_hidden_layers=1),
    "other heads": change_the_config(num_attention_heads=2),
    "another epsilon": change_the_config(layer_norm_eps=0.5),
    "the padding token": change_the_config(pad_token_id=4),
    "another kind": change_the_config(model_type="roberta"),
    "a weight": change_a_weight,
    "a weight of the dense layer": change_the_dense_layer,
    "the dense layer's activation": lambda model: write_json(
        model / "2_Dense/config.json", {"activation_function": "torch.nn.modules.activation.Sigmoid"}
    ),
    "the tokenizer": lambda model: write_tokenizer(model / "tokenizer.json", truncate=16),
    "the pooling": lambda model: write_json(model / "1_Pooling/config.json", {"pooling_mode": "cls"}),
    "normalisation": lambda model: write_tiny_model(model, dense=16, normalize=False),
    "lower-casing": lambda model: write_json(
        model / "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": True}
    ),
    "the length": lambda model: write_json(model / "sentence_bert_config.json", {"max_seq_length": 31}),
    "the default prompt": lambda model: write_json(
        model / "config_sentence_transformers.json", {"prompts": QUERY, "default_prompt_name": "query"}
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_the_identity_changes_with(tmp_path: Path, change: Callable[[Path], Any]) -> None:
    model = write_tiny_model(tmp_path / "model", dense=16)
    before = identity(model, tmp_path / "before")
    change(model)
    assert identity(model, tmp_path / "after") != before


@pytest.mark.parametrize(
    "text", [TextTable(prompt="query: "), TextTable(max_tokens=31), TextTable(prompt_name="query")], ids=repr
)
def test_the_identity_changes_with_the_jobs_text_options(tmp_path: Path, text: TextTable) -> None:
    bundle = build(write_tiny_model(tmp_path / "model", prompts=QUERY), tmp_path / "bundle")
    assert bundle.model(text).identity != bundle.model(TextTable()).identity


def test_the_identity_tells_roberta_from_bert_and_its_padding(tmp_path: Path) -> None:
    """The weights may be the same file: positions begin elsewhere, so the vectors are others."""
    model = write_tiny_model(tmp_path / "model")
    changes: list[dict[str, Any]] = [{}, {"model_type": "roberta"}, {"model_type": "roberta", "pad_token_id": 4}]
    found = set()
    for number, change in enumerate([*changes, {"model_type": "roberta", "num_attention_heads": 2}]):
        write_json(model / "config.json", bert_config() | change)
        found.add(identity(model, tmp_path / f"bundle-{number}"))
    assert len(found) == 4


CLAIMS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "nothing": lambda card: None,
    "its graphs under other flavours": lambda card: card["graphs"].update(fused=card["graphs"]["unfused"]),
    "another length": lambda card: card["recipe"].update(max_tokens=8),
}


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS.keys())
def test_a_card_that_claims_to_be_of_another_model_has_an_identity_of_its_own(
    tmp_path: Path, claim: Callable[[dict[str, Any]], Any]
) -> None:
    """What a card says of its source is not known to be true, so it is not part of the identity."""
    model = write_tiny_model(tmp_path / "model")
    honest = build(model, tmp_path / "honest")
    change_a_weight(model)
    build(model, tmp_path / "other")
    card = json.loads((tmp_path / "other" / "bundle.json").read_text())
    card |= {name: getattr(honest.card, name) for name in ("name", "origin", "weights", "tokenizer")}
    claim(card)
    write_json(tmp_path / "other" / "bundle.json", card)
    identities = {open_bundle(tmp_path / name).model(TextTable()).identity for name in ("honest", "other")}
    assert len(identities) == 2


def test_the_identity_changes_with_the_dimension(tiny_model: Path, tmp_path: Path) -> None:
    assert identity(tiny_model, tmp_path / "all") != identity(tiny_model, tmp_path / "eight", dim=8)


@pytest.mark.parametrize(
    "text", [TextTable(prompt=""), TextTable(max_tokens=32), TextTable(chunk_tokens=8, chunk_overlap=2)], ids=repr
)
def test_the_identity_is_the_same_where_the_vectors_of_a_text_are(
    tiny_model: Path, tmp_path: Path, text: TextTable
) -> None:
    bundle = build(tiny_model, tmp_path / "bundle")
    assert bundle.model(text).identity == bundle.model(TextTable()).identity


def test_the_identity_does_not_change_with_name_origin_or_place(tiny_model: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    one = add_reference(build_bundle(tiny_model, folders[0], name="one", origin="here"))
    two = add_reference(build_bundle(tiny_model, folders[1], name="two", origin="there"))
    assert one.model(TextTable()).identity == two.model(TextTable()).identity


def test_the_same_prompt_has_the_same_identity_by_name_and_by_value(tmp_path: Path) -> None:
    bundle = build(write_tiny_model(tmp_path / "model", prompts=QUERY), tmp_path / "bundle")
    named, spelt = TextTable(prompt_name="query"), TextTable(prompt="query: ")
    assert bundle.model(named).identity == bundle.model(spelt).identity


def test_an_opened_bundle_is_the_one_that_was_built(tiny_model: Path, tmp_path: Path) -> None:
    built = build(tiny_model, tmp_path / "bundle")
    opened = open_bundle(tmp_path / "bundle")
    assert opened == built
    check_files(opened)


def test_the_card_lists_every_file(tiny_model: Path, tmp_path: Path) -> None:
    bundle = build(tiny_model, tmp_path / "bundle")
    assert sorted(bundle.card.files) == FILES
    assert sorted(path.name for path in bundle.folder.iterdir()) == sorted([*FILES, CARD])


def test_the_size_of_the_weights_is_that_of_one_graph(tiny_model: Path, tmp_path: Path) -> None:
    bundle = build(tiny_model, tmp_path / "bundle")
    assert bundle.model(TextTable()).weights_bytes == (bundle.folder / "weights.bin").stat().st_size


class TestCanaries:
    """The known texts of a bundle."""

    def test_they_are_read_as_they_were_written(self, tiny_model: Path, tmp_path: Path) -> None:
        known = build(tiny_model, tmp_path / "bundle").model(TextTable()).canaries
        path = write_canaries(tmp_path, known)
        assert path == tmp_path / "canaries.safetensors"
        again = read_canaries(tmp_path)
        for one, other in ((known.tokens.ids, again.tokens.ids), (known.tokens.offsets, again.tokens.offsets)):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(known.tokens.truncated, again.tokens.truncated)
        np.testing.assert_array_equal(known.vectors, again.vectors)

    def test_others_may_stand_for_them(self, tiny_model: Path, tmp_path: Path) -> None:
        bundle = build(tiny_model, tmp_path / "bundle")
        known = bundle.model(TextTable()).canaries
        (bundle.folder / "canaries.safetensors").write_bytes(b"")
        assert bundle.model(TextTable(), canaries=known).canaries is known

    @pytest.mark.parametrize("content", [None, b"", b"no safetensors at all", "other tensors"], ids=repr)
    def test_missing_or_damaged_ones_are_a_model_error(
        self, tiny_model: Path, tmp_path: Path, content: bytes | str | None
    ) -> None:
        bundle = build(tiny_model, tmp_path / "bundle")
        path = bundle.folder / "canaries.safetensors"
        path.unlink()
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            save_file({"vectors": np.zeros((2, 2), np.float32)}, path)
        with pytest.raises(ModelError, match=r"canaries\.safetensors is missing or damaged .*; add the model again"):
            bundle.model(TextTable())

    def test_a_bundle_that_was_not_completed_has_none(self, tiny_model: Path, tmp_path: Path) -> None:
        (tmp_path / "bundle").mkdir()
        bundle = build_bundle(tiny_model, tmp_path / "bundle", name="half", origin="here")
        assert "canaries.safetensors" not in bundle.card.files
        with pytest.raises(ModelError, match="missing or damaged"):
            bundle.model(TextTable())

    def test_they_do_not_depend_on_the_models_prompt(self, tmp_path: Path) -> None:
        prompted = write_tiny_model(tmp_path / "prompted", prompts=QUERY, default_prompt="query")
        plain = write_tiny_model(tmp_path / "plain")
        one, two = (build(model, tmp_path / f"{model.name}-bundle") for model in (prompted, plain))
        name = "canaries.safetensors"
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_noticed(tiny_model: Path, tmp_path: Path, name: str) -> None:
    bundle = build(tiny_model, tmp_path / "bundle")
    path = bundle.folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"{name} is missing or damaged"):
        check_files(bundle)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_noticed(tiny_model: Path, tmp_path: Path, name: str) -> None:
    bundle = build(tiny_model, tmp_path / "bundle")
    (bundle.folder / name).unlink()
    with pytest.raises(ModelError, match=rf"{name} is missing or damaged"):
        check_files(bundle)


def test_a_folder_without_a_card_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no model bundle; make one with `embedmill model add`"):
        open_bundle(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format": "one"}', b"\xff"], ids=repr)
def test_a_damaged_card_is_named(tiny_model: Path, tmp_path: Path, content: bytes) -> None:
    bundle = build(tiny_model, tmp_path / "bundle")
    (bundle.folder / CARD).write_bytes(content)
    with pytest.raises(ModelError, match=r"bundle\.json is damaged"):
        open_bundle(bundle.folder)


def test_a_bundle_of_another_format_is_to_be_made_again(tiny_model: Path, tmp_path: Path) -> None:
    bundle = build(tiny_model, tmp_path / "bundle")
    card = json.loads((bundle.folder / CARD).read_text("utf-8"))
    write_json(bundle.folder / CARD, card | {"format": 99})
    with pytest.raises(ModelError, match=r"bundle format 99.* add the model again"):
        open_bundle(bundle.folder)


def test_the_models_own_default_prompt_holds_unless_the_job_says_otherwise(tmp_path: Path) -> None:
    prompts = {"query": "query: ", "passage": "passage: "}
    model = write_tiny_model(tmp_path / "model", prompts=prompts, default_prompt="query")
    bundle = build(model, tmp_path / "bundle")
    assert bundle.model(TextTable()).prompt == "query: "
    assert bundle.model(TextTable(prompt="")).prompt == ""
    assert bundle.model(TextTable(prompt="Say: ")).prompt == "Say: "
    assert bundle.model(TextTable(prompt_name="passage")).prompt == "passage: "


def test_an_unknown_prompt_name_lists_the_known_ones(tmp_path: Path) -> None:
    bundle = build(write_tiny_model(tmp_path / "model", prompts=QUERY), tmp_path / "bundle")
    with pytest.raises(ConfigError, match=r"`text\.prompt_name` = 'passage': tiny has the prompts: query"):
        bundle.model(TextTable(prompt_name="passage"))


def test_more_tokens_than_the_model_takes_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    bundle = build(tiny_model, tmp_path / "bundle")
    with pytest.raises(ConfigError, match=r"`text\.max_tokens` = 33, but tiny takes 32 at most"):
        bundle.model(TextTable(max_tokens=33))


def test_a_model_folder_without_tokenizer_json_says_how_to_make_one(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    (model / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"model has no tokenizer\.json; save the fast tokenizer there"):
        build(model, tmp_path / "bundle")


def test_a_model_folder_without_weights_is_refused(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    (model / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"neither model\.safetensors nor model\.onnx nor onnx/model\.onnx"):
        build(model, tmp_path / "bundle")


@pytest.mark.parametrize("kind", ["distilbert", "mpnet"])
def test_another_kind_of_encoder_without_an_export_is_named(tmp_path: Path, kind: str) -> None:
    model = write_tiny_model(tmp_path / "model")
    write_json(model / "config.json", bert_config() | {"model_type": kind})
    with pytest.raises(ModelError, match=rf"'{kind}'.* export it to ONNX"):
        build(model, tmp_path / "bundle")


def test_a_missing_dense_weight_file_is_named(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model", dense=16)
    (model / "2_Dense/model.safetensors").unlink()
    with pytest.raises(ModelError, match=at("2_Dense/model.safetensors") + " is missing"):
        build(model, tmp_path / "bundle")


@pytest.mark.parametrize("damage", ["half", "other tensors"])
def test_a_damaged_dense_weight_file_is_named(tmp_path: Path, damage: str) -> None:
    path = write_tiny_model(tmp_path / "model", dense=16) / "2_Dense/model.safetensors"
    if damage == "half":
        path.write_bytes(path.read_bytes()[:100])
    else:
        save_file({"weight": np.zeros((16, 32), np.float32)}, path)
    with pytest.raises(ModelError, match=at("2_Dense/model.safetensors")):
        build(path.parent.parent, tmp_path / "bundle")


def test_a_bundle_works_after_its_folder_was_moved(tiny_model: Path, tmp_path: Path) -> None:
    bundle = build(tiny_model, tmp_path / "bundle")
    before = run(bundle, "fused")
    moved = Bundle(folder=bundle.folder.rename(tmp_path / "moved"), card=bundle.card)
    np.testing.assert_array_equal(run(moved, "fused"), before)


def test_the_same_folder_gives_the_same_bytes(tiny_model: Path, tmp_path: Path) -> None:
    one, two = build(tiny_model, tmp_path / "one"), build(tiny_model, tmp_path / "two")
    assert one.card.files == two.card.files
