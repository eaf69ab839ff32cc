"""Where every provider stands on every kind of machine, and what a user of that machine is told to do."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib import metadata
from typing import Any

import onnxruntime as ort
import pytest
from msgspec import structs

from embedmill.base.errors import DeviceError
from embedmill.engine import availability as standing_module
from embedmill.engine.availability import availability_of, is_installed, replaced_providers, require
from embedmill.engine.catalogue import PROVIDERS, find_provider
from embedmill.engine.catalogue.entry import Plugin, Provider
from embedmill.engine.machine.machine import Machine, this_machine
from tests.support.works import provider_of

BARE = ("cpu",)
# What a fresh machine with its base package can do about each provider: the line, or why there is none.
CAN = "installable"
NOT = "elsewhere"
IS = "installed"
ALL = ("directml", "qnn", "webgpu", "cuda", "tensorrt", "migraphx", "vitisai", "mlx", "openvino", "coreml", "cpu")
TABLE: dict[str, dict[str, str]] = {
    "Linux x86_64": {
        "directml": NOT,
        "qnn": CAN,
        "webgpu": CAN,
        "cuda": CAN,
        "tensorrt": CAN,
        "migraphx": CAN,
        "vitisai": NOT,
        "mlx": NOT,
        "openvino": CAN,
        "coreml": NOT,
        "cpu": IS,
    },
    "Linux arm64": {
        "directml": NOT,
        "qnn": CAN,
        "webgpu": CAN,
        "cuda": NOT,
        "tensorrt": NOT,
        "migraphx": NOT,
        "vitisai": NOT,
        "mlx": NOT,
        "openvino": NOT,
        "coreml": NOT,
        "cpu": IS,
    },
    "Windows x86_64": {
        "directml": CAN,
        "qnn": CAN,
        "webgpu": CAN,
        "cuda": CAN,
        "tensorrt": CAN,
        "migraphx": CAN,
        "vitisai": CAN,
        "mlx": NOT,
        "openvino": CAN,
        "coreml": NOT,
        "cpu": IS,
    },
    "Windows arm64": {
        "directml": CAN,
        "qnn": CAN,
        "webgpu": CAN,
        "cuda": NOT,
        "tensorrt": NOT,
        "migraphx": NOT,
        "vitisai": NOT,
        "mlx": NOT,
        "openvino": NOT,
        "coreml": NOT,
        "cpu": IS,
    },
    "Darwin arm64": {
        "directml": NOT,
        "qnn": NOT,
        "webgpu": CAN,
        "cuda": NOT,
        "tensorrt": NOT,
        "migraphx": NOT,
        "vitisai": NOT,
        "mlx": CAN,
        "openvino": NOT,
        "coreml": CAN,
        "cpu": IS,
    },
    "Linux x86_64 WSL2": {
        "directml": NOT,
        "qnn": NOT,
        "webgpu": CAN,
        "cuda": CAN,
        "tensorrt": CAN,
        "migraphx": CAN,
        "vitisai": NOT,
        "mlx": NOT,
        "openvino": CAN,
        "coreml": NOT,
        "cpu": IS,
    },
    "Linux arm64 WSL2": {
        "directml": NOT,
        "qnn": NOT,
        "webgpu": CAN,
        "cuda": NOT,
        "tensorrt": NOT,
        "migraphx": NOT,
        "vitisai": NOT,
        "mlx": NOT,
        "openvino": NOT,
        "coreml": NOT,
        "cpu": IS,
    },
    "Darwin x86_64": dict.fromkeys(ALL, NOT),
    "Linux riscv64": dict.fromkeys(ALL, NOT),
}
LINES = {
    ("directml", "Windows x86_64"): "python -m pip install onnxruntime-directml",
    ("directml", "Windows arm64"): "python -m pip install onnxruntime-windowsml",
    ("qnn", "Windows arm64"): "python -m pip install --no-deps onnxruntime-qnn",
    ("qnn", "Linux arm64"): "python -m pip install onnxruntime-qnn",
    ("webgpu", "Linux x86_64"): "python -m pip install onnxruntime-ep-webgpu",
    ("webgpu", "Darwin arm64"): "python -m pip install onnxruntime-ep-webgpu",
    ("openvino", "Windows x86_64"): "python -m pip install onnxruntime-ep-openvino",
    ("tensorrt", "Windows x86_64"): "python -m pip install onnxruntime-ep-nv-tensorrt-rtx",
    ("migraphx", "Linux x86_64"): "python -m pip install --force-reinstall onnxruntime-migraphx",
    ("migraphx", "Windows x86_64"): "python -m pip install windowsml",
    ("vitisai", "Windows x86_64"): "python -m pip install windowsml",
    ("mlx", "Darwin arm64"): "python -m pip install onnxruntime-ep-mlx",
    ("coreml", "Darwin arm64"): "python -m pip install onnxruntime",
}
CASES = [(place, name, state) for place, row in TABLE.items() for name, state in row.items()]


def machine(place: str) -> Machine:
    """This machine as if it were another."""
    system, architecture, *wsl = place.split()
    return structs.replace(this_machine(), system=system, architecture=architecture, wsl=2 if wsl else 0)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is installed but the CPU's runtime."""
    monkeypatch.setattr(standing_module, "is_installed", lambda provider: provider.name in BARE)


