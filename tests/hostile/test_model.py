"""A model or a provider that cannot be used is named with the remedy."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from embedmill.engine.catalogue import AUTO, PROVIDERS
from tests.hostile.command import Cli
from tests.support.jobs import (
    embedmill,
    tiny_bundle,
)
from tests.support.tiny_model import bert_config, write_json, write_tiny_model


class TestModel:
    @pytest.fixture(autouse=True)
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("EMBEDMILL_HOME", str(tmp_path / "home"))
        return tmp_path / "home"

    def with_model(self, cli: Cli, model: Path | str) -> list[str | Path]:
        return ["run", "--model", str(model), "--input", cli.source, "--output", cli.output, "--quiet"]

    @pytest.mark.parametrize(
        ("name", "told"),
        [
            ("tokenizer.json", "has no tokenizer.json; save the fast tokenizer there"),
            ("model.safetensors", "has neither model.safetensors nor model.onnx"),
            ("modules.json", "has no modules.json, so its pooling is unknown"),
            ("1_Pooling/config.json", "is missing; the model folder is incomplete"),
        ],
    )
    def test_a_model_folder_that_lacks_a_file_is_named_with_it(self, cli: Cli, name: str, told: str) -> None:
        model = write_tiny_model(cli.folder / "model")
        (model / name).unlink()
        line = cli.refused(4, *self.with_model(cli, model))
        assert line.startswith(f"ModelError: {model}")
        assert told in line

    @pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors", "modules.json", "config.json"])
    @pytest.mark.parametrize(
        "data", [b"{", *(pytest.param(data, marks=pytest.mark.hostile) for data in (b"", b"\xff\xfe\x00"))]
    )
    def test_a_model_folder_with_a_damaged_file_is_a_model_error(self, cli: Cli, name: str, data: bytes) -> None:
        model = write_tiny_model(cli.folder / "model")
        (model / name).write_bytes(data)
        assert "model" in cli.refused(4, *self.with_model(cli, model))

    @pytest.mark.parametrize("change", [{"hidden_size": 40}, {"num_hidden_layers": 3}, {"num_attention_heads": 5}])
    def test_a_model_config_that_does_not_fit_its_weights_is_a_model_error(
        self, cli: Cli, change: dict[str, int]
    ) -> None:
        model = write_tiny_model(cli.folder / "model")
        write_json(model / "config.json", bert_config() | change)
        assert cli.refused(4, *self.with_model(cli, model)).startswith(f"ModelError: {model}")

    def test_a_model_that_is_not_there_is_named_with_how_to_add_it(self, cli: Cli) -> None:
        line = cli.refused(4, *self.with_model(cli, "no-such-model"))
        assert "there is no model 'no-such-model'" in line
        assert "`embedmill model add" in line

    def test_a_name_that_no_folder_can_have_is_no_model(self, cli: Cli) -> None:
        line = cli.refused(4, *self.with_model(cli, "x" * 300))
        assert line.startswith("ModelError: ")

    def test_a_damaged_bundle_is_named(self, cli: Cli) -> None:
        bundle = shutil.copytree(tiny_bundle(cli.model), cli.folder / "bundle")
        with (bundle / "weights.bin").open("r+b") as weights:
            weights.write(b"x")
        line = cli.refused(4, *self.with_model(cli, bundle))
        assert f"{bundle / 'weights.bin'} is missing or damaged" in line

    @pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
    def test_damaged_canaries_are_named(self, cli: Cli, damage: str) -> None:
        bundle = shutil.copytree(tiny_bundle(cli.model), cli.folder / "bundle")
        path = bundle / "canaries.safetensors"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data if damage == "changed" else data[:50])
        if damage == "gone":
            path.unlink()
        line = cli.refused(4, *self.with_model(cli, bundle))
        assert line.startswith(f"ModelError: {path} is missing or damaged")
        assert line.endswith("add the model again")

    def test_a_bundle_of_an_older_format_is_to_be_made_again(self, cli: Cli) -> None:
        bundle = shutil.copytree(tiny_bundle(cli.model), cli.folder / "bundle")
        card = json.loads((bundle / "bundle.json").read_text("utf-8"))
        write_json(bundle / "bundle.json", card | {"format": 1})
        line = cli.refused(4, *self.with_model(cli, bundle))
        assert f"{bundle} has bundle format 1, this program needs " in line
        assert line.endswith("add the model again")

    def test_an_unknown_provider_is_told_with_the_known_ones(self, cli: Cli) -> None:
        line = cli.refused(5, *cli.words("--provider", "abacus"))
        assert "there is no provider 'abacus'" in line
        assert f"can be {', '.join([AUTO, *(provider.name for provider in PROVIDERS)])}" in line


class TestDevice:
    def test_an_unknown_device_lists_the_devices(self, cli: Cli) -> None:
        line = cli.refused(5, *cli.words("--device", "sun"))
        assert line.startswith("DeviceError: cpu has no device 'sun'; `engine.device` (--device) can name one of: ")

    def test_a_precision_that_the_provider_lacks_is_told_with_those_it_has(self, cli: Cli) -> None:
        line = cli.refused(5, *cli.words("--provider", "cpu", "--precision", "fp16"))
        assert line == ("DeviceError: cpu does not compute in fp16; `engine.precision` (--precision) can be fp32")

    def test_a_precision_that_there_is_not_is_wrong_usage(self, cli: Cli) -> None:
        assert "'fp8' is not one of" in cli.refused(2, *cli.words("--precision", "fp8"))

    @pytest.mark.parametrize("command", ["run", "plan"])
    def test_a_provider_of_another_system_says_what_to_do_here(self, cli: Cli, command: str) -> None:
        other = "coreml" if sys.platform != "darwin" else "directml"
        words = [word for word in cli.words("--provider", other)[1:] if word != "--quiet" or command == "run"]
        line = cli.refused(5, command, *words)
        assert line.startswith(f"DeviceError: {other} is not for this machine: it exists for ")
        assert not (cli.output / "_manifest.json").exists()

    def test_a_device_that_is_there_is_taken(self, cli: Cli) -> None:
        assert embedmill(*cli.words("--provider", "cpu", "--device", "cpu")) == 0

    @pytest.mark.parametrize("name", ["weights.bin", "weights-fp16.bin", "fused.onnx", "unfused.onnx"])
    def test_a_bundle_that_lacks_a_file_is_named_with_it(self, cli: Cli, name: str) -> None:
        bundle = shutil.copytree(tiny_bundle(cli.model), cli.folder / "bundle")
        (bundle / name).unlink()
        line = cli.refused(4, "run", "--model", bundle, "--input", cli.source, "--output", cli.output, "--quiet")
        assert line.startswith("ModelError: ")
        assert name in line
