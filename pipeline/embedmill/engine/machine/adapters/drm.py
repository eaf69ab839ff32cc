"""Read GPUs with a graphics driver from Linux: /sys/class/drm.

Files of a card: Documentation/ABI/testing/sysfs-bus-pci and Documentation/gpu/amdgpu/driver-misc.rst of the kernel.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import structs

from embedmill.engine.machine.adapters.adapter import Adapter, Kind, Scan
from embedmill.engine.machine.adapters.sysfs import access_problem, device_at, number, numbered

# Drivers of virtual devices: which hardware renders for them, sysfs does not say.
_VIRTUAL = {"vgem", "vkms", "virtio_gpu", "virtio-pci"}


def scan(root: Path = Path("/")) -> Scan:
    """Return every card of /sys/class/drm."""
    folder = root / "sys/class/drm"
    if not folder.is_dir():
        return Scan(reason="there is no /sys/class/drm: no graphics driver is loaded")
    return Scan(adapters=tuple(_adapter(card, root) for card in numbered(folder, "card")))


def _adapter(card: Path, root: Path) -> Adapter:
    folder = card / "device"
    device = device_at(folder, root, card, seen_by="drm")
    render = next(numbered(folder / "drm", "renderD"), None)
    kind, note = _kind(device, render)
    return structs.replace(
        device,
        kind=kind,
        # Only the amdgpu driver has these files.
        memory_bytes=number(folder / "mem_info_vram_total"),
        shared_memory_bytes=number(folder / "mem_info_gtt_total"),
        note=note or (access_problem(root / "dev/dri" / render.name) if render else ""),
    )


def _kind(device: Adapter, render: Path | None) -> tuple[Kind, str]:
    if device.driver.partition(" ")[0] in _VIRTUAL:
        return "unknown", "a virtual device"
    return ("gpu", "") if render else ("unknown", "display only: without a render node it cannot compute")
