"""The weights of a folder are chosen by a rule, and what cannot be read is named."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from embedmill.base.config import TextTable
from embedmill.base.errors import ModelError
from embedmill.base.files.digest import sha256_of
from embedmill.model.layout import INDEX, choose_export
from tests.support.exports import positioned_export
from tests.support.running import FLAVOURS, build, run
from tests.support.tiny_model import write_json, write_tiny_model

WRONG = ("damaged", "fetch", "resume")
# From the most exact on.
RANKED = (
    "model.onnx",
    "onnx/model.onnx",
    "onnx/model_optimized.onnx",
    "onnx/model_fp16.onnx",
    "onnx/model_quantized.onnx",
    "onnx/model_qint8_avx512_vnni.onnx",
    "onnx/model_q4f16.onnx",
    "onnx/decoder_model.onnx",
)


@pytest.mark.parametrize(("better", "worse"), list(itertools.combinations(RANKED, 2)))
def test_the_most_exact_export_is_chosen(better: str, worse: str) -> None:
    assert choose_export([worse, better]) == choose_export([better, worse]) == better


@pytest.mark.parametrize(
    "name", ["onnx/model_O4.onnx", "onnx/model_int8.onnx", "onnx/model_bnb4.onnx", "my-encoder.onnx"]
)
def test_the_only_export_is_chosen_whatever_its_name(name: str) -> None:
    assert choose_export([name, "config.json", "openvino/model.onnx", "model.onnx_data"]) == name


def test_no_export_is_chosen_where_there_is_none() -> None:
    assert choose_export(["onnx/config.json", "model.safetensors", "other/model.onnx"]) is None


def shard(model: Path, parts: int = 2) -> list[Path]:
    """Split the weights of a folder over files, as transformers does for large models."""
    tensors = load_file(model / "model.safetensors")
    names = [f"model-{part + 1:05}-of-{parts:05}.safetensors" for part in range(parts)]
    places = {name: names[number % parts] for number, name in enumerate(tensors)}
    for file in names:
        save_file({name: tensors[name] for name, place in places.items() if place == file}, model / file)
    (model / "model.safetensors").unlink()
    write_json(model / INDEX, {"metadata": {"total_size": 1}, "weight_map": places})
    return [model / name for name in names]


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_weights_in_several_files_give_the_vectors_of_one(tiny_model: Path, tmp_path: Path, parts: int) -> None:
    model = write_tiny_model(tmp_path / "model")
    shard(model, parts)
    bundle, plain = build(model, tmp_path / "bundle"), build(tiny_model, tmp_path / "plain")
    for flavour in FLAVOURS:
        np.testing.assert_array_equal(run(bundle, flavour), run(plain, flavour))


def test_the_identity_covers_every_file_of_the_weights(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    files = shard(model)
    found = {build(model, tmp_path / "before").model(TextTable()).identity}
    for number, file in enumerate(files):
        tensors = load_file(file)
        name = next(iter(tensors))
        save_file({**tensors, name: tensors[name] + 1}, file)
        found.add(build(model, tmp_path / f"after-{number}").model(TextTable()).identity)
    assert len(found) == 3


def test_missing_files_of_the_weights_are_named_all(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    for file in shard(model, 3)[1:]:
        file.unlink()
    with pytest.raises(
        ModelError, match=r"lacks 2 of 3 weight files .*: model-00002-of-.*, model-00003-of-.*; copy"
    ) as e:
        build(model, tmp_path / "bundle")
    assert not any(word in str(e.value) for word in WRONG)


@pytest.mark.parametrize("missing", [False, True])
def test_an_export_counts_where_the_weights_are_in_several_files(tmp_path: Path, missing: bool) -> None:
    """As it did before these could be read: what was embedded with it can be continued."""
    model = write_tiny_model(tmp_path / "model")
    files = shard(model)
    if missing:
        files[0].unlink()
    onnx.save_model(positioned_export(64), model / "model.onnx")
    assert build(model, tmp_path / "bundle").card.weights == sha256_of([model / "model.onnx"])


@pytest.mark.parametrize(
    "index", [{}, {"weight_map": {}}, {"weight_map": ["a"]}, {"weight_map": {"a": 1}}], ids=json.dumps
)
def test_an_index_that_names_no_files_is_named(tmp_path: Path, index: dict[str, object]) -> None:
    model = write_tiny_model(tmp_path / "model")
    shard(model)
    write_json(model / INDEX, index)
    with pytest.raises(ModelError, match=r"model\.safetensors\.index\.json has no weight_map"):
        build(model, tmp_path / "bundle")


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "..\\secret"])
def test_weight_files_outside_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    model = write_tiny_model(tmp_path / "model")
    shard(model)
    write_json(model / INDEX, {"weight_map": {"embeddings.word_embeddings.weight": name}})
    with pytest.raises(ModelError, match="outside its folder; that is refused"):
        build(model, tmp_path / "bundle")


def test_one_file_counts_where_both_layouts_are_there(tiny_model: Path, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    whole = (model / "model.safetensors").read_bytes()
    shard(model)
    (model / "model.safetensors").write_bytes(whole)
    assert build(model, tmp_path / "bundle").card.weights == build(tiny_model, tmp_path / "plain").card.weights


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["pytorch_model.bin"], r"pytorch_model\.bin: pickled weights may run code.* python -c .*save_pretrained"),
        (["pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"], r"pickled weights may run code"),
        (["model.pt"], r"model\.pt: pickled weights"),
        (["tf_model.h5", "flax_model.msgpack"], r"flax_model\.msgpack, tf_model\.h5; export the model to ONNX"),
        (["openvino/openvino_model.xml"], r"openvino_model\.xml; export the model to ONNX"),
        (["ggml-model-q4.gguf"], r"ggml-model-q4\.gguf; export"),
        (["adapter_model.safetensors"], r"an adapter \(LoRA\); merge it into its base model"),
        (["model-00001-of-00002.safetensors"], r"without model\.safetensors\.index\.json; copy the index"),
        (["training_args.bin"], r"; copy one of them there"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_weights_that_cannot_be_read_are_named_with_the_remedy(tmp_path: Path, files: list[str], said: str) -> None:
    model = write_tiny_model(tmp_path / "model")
    (model / "model.safetensors").unlink()
    for file in files:
        (model / file).parent.mkdir(exist_ok=True)
        (model / file).write_bytes(b"x")
    with pytest.raises(ModelError, match=rf"has neither model\.safetensors nor model\.onnx .*{said}") as info:
        build(model, tmp_path / "bundle")
    assert not any(word in str(info.value) for word in WRONG)
