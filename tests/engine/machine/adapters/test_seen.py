"""Every means of a system is asked, and what one of them cannot say keeps no other from saying it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from embedmill.engine.machine.adapters import Adapter, Look, dxgi, seen_adapters, vendor_name, vulkan
from embedmill.engine.machine.adapters.adapter import unnamed
from embedmill.engine.machine.machine import Machine, this_machine
from tests.support.trees import write

LLVMPIPE = Adapter(seen_by="vulkan", name="llvmpipe", kind="cpu")


def machine(system: str, wsl: int = 0) -> Machine:
    return msgspec.structs.replace(this_machine(), system=system, wsl=wsl)


@pytest.fixture(autouse=True)
def vulkan_sees_llvmpipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vulkan, "adapters_in_child", lambda timeout_s: Look(adapters=(LLVMPIPE,)))


def test_linux_is_looked_at_by_its_files_and_vulkan(tmp_path: Path) -> None:
    files = {
        "sys/class/drm/card0/device/uevent": "DRIVER=xe\n",
        "sys/bus/pci/devices/0000:00:02.0/class": "0x030000\n",
        "sys/class/accel/accel0/device/uevent": "DRIVER=intel_vpu\n",
    }
    adapters, reasons = seen_adapters(machine("Linux"), write(tmp_path, files))
    assert [one.seen_by for one in adapters] == ["drm", "accel", "pci", "vulkan"]
    assert reasons == []


def test_reasons_name_the_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vulkan, "adapters_in_child", lambda _: Look(reason="crashed with signal 11"))
    adapters, reasons = seen_adapters(machine("Linux", wsl=2), tmp_path)
    assert adapters == []
    assert [reason.split(":")[0] for reason in reasons] == ["drm", "dxg", "vulkan"]
    assert reasons[-1] == "vulkan: crashed with signal 11"


def test_windows_is_looked_at_by_dxgi_and_vulkan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    radeon = Adapter(seen_by="dxgi", name="Radeon", kind="gpu")
    monkeypatch.setattr(dxgi, "adapters_in_child", lambda timeout_s: Look(adapters=(radeon,), reason=f"{timeout_s}"))
    assert seen_adapters(machine("Windows"), tmp_path, timeout_s=3) == ([radeon, LLVMPIPE], ["dxgi: 3"])


def test_macos_is_looked_at_by_vulkan(tmp_path: Path) -> None:
    assert seen_adapters(machine("Darwin"), tmp_path) == ([LLVMPIPE], [])


@pytest.mark.parametrize(
    ("vendor_id", "name"),
    [
        (0x10DE, "NVIDIA"),
        (0x1002, "AMD"),
        (0x8086, "Intel"),
        (0x4D4F4351, "Qualcomm"),
        (0x5143, "Qualcomm"),
        (0x1414, "Microsoft"),
        (0x106B, "Apple"),
        (0x13B5, "ARM"),
        (0x10005, "Mesa"),
        (0x1AF4, ""),
        (None, ""),
    ],
)
def test_vendors_are_named(vendor_id: int | None, name: str) -> None:
    assert vendor_name(vendor_id) == name


def test_a_device_without_a_name_is_called_by_what_is_known_of_it() -> None:
    assert [unnamed(0x8086, 0x46A6), unnamed(0x1AF4, 0x1050), unnamed(0x10DE, None), unnamed(None, 1)] == [
        "Intel 0x46a6",
        "0x1af4:0x1050",
        "NVIDIA",
        "",
    ]
