"""Models that mean harm, or look as if: refused in a sentence before anything of theirs is run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from embedmill.jobs.models import find_bundle
from tests.hostile.command import Cli
from tests.model.test_export import TABLE, export_model, keep_weights_in, write_export
from tests.support.jobs import tiny_bundle
from tests.support.tiny_model import write_tiny_model


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDMILL_HOME", str(tmp_path / "home"))


def refused(cli: Cli, model: Path) -> str:
    words: list[str | Path] = ["run", "--model", str(model), "--input", cli.source, "--output", cli.output, "--quiet"]
    line = cli.refused(4, *words, "--provider", "cpu")
    assert line.startswith("ModelError: ")
    return line


@pytest.mark.parametrize("place", ["../secret.bin", "/dev/zero", "..\\secret.bin", "inner/../../secret.bin"])
def test_weights_outside_the_folder_are_not_read(cli: Cli, place: str) -> None:
    model = write_export(cli.folder / "model", keep_weights_in(export_model(), place), place="model.onnx")
    (cli.folder / "secret.bin").write_bytes(TABLE.tobytes())
    assert "outside its folder; that is refused" in refused(cli, model)


def test_weights_in_any_part_of_the_graph_are_looked_at(cli: Cli) -> None:
    """A Constant's tensor, not an initializer."""
    export = export_model()
    secret = TensorProto(data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    secret.external_data.add(key="location", value="../secret.bin")
    export.graph.node.append(helper.make_node("Constant", [], ["secret"], value=secret))
    model = write_export(cli.folder / "model", export, place="model.onnx")
    assert "outside its folder; that is refused" in refused(cli, model)


@pytest.mark.parametrize("target", ["../secret.bin", "/dev/zero", "weights.bin"])
def test_weights_behind_a_link_out_of_the_folder_are_not_read(cli: Cli, target: str) -> None:
    model = write_export(cli.folder / "model", keep_weights_in(export_model(), "weights.bin"), place="model.onnx")
    (cli.folder / "secret.bin").write_bytes(TABLE.tobytes())
    (model / "weights.bin").symlink_to(target)
    line = refused(cli, model)
    assert "a link out of its folder; that is refused" in line or "weights.bin" in line


def test_weights_behind_a_hard_link_are_copied_and_pinned(cli: Cli) -> None:
    """A hard link is a file like any other; what its other name becomes later is not what is loaded."""
    model = write_export(cli.folder / "model", keep_weights_in(export_model(), "weights.bin"), place="model.onnx")
    (cli.folder / "other.bin").write_bytes(TABLE.tobytes())
    os.link(cli.folder / "other.bin", model / "weights.bin")
    bundle = find_bundle(str(model))
    assert (bundle.folder / "weights.bin").stat().st_nlink == 1
    assert "weights.bin" in bundle.card.files


@pytest.mark.parametrize(("domain", "kind"), [("evil.ops", "Relu"), ("com.microsoft", "EPContext")])
def test_operators_that_are_code_from_elsewhere_are_refused(cli: Cli, domain: str, kind: str) -> None:
    """In a branch of an If, where a look at the graph's own nodes would not find them."""
    inner = helper.make_node(kind, ["table"], ["out"], domain=domain)
    branch = helper.make_graph([inner], "branch", [], [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)])
    export = export_model()
    export.graph.node.append(helper.make_node("If", ["flag"], ["unused"], then_branch=branch, else_branch=branch))
    line = refused(cli, write_export(cli.folder / "model", export, place="model.onnx"))
    assert "unknown domain 'evil.ops'" in line or "(EPContext)" in line


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.npy"])
def test_pickled_weights_are_never_opened(cli: Cli, name: str) -> None:
    model = write_tiny_model(cli.folder / "model")
    (model / "model.safetensors").unlink()
    np.save(model / "model.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (model / "model.npy").rename(model / name)
    assert "has neither model.safetensors nor model.onnx" in refused(cli, model)


def lying(header: object, *, size: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + bytes(64)


_TENSOR = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}


@pytest.mark.parametrize(
    "data",
    [
        lying({}, size=2**62),
        lying({"a": _TENSOR | {"data_offsets": [0, 2**60]}}),
        lying({"a": _TENSOR | {"shape": [2**40, 2**40]}}),
        lying({"a": _TENSOR | {"shape": [-4]}}),
        lying({"a": _TENSOR, "b": _TENSOR}),
        lying({"a": _TENSOR | {"dtype": "pickle"}}),
        lying([[]] * 100),
    ],
)
def test_weights_whose_header_lies_are_refused(cli: Cli, data: bytes) -> None:
    model = write_tiny_model(cli.folder / "model")
    (model / "model.safetensors").write_bytes(data)
    assert f"{model / 'model.safetensors'}" in refused(cli, model)


@pytest.mark.parametrize("path", ["../other", "/etc", "..\\other"])
def test_a_module_outside_the_models_folder_is_refused(cli: Cli, path: str) -> None:
    model = write_tiny_model(cli.folder / "model")
    modules = json.loads((model / "modules.json").read_text())
    shutil.copytree(model / modules[1]["path"], cli.folder / "other")
    modules[1]["path"] = path
    (model / "modules.json").write_text(json.dumps(modules))
    assert "outside the model's folder; that is refused" in refused(cli, model)


CONFIGS = ["modules.json", "1_Pooling/config.json", "sentence_bert_config.json", "tokenizer_config.json"]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_a_pipe_or_device_for_a_config_is_refused_without_waiting(
    cli: Cli, name: str, make: Callable[[Path], None]
) -> None:
    model = write_tiny_model(cli.folder / "model")
    (model / name).unlink(missing_ok=True)
    make(model / name)
    assert f"{model / name} is not a regular file" in refused(cli, model)


@pytest.mark.parametrize("value", ["[" * 100_000, "Infinity", "9" * 5000, '"many"', "[1]", "-1"])
@pytest.mark.parametrize("key", ["hidden_size", "pad_token_id", "max_position_embeddings"])
def test_a_config_with_a_mad_value_is_refused(cli: Cli, key: str, value: str) -> None:
    model = write_tiny_model(cli.folder / "model")
    config = json.loads((model / "config.json").read_text())
    text = json.dumps(config | {key: "HERE"}).replace('"HERE"', value)
    (model / "config.json").write_text(text)
    assert str(model) in refused(cli, model)


class TestBundle:
    """A bundle from elsewhere, whose card says what its maker likes."""

    def bundle(self, cli: Cli, **changes: object) -> Path:
        folder = Path(shutil.copytree(tiny_bundle(cli.model), cli.folder / "bundle"))
        card = json.loads((folder / "bundle.json").read_text())
        (folder / "bundle.json").write_text(json.dumps(card | changes))
        return folder

    def card(self, cli: Cli) -> dict[str, dict[str, str]]:
        card: dict[str, dict[str, str]] = json.loads((tiny_bundle(cli.model) / "bundle.json").read_text())
        return card

    @pytest.mark.parametrize("name", ["fused.onnx", "weights.bin", "tokenizer.json"])
    def test_a_file_without_a_recorded_sha256_is_not_loaded(self, cli: Cli, name: str) -> None:
        files = {file: digest for file, digest in self.card(cli)["files"].items() if file != name}
        assert f"has no sha256 of {name}" in refused(cli, self.bundle(cli, files=files))

    @pytest.mark.parametrize("name", ["../evil.onnx", "/evil.onnx"])
    def test_a_graph_outside_the_bundle_is_refused(self, cli: Cli, name: str) -> None:
        graph = {"file": name, "opset": 17, "optimise": False}
        assert "outside its folder; that is refused" in refused(cli, self.bundle(cli, graphs={"fused": graph}))

    def test_a_graph_with_foreign_operators_is_refused_though_its_sha256_fits(self, cli: Cli) -> None:
        folder = self.bundle(cli)
        graph = onnx.load_model(folder / "fused.onnx", load_external_data=False)
        graph.graph.node.append(helper.make_node("Load", ["x"], ["y"], domain="evil.ops"))
        onnx.save_model(graph, folder / "fused.onnx")
        card = json.loads((folder / "bundle.json").read_text())
        card["files"]["fused.onnx"] = hashlib.sha256((folder / "fused.onnx").read_bytes()).hexdigest()
        (folder / "bundle.json").write_text(json.dumps(card))
        assert "unknown domain 'evil.ops'" in refused(cli, folder)
