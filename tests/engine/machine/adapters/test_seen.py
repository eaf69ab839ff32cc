"""Every means of a system is asked, and what one of them cannot say keeps no other from saying it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from embedmill.engine.machine import adapters as scanned
from embedmill.engine.machine.adapters import Adapter, Scan, seen_adapters, vendor_name
from embedmill.engine.machine.adapters.adapter import unnamed
from embedmill.engine.machine.machine import Machine, this_machine
from tests.support.trees import write

LLVMPIPE = Adapter(seen_by="vulkan", name="llvmpipe", kind="cpu")
ROOM = "embedmill.engine.machine.adapters"


def machine(system: str, wsl: int = 0) -> Machine:
    return msgspec.structs.replace(this_machine(), system=system, wsl=wsl)


def answer_with(monkeypatch: pytest.MonkeyPatch, **scans: Scan) -> None:
    """Let children answer: a scan by the module that a child runs for 3 seconds at most."""
    answers = {(f"{ROOM}.{name}", 3): scan for name, scan in scans.items()}
    monkeypatch.setattr(scanned, "scan_in_child", lambda module, timeout_s: answers[module, timeout_s])


@pytest.fixture(autouse=True)
def vulkan_sees_llvmpipe(monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(monkeypatch, vulkan=Scan(adapters=(LLVMPIPE,)))


def test_linux_is_looked_at_by_its_files_and_vulkan(tmp_path: Path) -> None:
    files = {
        "sys/class/drm/card0/device/uevent": "DRIVER=xe\n",
        "sys/bus/pci/devices/0000:00:02.0/class": "0x030000\n",
        "sys/class/accel/accel0/device/uevent": "DRIVER=intel_vpu\n",
    }
    adapters, reasons = seen_adapters(machine("Linux"), write(tmp_path, files), 3)
    assert [one.seen_by for one in adapters] == ["drm", "accel", "pci", "vulkan"]
    assert reasons == []


def test_reasons_name_the_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(monkeypatch, vulkan=Scan(reason="crashed with signal 11"))
    adapters, reasons = seen_adapters(machine("Linux", wsl=2), tmp_path, 3)
    assert adapters == []
    assert [reason.split(":")[0] for reason in reasons] == ["drm", "dxg", "vulkan"]
    assert reasons[-1] == "vulkan: crashed with signal 11"


def test_windows_is_looked_at_by_dxgi_and_vulkan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    radeon = Adapter(seen_by="dxgi", name="Radeon", kind="gpu")
    found = {"dxgi": Scan(adapters=(radeon,), reason="one is gone"), "vulkan": Scan(adapters=(LLVMPIPE,))}
    answer_with(monkeypatch, **found)
    assert seen_adapters(machine("Windows"), tmp_path, 3) == ([radeon, LLVMPIPE], ["dxgi: one is gone"])


def test_macos_is_looked_at_by_vulkan(tmp_path: Path) -> None:
    assert seen_adapters(machine("Darwin"), tmp_path, 3) == ([LLVMPIPE], [])


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
