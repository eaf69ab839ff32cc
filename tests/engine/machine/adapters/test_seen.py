"""Every interface of a system is queried; the failure of one does not affect the others."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from embedmill.engine.machine.adapters import Adapter, Detection, detect_adapters, dxgi, vendor_name, vulkan
from embedmill.engine.machine.adapters.adapter import fallback_name
from embedmill.engine.machine.machine import Machine, this_machine
from tests.support.trees import write

LLVMPIPE = Adapter(seen_by="vulkan", name="llvmpipe", kind="cpu")


def machine(system: str, wsl: int = 0) -> Machine:
    return msgspec.structs.replace(this_machine(), system=system, wsl=wsl)


def llvmpipe(module: str, timeout_s: float) -> Detection:
    assert (module, timeout_s > 0) == (vulkan.__name__, True)
    return Detection(adapters=(LLVMPIPE,))


def test_linux_is_queried_through_files_and_vulkan(tmp_path: Path) -> None:
    files = {
        "sys/class/drm/card0/device/uevent": "DRIVER=xe\n",
        "sys/bus/pci/devices/0000:00:02.0/class": "0x030000\n",
        "sys/class/accel/accel0/device/uevent": "DRIVER=intel_vpu\n",
    }
    adapters, reasons = detect_adapters(machine("Linux"), write(tmp_path, files), in_child=llvmpipe)
    assert [one.seen_by for one in adapters] == ["drm", "accel", "pci", "vulkan"]
    assert reasons == []


def test_reasons_name_the_interface(tmp_path: Path) -> None:
    crash = Detection(reason="crashed with signal 11")
    adapters, reasons = detect_adapters(machine("Linux", wsl=2), tmp_path, in_child=lambda *_: crash)
    assert adapters == []
    assert [reason.split(":")[0] for reason in reasons] == ["drm", "dxg", "vulkan"]
    assert reasons[-1] == "vulkan: crashed with signal 11"


def test_windows_is_queried_through_dxgi_and_vulkan(tmp_path: Path) -> None:
    radeon = Adapter(seen_by="dxgi", name="Radeon", kind="gpu")

    def drivers(module: str, timeout_s: float) -> Detection:
        dxgi_found = Detection(adapters=(radeon,), reason=f"{timeout_s}")
        return dxgi_found if module == dxgi.__name__ else llvmpipe(module, timeout_s)

    found = detect_adapters(machine("Windows"), tmp_path, timeout_s=3, in_child=drivers)
    assert found == ([radeon, LLVMPIPE], ["dxgi: 3"])


def test_macos_is_queried_through_vulkan(tmp_path: Path) -> None:
    assert detect_adapters(machine("Darwin"), tmp_path, in_child=llvmpipe) == ([LLVMPIPE], [])


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
    ids = [(0x8086, 0x46A6), (0x1AF4, 0x1050), (0x10DE, None), (None, 1)]
    assert [fallback_name(*pair) for pair in ids] == ["Intel 0x46a6", "0x1af4:0x1050", "NVIDIA", ""]
