"""GPUs and NPUs are detected from /sys, /proc and /dev."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from embedmill.engine.machine.adapters import Adapter, Detection, accel, drm, dxg, pci
from embedmill.engine.machine.machine import Machine, this_machine
from tests.support.trees import write

RADEON = {
    "uevent": "DRIVER=amdgpu\nPCI_CLASS=30000\nPCI_ID=1002:744C\nPCI_SLOT_NAME=0000:03:00.0\n",
    "vendor": "0x1002\n",
    "device": "0x744c\n",
    "mem_info_vram_total": "25753026560\n",
    "mem_info_gtt_total": "33435660288\n",
    "drm/renderD128/dev": "226:128\n",
}
GEFORCE = {
    "uevent": "DRIVER=nvidia\nPCI_CLASS=30000\nPCI_ID=10DE:2684\nPCI_SLOT_NAME=0000:01:00.0\n",
    "vendor": "0x10de\n",
    "device": "0x2684\n",
    "drm/renderD129/dev": "226:129\n",
}
NVIDIA_DRIVER = {
    "sys/module/nvidia/version": "550.120\n",
    "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA GeForce RTX 4090\nIRQ:   \t\t 142\n",
}
ADRENO = {
    "uevent": "DRIVER=msm_dpu\nOF_NAME=display-controller\nOF_COMPATIBLE_0=qcom,x1e80100-dpu\nOF_COMPATIBLE_N=1\n",
    "drm/renderD128/dev": "226:128\n",
}
BMC = {"uevent": "DRIVER=ast\nPCI_ID=1A03:2000\nPCI_SLOT_NAME=0000:02:00.0\n", "vendor": "0x1a03", "device": "0x2000"}
VIRTIO = {"uevent": "DRIVER=virtio_gpu\n", "vendor": "0x1af4\n", "device": "0x1050\n", "drm/renderD128/dev": ""}
INTEL_NPU = {
    "uevent": "DRIVER=intel_vpu\nPCI_ID=8086:7D1D\nPCI_SLOT_NAME=0000:00:0b.0\n",
    "vendor": "0x8086\n",
    "device": "0x7d1d\n",
}


def below(folder: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{folder}/{name}": content for name, content in files.items()}


def card(number: int, files: dict[str, str]) -> dict[str, str]:
    return below(f"sys/class/drm/card{number}/device", files)


def machine(**changes: object) -> Machine:
    return msgspec.structs.replace(this_machine(), system="Linux", **changes)


def only(look: Detection) -> Adapter:
    assert look.reason == ""
    (adapter,) = look.adapters
    return adapter


def test_an_amd_card_tells_its_memory(tmp_path: Path) -> None:
    assert only(drm.detect(write(tmp_path, card(0, RADEON)))) == Adapter(
        seen_by="drm",
        name="AMD 0x744c",
        kind="gpu",
        vendor_id=0x1002,
        device_id=0x744C,
        memory_bytes=25753026560,
        shared_memory_bytes=33435660288,
        driver="amdgpu",
    )


def test_an_nvidia_card_has_the_name_and_version_of_its_driver(tmp_path: Path) -> None:
    found = only(drm.detect(write(tmp_path, card(1, GEFORCE) | NVIDIA_DRIVER)))
    assert (found.name, found.driver, found.memory_bytes) == ("NVIDIA GeForce RTX 4090", "nvidia 550.120", None)


def test_a_card_without_a_bus_is_named_by_its_device_tree(tmp_path: Path) -> None:
    found = only(drm.detect(write(tmp_path, card(0, ADRENO))))
    assert (found.name, found.kind, found.vendor_id) == ("qcom,x1e80100-dpu", "gpu", None)


def test_what_only_shows_pictures_is_not_called_a_gpu(tmp_path: Path) -> None:
    found = only(drm.detect(write(tmp_path, card(0, BMC))))
    assert (found.name, found.kind) == ("0x1a03:0x2000", "unknown")
    assert "cannot compute" in found.note


def test_a_virtual_card_is_unknown(tmp_path: Path) -> None:
    assert only(drm.detect(write(tmp_path, card(0, VIRTIO)))).kind == "unknown"


def test_cards_come_by_number_and_their_connectors_are_none(tmp_path: Path) -> None:
    files = card(10, GEFORCE) | card(2, RADEON) | {"sys/class/drm/card2-DP-1/status": "connected\n"}
    assert [found.driver for found in drm.detect(write(tmp_path, files)).adapters] == ["amdgpu", "nvidia"]


def test_a_card_that_says_nothing_is_still_a_card(tmp_path: Path) -> None:
    found = only(drm.detect(write(tmp_path, card(0, {"vendor": "what?\n"}))))
    assert (found.name, found.kind, found.vendor_id, found.driver) == ("card0", "unknown", None, "")


def test_without_a_graphics_driver_the_reason_is_told(tmp_path: Path) -> None:
    assert drm.detect(tmp_path) == Detection(reason="there is no /sys/class/drm: no graphics driver is loaded")


def test_a_node_that_the_user_may_not_open_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = card(0, RADEON) | below("sys/class/accel/accel0/device", INTEL_NPU)
    write(tmp_path, files | {"dev/dri/renderD128": "", "dev/accel/accel0": ""})
    assert only(drm.detect(tmp_path)).note == ""
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "may not open" in only(drm.detect(tmp_path)).note
    assert "may not open" in only(accel.detect(tmp_path)).note


def test_an_npu_is_known_by_its_driver(tmp_path: Path) -> None:
    write(tmp_path, below("sys/class/accel/accel0/device", INTEL_NPU))
    write(tmp_path, below("sys/class/accel/accel1/device", {"uevent": "DRIVER=habanalabs\n"}))
    found = accel.detect(tmp_path)
    assert [(one.name, one.kind) for one in found.adapters] == [("Intel 0x7d1d", "npu"), ("habanalabs", "unknown")]
    assert found.reason == ""


def test_no_npu_is_no_reason(tmp_path: Path) -> None:
    assert accel.detect(tmp_path) == Detection()


def test_the_dsp_of_a_snapdragon_is_one_npu(tmp_path: Path) -> None:
    write(tmp_path, {"dev/fastrpc-cdsp": "", "dev/fastrpc-cdsp-secure": "", "dev/fastrpc-adsp": ""})
    found = only(accel.detect(tmp_path))
    assert (found.seen_by, found.kind, found.vendor_id) == ("fastrpc", "npu", 0x5143)


def test_the_pci_bus_shows_what_has_no_driver(tmp_path: Path) -> None:
    bus = "sys/bus/pci/devices"
    write(tmp_path, below(f"{bus}/0000:03:00.0", RADEON | {"class": "0x030000\n"}))
    nameless = GEFORCE | {"uevent": "PCI_SLOT_NAME=0000:01:00.0\n", "class": "0x030200\n"}
    write(tmp_path, below(f"{bus}/0000:01:00.0", nameless))
    write(tmp_path, below(f"{bus}/0000:00:0b.0", INTEL_NPU | {"class": "0x120000\n"}))
    write(tmp_path, below(f"{bus}/0000:00:1f.3", {"class": "0x040300\n", "vendor": "0x8086\n", "device": "0x51c8\n"}))
    found = pci.detect(tmp_path).adapters
    assert [(one.name, one.driver, one.note) for one in found] == [
        ("Intel 0x7d1d", "intel_vpu", ""),
        ("NVIDIA 0x2684", "", "no driver is loaded for it"),
        ("AMD 0x744c", "amdgpu", ""),
    ]


def test_no_pci_bus_is_no_reason(tmp_path: Path) -> None:
    assert pci.detect(tmp_path) == Detection()


def test_wsl2_with_a_shared_gpu_shows_its_node(tmp_path: Path) -> None:
    write(tmp_path, {"dev/dxg": "", "usr/lib/wsl/lib/libd3d12.so": ""})
    found = only(dxg.detect(machine(wsl=2), tmp_path))
    assert (found.kind, found.integrated, found.note) == ("unknown", None, "")


def test_wsl2_without_the_library_of_direct3d_says_so(tmp_path: Path) -> None:
    write(tmp_path, {"dev/dxg": ""})
    assert only(dxg.detect(machine(wsl=2), tmp_path)).note == "/usr/lib/wsl/lib/libd3d12.so is missing"


@pytest.mark.parametrize(("wsl", "word"), [(0, ""), (1, "WSL 1 shows no device"), (2, "there is no /dev/dxg")])
def test_without_its_node_the_reason_depends_on_wsl(tmp_path: Path, wsl: int, word: str) -> None:
    found = dxg.detect(machine(wsl=wsl), tmp_path)
    assert found.adapters == ()
    assert found.reason.startswith(word)
    assert bool(found.reason) == bool(word)
