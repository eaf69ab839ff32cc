"""GPUs with a Linux graphics driver: /sys/class/drm."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from embedmill.engine.machine.adapters.adapter import Adapter, Detection, Kind
from embedmill.engine.machine.adapters.sysfs import access_problem, numbered_entries, read_adapter, read_number

# Drivers of devices that exist in software only; what draws for them is not known here.
_VIRTUAL = {"vgem", "vkms", "virtio_gpu", "virtio-pci"}


def detect(root: Path = Path("/")) -> Detection:
    """Detect every card of /sys/class/drm."""
    folder = root / "sys/class/drm"
    if not folder.is_dir():
        return Detection(reason="there is no /sys/class/drm: no graphics driver is loaded")
    return Detection(adapters=tuple(_adapter(card, root) for card in numbered_entries(folder, "card")))


def _adapter(card: Path, root: Path) -> Adapter:
    folder = card / "device"
    adapter = read_adapter("drm", folder, root, card)
    render = next(numbered_entries(folder / "drm", "renderD"), None)
    kind, note = _kind(adapter.driver, render)
    return replace(
        adapter,
        kind=kind,
        # Only amdgpu has these files (Documentation/gpu/amdgpu/driver-misc.rst of the kernel).
        memory_bytes=read_number(folder / "mem_info_vram_total"),
        shared_memory_bytes=read_number(folder / "mem_info_gtt_total"),
        note=note or (access_problem(root / "dev/dri" / render.name) if render else ""),
    )


def _kind(driver: str, render: Path | None) -> tuple[Kind, str]:
    if driver.partition(" ")[0] in _VIRTUAL:
        return "unknown", "a virtual device"
    return ("gpu", "") if render else ("unknown", "display only: without a render node it cannot compute")
