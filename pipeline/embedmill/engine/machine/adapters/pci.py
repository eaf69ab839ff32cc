"""GPUs and accelerators on the PCI bus of Linux, those without a driver too: /sys/bus/pci.

Class codes: PCI Code and ID Assignment Specification, chapter 1.
"""

from __future__ import annotations

from pathlib import Path

from embedmill.engine.machine.adapters.adapter import Adapter, Look
from embedmill.engine.machine.adapters.sysfs import device_at, number

_DISPLAY, _ACCELERATOR = 0x03, 0x12


def look(root: Path = Path("/")) -> Look:
    """Every display controller and processing accelerator.

    The bus says what they are made for, not what they can do: their kind is unknown.
    """
    try:
        folders = sorted((root / "sys/bus/pci/devices").iterdir())
    except OSError:
        return Look()
    classes = ((number(folder / "class") or 0) >> 16 for folder in folders)
    found = (folder for folder, code in zip(folders, classes, strict=True) if code in (_DISPLAY, _ACCELERATOR))
    return Look(adapters=tuple(_adapter(folder, root) for folder in found))


def _adapter(folder: Path, root: Path) -> Adapter:
    device = device_at(folder, root, folder)
    return Adapter(
        seen_by="pci",
        name=device.name,
        kind="unknown",
        vendor_id=device.vendor_id,
        device_id=device.device_id,
        driver=device.driver,
        note="" if device.driver else "no driver is loaded for it",
    )
