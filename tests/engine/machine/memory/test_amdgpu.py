"""The files of amdgpu give readings; whatever is missing from them is unknown."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from embedmill.engine.machine.memory.amdgpu import AmdgpuProbe
from tests.support.readings import GIB, MIB
from tests.support.trees import write

# A Radeon RX 7900 XTX, and the GPU in a processor with 512 MiB set aside for it.
RADEON = {"vram_total": 25753026560, "vram_used": 4294967296, "gtt_total": 33435660288, "gtt_used": 1073741824}
PHOENIX = {"vram_total": 512 * MIB, "vram_used": 92 * MIB, "gtt_total": 8192 * MIB, "gtt_used": 633 * MIB}
RADEON_METRICS, PHOENIX_METRICS = bytes([120, 0, 1, 3]), bytes([0, 1, 3, 0])
CARD = "sys/class/drm/card{}/device"
SLOT = "sys/bus/pci/devices/0000:03:00.0"


def put(root: Path, folder: str, sizes: dict[str, int], metrics: bytes | None = None) -> Path:
    write(root, {f"{folder}/mem_info_{name}": f"{size}\n" for name, size in sizes.items()})
    if metrics is not None:
        (root / folder / "gpu_metrics").write_bytes(metrics + bytes(100))
    return root


def test_a_discrete_gpu_has_its_vram_and_nothing_else(tmp_path: Path) -> None:
    found = AmdgpuProbe(root=put(tmp_path, CARD.format(1), RADEON, RADEON_METRICS)).read()
    assert (found.used_bytes, found.ceiling_bytes) == (4294967296, 25753026560)
    assert found.free_bytes == 25753026560 - 4294967296
    assert (found.scope, found.source, found.own_bytes) == ("device", "amdgpu (VRAM)", None)


def test_an_integrated_gpu_has_gtt_too(tmp_path: Path) -> None:
    root = put(tmp_path, CARD.format(0), PHOENIX, PHOENIX_METRICS)
    found = AmdgpuProbe(root=root, ram=lambda: 64 * GIB).read()
    assert (found.used_bytes, found.ceiling_bytes) == (725 * MIB, 8704 * MIB)
    assert (found.free_bytes, found.source) == (7979 * MIB, "amdgpu (VRAM and GTT)")


def test_of_gtt_no_more_is_free_than_of_ram(tmp_path: Path) -> None:
    root = put(tmp_path, CARD.format(0), PHOENIX, PHOENIX_METRICS)
    found = AmdgpuProbe(root=root, ram=lambda: GIB).read()
    assert found.free_bytes == 420 * MIB + GIB


def test_a_pci_address_tells_gpus_apart(tmp_path: Path) -> None:
    put(tmp_path, SLOT, RADEON, RADEON_METRICS)
    put(tmp_path, "sys/bus/pci/devices/0000:c1:00.0", PHOENIX, PHOENIX_METRICS)
    assert AmdgpuProbe("0000:C1:00.0", root=tmp_path).read().ceiling_bytes == 8704 * MIB
    assert AmdgpuProbe("0000:03:00.0", root=tmp_path).read().ceiling_bytes == 25753026560


def test_integrated_may_be_given_instead_of_read(tmp_path: Path) -> None:
    put(tmp_path, SLOT, PHOENIX)
    assert AmdgpuProbe("0000:03:00.0", integrated=True, root=tmp_path).read().ceiling_bytes == 8704 * MIB
    assert AmdgpuProbe("0000:03:00.0", integrated=False, root=tmp_path).read().ceiling_bytes == 512 * MIB


@pytest.mark.parametrize(
    ("metrics", "reason"), [(None, "(gpu_metrics)"), (b"\x01", "(gpu_metrics)"), (bytes([0, 0, 9, 0]), "revision 9")]
)
def test_a_gpu_that_may_be_either_is_unknown(tmp_path: Path, metrics: bytes | None, reason: str) -> None:
    put(tmp_path, SLOT, PHOENIX)
    if metrics is not None:
        (tmp_path / SLOT / "gpu_metrics").write_bytes(metrics)
    found = AmdgpuProbe("0000:03:00.0", root=tmp_path).read()
    assert (found.free_bytes, found.scope) == (None, "unknown")
    assert reason in found.reason


@pytest.mark.parametrize("cards", [0, 2])
def test_one_of_several_gpus_is_not_guessed(tmp_path: Path, cards: int) -> None:
    for card in range(cards):
        put(tmp_path, CARD.format(card), RADEON, RADEON_METRICS)
    found = AmdgpuProbe(root=tmp_path).read()
    assert found.free_bytes is None
    assert found.reason.startswith(f"amdgpu drives {cards} GPUs")


def test_cards_of_other_drivers_are_not_counted(tmp_path: Path) -> None:
    write(tmp_path, {"sys/class/drm/card0/device/uevent": "DRIVER=i915\n", "sys/class/drm/card1-DP-1/status": "off\n"})
    assert AmdgpuProbe(root=put(tmp_path, CARD.format(1), RADEON, RADEON_METRICS)).read().free_bytes is not None


@pytest.mark.parametrize("name", ["vram_total", "vram_used", "gtt_total", "gtt_used"])
def test_a_size_that_is_missing_makes_it_unknown(tmp_path: Path, name: str) -> None:
    put(tmp_path, SLOT, PHOENIX)
    (tmp_path / SLOT / f"mem_info_{name}").unlink()
    found = AmdgpuProbe("0000:03:00.0", integrated=True, root=tmp_path).read()
    assert found.free_bytes is None
    assert f"mem_info_{name} has no size" in found.reason


def test_a_gpu_that_vanishes_is_unknown_and_known_again_when_it_is_back(tmp_path: Path) -> None:
    """A reset, or a suspended device."""
    probe = AmdgpuProbe(root=put(tmp_path, CARD.format(0), RADEON, RADEON_METRICS))
    before = probe.read()
    (tmp_path / CARD.format(0) / "mem_info_vram_used").write_text("")
    assert probe.read().free_bytes is None
    put(tmp_path, CARD.format(0), RADEON)
    assert probe.read() == before


def test_more_used_than_there_is_leaves_nothing(tmp_path: Path) -> None:
    put(tmp_path, SLOT, RADEON | {"vram_used": 26 * GIB}, RADEON_METRICS)
    assert AmdgpuProbe("0000:03:00.0", root=tmp_path).read().free_bytes == 0


def test_unknown_ram_makes_an_integrated_gpu_unknown(tmp_path: Path) -> None:
    def fails() -> int:
        raise psutil.Error("no meminfo")

    put(tmp_path, SLOT, PHOENIX, PHOENIX_METRICS)
    assert AmdgpuProbe("0000:03:00.0", root=tmp_path, ram=fails).read().free_bytes is None


def test_a_closed_probe_is_unknown(tmp_path: Path) -> None:
    probe = AmdgpuProbe(root=put(tmp_path, CARD.format(0), RADEON, RADEON_METRICS))
    probe.close()
    assert probe.read().reason == "the probe was closed"
