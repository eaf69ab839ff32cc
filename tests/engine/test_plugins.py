"""Plugin libraries, found in packages and in a stand-in for the catalogue of Windows ML."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import onnxruntime as ort
import pytest
from msgspec import structs

from embedmill.base.errors import DeviceError
from embedmill.engine import plugins
from embedmill.engine.availability import availability_of, fetch_by_windows
from embedmill.engine.catalogue import find_provider
from embedmill.engine.machine.machine import Machine, this_machine
from embedmill.engine.plugins import is_installed, library_of, plugin_of
from embedmill.jobs.doctor import examine
from tests.support.works import provider_of

KEPT = {
    "QNNExecutionProvider": "Ready",
    "OpenVINOExecutionProvider": "NotReady",
    "VitisAIExecutionProvider": "NotPresent",
}
DOWNLOAD = "embedmill doctor --allow-provider-download lets Windows fetch it"


class Catalogue:
    """Stands in for `windowsml`: what it was asked to make ready, and whether that fails."""

    def __init__(self, kept: dict[str, str]) -> None:
        self.kept = dict(kept)
        self.readied: list[str] = []
        self.failure: OSError | None = None
        self.opened = 0

    def __call__(self) -> Catalogue:
        if self.failure is not None and self.opened == 0:
            raise self.failure
        self.opened += 1
        return self

    def __enter__(self) -> Catalogue:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def find_all_providers(self) -> list[Any]:
        def provider(name: str) -> Any:
            def ensure_ready() -> None:
                if self.failure is not None:
                    raise self.failure
                self.readied.append(name)
                self.kept[name] = "Ready"

            state = SimpleNamespace(name=self.kept[name])
            path = f"C:\\Program Files\\WindowsApps\\{name}.dll"
            return SimpleNamespace(name=name, ready_state=state, ensure_ready=ensure_ready, library_path=path)

        return [provider(name) for name in self.kept]


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalogue]:
    module, found = ModuleType("windowsml"), Catalogue(KEPT)
    module.__spec__ = ModuleSpec("windowsml", None)
    module.EpCatalog = found  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "windowsml", module)
    plugins._states.cache_clear()
    yield found
    plugins._states.cache_clear()


@pytest.fixture
def windows() -> Machine:
    return structs.replace(this_machine(), system="Windows", architecture="x86_64", wsl=0)


def library(name: str) -> str:
    plugin = plugin_of(find_provider(name).ort)
    assert plugin is not None
    return library_of(plugin, find_provider(name).ort.name)


@pytest.mark.parametrize(
    ("name", "state", "words"),
    [
        ("qnn", "installed", "Windows ML"),
        ("openvino", "installed", "Windows ML"),
        ("vitisai", "installable", DOWNLOAD),
        ("migraphx", "elsewhere", "Windows ML has .* for this machine, and not this"),
        ("tensorrt", "installable", "python -m pip install onnxruntime-ep-nv-tensorrt-rtx"),
        ("webgpu", "installable", "python -m pip install onnxruntime-ep-webgpu"),
    ],
)
def test_what_windows_has_counts_as_installed_and_nothing_is_fetched_unasked(
    catalogue: Catalogue, windows: Machine, name: str, state: str, words: str
) -> None:
    found = availability_of(find_provider(name), windows)
    assert found.state == state
    assert re.search(words, found.words)
    assert catalogue.readied == []


def test_an_empty_catalogue_is_not_told_to_be_installed_again(catalogue: Catalogue, windows: Machine) -> None:
    catalogue.kept = {}
    found = availability_of(find_provider("vitisai"), windows)
    assert (found.state, found.words) == ("elsewhere", "Windows ML has nothing for this machine")
    assert availability_of(find_provider("openvino"), windows).words == "python -m pip install onnxruntime-ep-openvino"


def test_the_library_of_what_windows_has_is_its_own(catalogue: Catalogue) -> None:
    assert library("openvino").endswith("OpenVINOExecutionProvider.dll")
    assert catalogue.readied == ["OpenVINOExecutionProvider"]
    with pytest.raises(DeviceError, match="Windows has it no more"):
        library("vitisai")
    assert catalogue.readied == ["OpenVINOExecutionProvider"]


def test_names_of_the_catalogue_may_differ_in_capitals(catalogue: Catalogue) -> None:
    catalogue.kept = {"NvTensorRtRtxExecutionProvider": "Ready"}
    assert library("tensorrt").endswith("NvTensorRtRtxExecutionProvider.dll")


def test_windows_fetches_what_it_is_asked_for_once(catalogue: Catalogue, windows: Machine) -> None:
    for _ in range(2):
        for name in ("vitisai", "qnn", "webgpu", "migraphx"):
            fetch_by_windows(find_provider(name), windows)
    assert catalogue.readied == ["VitisAIExecutionProvider"]
    assert availability_of(find_provider("vitisai"), windows).state == "installed"
    fetch_by_windows(find_provider("migraphx"), structs.replace(windows, system="Linux"))
    assert catalogue.readied == ["VitisAIExecutionProvider"]


def test_a_fetch_that_fails_is_one_finding(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, windows: Machine
) -> None:
    monkeypatch.setattr("embedmill.jobs.doctor.this_machine", lambda: windows)
    provider = find_provider("vitisai")
    assert [one.state for one in examine("nowhere", providers=[provider]).findings] == ["installable"]
    catalogue.failure = OSError("0x80073D02")
    (finding,) = examine("nowhere", providers=[provider], allow_provider_download=True).findings
    assert finding.state == "fails"
    assert finding.words == (
        "VitisAIExecutionProvider: Windows cannot make it ready (0x80073D02); update Windows and try again"
    )


@pytest.mark.parametrize("error", [OSError("Class not registered"), FileNotFoundError("a DLL is missing")])
def test_an_older_windows_has_no_catalogue(catalogue: Catalogue, windows: Machine, error: OSError) -> None:
    catalogue.failure = error
    found = availability_of(find_provider("vitisai"), windows)
    assert (found.state, found.words) == (
        "elsewhere",
        f"the catalogue of Windows ML cannot be read ({error}); it needs Windows 11, version 24H2 or later",
    )
    assert availability_of(find_provider("openvino"), windows).words == "python -m pip install onnxruntime-ep-openvino"


def test_a_provider_that_is_built_in_needs_no_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    migraphx = find_provider("migraphx").ort
    assert plugin_of(migraphx) is not None
    monkeypatch.setattr(ort, "get_available_providers", lambda: [migraphx.name, "CPUExecutionProvider"])
    assert plugin_of(migraphx) is None


def test_each_package_names_its_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnxruntime_ep_mlx.py").write_text("def library_path(): return '/mlx.dylib'\n")
    (tmp_path / "onnxruntime_ep_nv_tensorrt_rtx.py").write_text("def get_library_path(): return '/rtx.so'\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert (library("mlx"), library("tensorrt")) == ("/mlx.dylib", "/rtx.so")
    plugin = provider_of(plugin=find_provider("mlx").ort.plugin).ort.plugin
    assert plugin is not None
    assert is_installed(plugin, "MoonExecutionProvider")
