"""Read GPUs and accelerators from PCI, even without a driver.

Class codes: PCI Code and ID Assignment Specification, chapter 1.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import structs

from embedmill.engine.machine.adapters.adapter import Adapter, Scan
from embedmill.engine.machine.adapters.sysfs import device_at, number

_DISPLAY, _ACCELERATOR = 0x03, 0x12


def scan(root: Path = Path("/")) -> Scan:
    """Return every display controller and processing accelerator of /sys/bus/pci."""
    try:
        folders = sorted((root / "sys/bus/pci/devices").iterdir())
    except OSError:
        return Scan()
    classes = ((number(folder / "class") or 0) >> 16 for folder in folders)
    found = (folder for folder, code in zip(folders, classes, strict=True) if code in (_DISPLAY, _ACCELERATOR))
    return Scan(adapters=tuple(_adapter(folder, root) for folder in found))


def _adapter(folder: Path, root: Path) -> Adapter:
    # The kind stays unknown: a class code says what a device is made for, not whether it can compute.
    device = device_at(folder, root, folder, seen_by="pci")
    return device if device.driver else structs.replace(device, note="no driver is loaded for it")