@pytest.mark.usefixtures("bare")
class TestTable:
    def test_every_provider_stands_in_it(self) -> None:
        for row in TABLE.values():
            assert sorted(row) == sorted(provider.name for provider in PROVIDERS)

    @pytest.mark.parametrize(("place", "name", "state"), CASES)
    def test_a_provider_is_what_the_table_says(self, place: str, name: str, state: str) -> None:
        found = availability_of(find_provider(name), machine(place))
        assert found.state == state
        assert found.words

    @pytest.mark.parametrize(("name", "place"), LINES)
    def test_what_can_be_installed_has_its_exact_line(self, name: str, place: str) -> None:
        assert availability_of(find_provider(name), machine(place)).words == LINES[name, place]

    @pytest.mark.parametrize("name", ["directml", "qnn"])
    @pytest.mark.parametrize("place", ["Linux x86_64 WSL2", "Linux arm64 WSL2"])
    def test_under_wsl2_it_is_told_to_run_on_the_windows_side(self, name: str, place: str) -> None:
        words = availability_of(find_provider(name), machine(place)).words
        assert words.startswith("this is WSL2: ")
        assert "run embedmill on the Windows side" in words
        assert "pip" not in words

    def test_elsewhere_it_is_told_where_the_provider_exists(self) -> None:
        words = availability_of(find_provider("directml"), machine("Linux arm64")).words
        assert words == (
            "it exists for Windows (x86_64 or arm64), and this is Linux (arm64);"
            " DirectML is part of Windows; no wheel brings it to another system"
        )


@pytest.mark.usefixtures("bare")
class TestRequire:
    @pytest.mark.parametrize(("place", "name", "state"), CASES)
    def test_only_what_is_installed_may_be_tried(self, place: str, name: str, state: str) -> None:
        provider = find_provider(name)
        if state == IS:
            require(provider, machine(place))
            return
        with pytest.raises(DeviceError) as refused:
            require(provider, machine(place))
        assert refused.value.exit_code == 5
        assert str(refused.value).startswith(name)
        assert "\n" not in str(refused.value)
        assert ("not installed" if state == CAN else "not for this machine") in str(refused.value)

    def test_directml_under_wsl2_is_told_the_truth(self) -> None:
        with pytest.raises(DeviceError) as refused:
            require(find_provider("directml"), machine("Linux arm64 WSL2"))
        assert str(refused.value) == (
            "directml is not for this machine: this is WSL2: no wheel can bring it inside WSL2:"
            " run embedmill on the Windows side (README.md has its three lines)"
        )

    def test_what_can_be_installed_is_told_with_line_and_note(self) -> None:
        with pytest.raises(DeviceError) as refused:
            require(find_provider("webgpu"), machine("Linux x86_64"))
        assert str(refused.value) == (
            "webgpu is not installed: python -m pip install onnxruntime-ep-webgpu;"
            " on Linux it needs libvulkan.so.1 and a Vulkan driver"
        )


