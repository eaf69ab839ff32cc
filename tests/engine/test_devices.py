"""The most powerful device is the default, any of them can be named, and what cannot be is told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata
from types import ModuleType
from typing import Any

import onnxruntime as ort
import pytest

from embedmill.base.errors import DeviceError
from embedmill.engine import devices
from embedmill.engine.catalogue.entry import DeviceChoice, Plugin
from embedmill.engine.catalogue.runtimes import RUNTIMES
from embedmill.engine.devices import Device, devices_of, first_line, select_device
from tests.support.fake_devices import device_of, runtime_device
from tests.support.works import provider_of

INTEGRATED = device_of(0, name="Iris Xe", luid="00000000-0001A2B3", discrete=False)
DISCRETE = device_of(1, name="RTX 4060 Laptop", luid="4711", discrete=True)
NPU = device_of(2, kind="npu", name="Hexagon", discrete=None)
PROCESSOR = device_of(3, kind="cpu", name="Core i7-1255U")
ALL = [INTEGRATED, DISCRETE, NPU, PROCESSOR]


class TestSelect:
    @pytest.mark.parametrize(
        ("kinds", "expected"),
        [
            (("gpu", "npu", "cpu"), DISCRETE),
            (("npu", "gpu"), NPU),
            (("cpu",), PROCESSOR),
        ],
        ids=str,
    )
    def test_the_default_is_the_kind_the_provider_prefers_and_discrete_before_integrated(
        self, kinds: tuple[str, ...], expected: Device
    ) -> None:
        assert select_device(provider_of(kinds=kinds), ALL, None) == expected

    def test_a_device_that_does_not_say_is_no_discrete_one(self) -> None:
        unsaid = device_of(0, name="Unsaid")
        assert select_device(provider_of(), [unsaid, DISCRETE], None) == DISCRETE

    def test_equal_devices_keep_the_order_of_the_runtime(self) -> None:
        twins = [device_of(0, name="A", discrete=True), device_of(1, name="B", discrete=True)]
        assert select_device(provider_of(), twins, None) == twins[0]

    def test_a_kind_that_the_provider_was_not_made_for_comes_last(self) -> None:
        assert select_device(provider_of(kinds=("npu",)), [PROCESSOR, NPU], None) == NPU
        assert select_device(provider_of(kinds=("npu",)), [PROCESSOR], None) == PROCESSOR

    def test_where_the_system_ranks_them_its_rank_comes_before_discrete(self) -> None:
        provider = provider_of(kinds=("gpu", "npu"), device=DeviceChoice(option="id", metadata="Number", rank="Rank"))
        first, second = device_of(0, discrete=True, Rank="10"), device_of(1, discrete=False, Rank="9")
        npu = device_of(2, kind="npu", Rank="0")
        assert select_device(provider, [npu, first, second], None) == second
        assert select_device(provider_of(), [first, second], None) == first

    def test_a_rank_that_is_no_number_does_not_count(self) -> None:
        provider = provider_of(device=DeviceChoice(option="id", metadata="Number", rank="Rank"))
        odd, discrete = device_of(0, Rank="none"), device_of(1, discrete=True, Rank="0")
        assert select_device(provider, [odd, discrete], None) == discrete

    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            ("0", INTEGRATED),
            ("3", PROCESSOR),
            ("00000000-0001a2b3", INTEGRATED),
            ("4711", DISCRETE),
            ("rtx", DISCRETE),
            ("iris xe", INTEGRATED),
            (" Hexagon ", NPU),
            ("discrete", DISCRETE),
            ("Integrated", INTEGRATED),
            ("gpu", DISCRETE),
            ("npu", NPU),
            ("cpu", PROCESSOR),
        ],
    )
    def test_a_device_is_named_by_number_luid_name_or_kind(self, wanted: str, expected: Device) -> None:
        assert select_device(provider_of(kinds=("gpu", "npu", "cpu")), ALL, wanted) == expected

    def test_a_number_is_no_part_of_a_name(self) -> None:
        with pytest.raises(DeviceError):
            select_device(provider_of(), ALL, "4060")

    @pytest.mark.parametrize("wanted", ["9", "arc", "npu"])
    def test_what_is_not_there_lists_what_is(self, wanted: str) -> None:
        with pytest.raises(DeviceError) as refused:
            select_device(provider_of(), [INTEGRATED, DISCRETE], wanted)
        assert str(refused.value) == (
            f"moon has no device {wanted!r}; `engine.device` (--device) can name one of:"
            " 0: Iris Xe (gpu); 1: RTX 4060 Laptop (gpu)"
        )

    def test_without_devices_none_is_the_only_one(self) -> None:
        assert select_device(provider_of(), [], None) is None
        with pytest.raises(DeviceError, match=r"can name one of: none$"):
            select_device(provider_of(), [], "gpu")


class TestDescribe:
    def listed(self, monkeypatch: pytest.MonkeyPatch, *found: Any, kinds: tuple[str, ...] = ("gpu",)) -> list[Device]:
        monkeypatch.setattr(ort, "get_ep_devices", lambda: list(found))
        return devices_of(provider_of(kinds=kinds))

    def test_a_device_is_what_the_runtime_says_of_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = runtime_device(Description="RTX 4060", LUID="77", Discrete="1", ep_version=3, option_device_id=1)
        [device] = self.listed(monkeypatch, found)
        assert device == device_of(
            name="RTX 4060",
            luid="77",
            discrete=True,
            Description="RTX 4060",
            LUID="77",
            Discrete="1",
            version="3",
            device_id="1",
        )
        assert device.label == "RTX 4060"

    def test_devices_of_other_providers_are_left_out_and_the_rest_is_counted(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = [runtime_device(provider="CPUExecutionProvider"), runtime_device(), runtime_device("NPU")]
        assert [(device.index, device.kind) for device in self.listed(monkeypatch, *found)] == [(0, "gpu"), (1, "npu")]

    def test_a_device_without_a_name_is_called_by_maker_and_kind(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert [
            device.name
            for device in self.listed(monkeypatch, runtime_device(), runtime_device(FULL_DEVICE_NAME="Intel(R) AI"))
        ] == ["Lunar GPU", "Intel(R) AI"]

    @pytest.mark.parametrize(("said", "discrete"), [({"Discrete": "1"}, True), ({"Discrete": "0"}, False), ({}, None)])
    def test_whether_it_is_discrete_is_only_known_where_it_is_said(
        self, monkeypatch: pytest.MonkeyPatch, said: dict[str, str], discrete: bool | None
    ) -> None:
        assert [device.discrete for device in self.listed(monkeypatch, runtime_device(**said))] == [discrete]

    def test_a_device_of_a_kind_that_the_provider_was_not_made_for_is_emulated(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = self.listed(monkeypatch, runtime_device("NPU"), runtime_device("CPU"), kinds=("npu",))
        assert [(device.emulated, device.label) for device in found] == [
            (False, "Lunar NPU"),
            (True, "Lunar CPU (emulated)"),
        ]


class TestPlugin:
    MODULE = "lunar_plugin"

    @pytest.fixture
    def plugin(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
        """A plugin package that gives a path; what was registered, as (provider, path)."""
        module = ModuleType(self.MODULE)
        module.get_library_path = lambda: "/nowhere/liblunar.so"  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, self.MODULE, module)
        registered: list[tuple[str, str]] = []
        monkeypatch.setattr(
            ort, "register_execution_provider_library", lambda name, path: registered.append((name, path))
        )
        devices._register.cache_clear()
        yield registered
        devices._register.cache_clear()

    def test_its_library_is_registered_once_under_the_name_of_its_provider(
        self, plugin: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ort, "get_ep_devices", lambda: [runtime_device()])
        provider = provider_of(plugin=Plugin(module=self.MODULE))
        assert len(devices_of(provider)) == len(devices_of(provider)) == 1
        assert plugin == [("MoonExecutionProvider", "/nowhere/liblunar.so")]

    @pytest.mark.parametrize("version", ["0.1.0", None])
    def test_a_library_that_cannot_be_loaded_names_both_versions_and_the_remedy(
        self, plugin: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch, version: str | None
    ) -> None:
        def refuse(*_: object) -> None:
            raise RuntimeError("API version [30] is not supported\nsecond line")

        def installed(package: str) -> str:
            if version is None:
                raise metadata.PackageNotFoundError(package)
            if package in RUNTIMES[1:]:
                raise metadata.PackageNotFoundError(package)
            return version

        monkeypatch.setattr(ort, "register_execution_provider_library", refuse)
        monkeypatch.setattr(metadata, "version", installed)
        with pytest.raises(DeviceError) as refused:
            devices_of(provider_of(plugin=Plugin(module=self.MODULE)))
        assert str(refused.value) == (
            f"MoonExecutionProvider: ONNX Runtime {ort.__version__} cannot load lunar-plugin"
            f" {version or 'of unknown version'} (API version [30] is not supported);"
            " update both: python -m pip install --upgrade onnxruntime lunar-plugin"
        )

    def test_a_package_that_cannot_be_imported_is_named(self) -> None:
        with pytest.raises(DeviceError, match="MoonExecutionProvider: no_such_plugin cannot be imported"):
            devices_of(provider_of(plugin=Plugin(module="no_such_plugin")))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("short", "short"),
        ("  first\nsecond", "first"),
        ("x" * 300, "x" * 300),
        ("a" * 500 + "the cause", f"... {'a' * 291}the cause"),
    ],
    ids=["short", "lines", "just", "long"],
)
def test_of_what_the_runtime_says_one_line_is_told_and_of_a_long_one_its_end(said: str, told: str) -> None:
    assert first_line(RuntimeError(said)) == told
