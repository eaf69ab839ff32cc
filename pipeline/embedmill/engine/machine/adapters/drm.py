"""GPUs with a graphics driver in Linux: /sys/class/drm.

Files of a card: Documentation/ABI/testing/sysfs-bus-pci and Documentation/gpu/amdgpu/driver-misc.rst of the kernel.
"""

from __future__ import annotations

from pathlib import Path

from embedmill.engine.machine.adapters.adapter import Adapter, Kind, Look
from embedmill.engine.machine.adapters.sysfs import PciDevice, closed, device_at, number, numbered

# Drivers of devices that exist in software only; what draws for them is not known here.
_VIRTUAL = {"vgem", "vkms", "virtio_gpu", "virtio-pci"}


def look(root: Path = Path("/")) -> Look:
    """Every card of /sys/class/drm."""
    folder = root / "sys/class/drm"
    if not folder.is_dir():
        return Look(reason="there is no /sys/class/drm: no graphics driver is loaded")
    return Look(adapters=tuple(_adapter(card, root) for card in numbered(folder, "card")))


def _adapter(card: Path, root: Path) -> Adapter:
    folder = card / "device"
    device = device_at(folder, root, card)
    render = next(numbered(folder / "drm", "renderD"), None)
    kind, note = _kind(device, render)
    return Adapter(
        seen_by="drm",
        name=device.name,
        kind=kind,
        vendor_id=device.vendor_id,
        device_id=device.device_id,
        # Only amdgpu says so.
        memory_bytes=number(folder / "mem_info_vram_total"),
        shared_memory_bytes=number(folder / "mem_info_gtt_total"),
        driver=device.driver,
        note=note or (closed(root / "dev/dri" / render.name) if render else ""),
    )


def _kind(device: PciDevice, render: Path | None) -> tuple[Kind, str]:
    if device.driver.partition(" ")[0] in _VIRTUAL:
        return "unknown", "a virtual device"
    return ("gpu", "") if render else ("unknown", "shows pictures, but cannot compute: it has no render node")