class TestInstalled:
    def test_a_built_in_provider_is_one_that_the_runtime_lists(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ort, "get_available_providers", lambda: ["MoonExecutionProvider"])
        assert is_installed(provider_of())
        assert not is_installed(provider_of(ort_name="SunExecutionProvider"))

    def test_a_plugin_is_a_module_that_can_be_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ort, "get_available_providers", lambda: [])
        assert is_installed(provider_of(plugin=Plugin(module="json")))
        assert not is_installed(provider_of(plugin=Plugin(module="no_such_plugin")))

    def test_a_plugin_is_not_imported_to_be_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        looked: list[str] = []
        found: Callable[[str], Any] = importlib.util.find_spec

        def look(name: str) -> Any:
            looked.append(name)
            return found("json")

        monkeypatch.setattr(importlib.util, "find_spec", look)
        assert is_installed(provider_of(plugin=Plugin(module="lunar")))
        assert looked == ["lunar"]

    @pytest.mark.parametrize(("known", "words"), [(True, "onnxruntime 9.8"), (False, f"onnxruntime {ort.__version__}")])
    def test_it_is_told_with_its_version(self, monkeypatch: pytest.MonkeyPatch, known: bool, words: str) -> None:
        def version(package: str) -> str:
            if not known:
                raise metadata.PackageNotFoundError(package)
            return "9.8"

        monkeypatch.setattr(metadata, "version", version)
        assert availability_of(find_provider("cpu"), machine("Linux x86_64")).words == words

    def test_the_cpu_of_this_machine_may_be_tried(self) -> None:
        provider: Provider = find_provider("cpu")
        require(provider, this_machine())


LOST = [
    ("directml", "Windows x86_64", "onnxruntime-directml"),
    ("directml", "Windows arm64", "onnxruntime-windowsml"),
    ("cuda", "Linux x86_64", "onnxruntime-gpu"),
]


@pytest.mark.parametrize(("name", "place", "package"), LOST)
def test_a_runtime_over_another_is_told_with_the_way_back(
    bare: None, monkeypatch: pytest.MonkeyPatch, name: str, place: str, package: str
) -> None:
    installed = {package: "1.24.4", "onnxruntime": "1.31.1"}
    monkeypatch.setattr(metadata, "version", lambda wanted: installed.get(wanted) or _absent(wanted))
    provider = find_provider(name)
    found = availability_of(provider, machine(place))
    assert found.state == "replaced"
    assert found.words == (
        f"onnxruntime 1.31.1 is installed over the files of {package} 1.24.4; undo it: python -m pip uninstall --yes"
        f" onnxruntime; python -m pip install --force-reinstall --no-deps {package}"
    )
    with pytest.raises(DeviceError, match=f"{name} is lost: onnxruntime 1.31.1"):
        require(provider, machine(place))
    assert replaced_providers(PROVIDERS, machine(place)) == [f"{name} is lost: {found.words}"]


def test_two_runtimes_that_lose_no_provider_are_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing_module, "is_installed", lambda provider: provider.name in ("cpu", "cuda"))
    installed = {"onnxruntime-gpu": "1.24.4", "onnxruntime": "1.31.1"}
    monkeypatch.setattr(metadata, "version", lambda wanted: installed.get(wanted) or _absent(wanted))
    assert replaced_providers(PROVIDERS, machine("Linux x86_64")) == []


def _absent(name: str) -> str:
    raise metadata.PackageNotFoundError(name)
