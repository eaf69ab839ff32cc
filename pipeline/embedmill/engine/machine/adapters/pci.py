"""GPUs and accelerators on Linux' PCI bus, even without driver."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from embedmill.engine.machine.adapters.adapter import Adapter, Detection
from embedmill.engine.machine.adapters.sysfs import read_adapter, read_number

# Class codes: PCI Code and ID Assignment Specification, chapter 1.
_DISPLAY, _ACCELERATOR = 0x03, 0x12


def detect(root: Path = Path("/")) -> Detection:
    """Detect display controllers and processing accelerators, all of unknown kind."""
    try:
        folders = sorted((root / "sys/bus/pci/devices").iterdir())
    except OSError:
        return Detection()
    codes = ((read_number(folder / "class") or 0) >> 16 for folder in folders)
    found = (folder for folder, code in zip(folders, codes, strict=True) if code in (_DISPLAY, _ACCELERATOR))
    return Detection(adapters=tuple(_adapter(folder, root) for folder in found))


def _adapter(folder: Path, root: Path) -> Adapter:
    adapter = read_adapter("pci", folder, root, folder)
    return adapter if adapter.driver else replace(adapter, note="no driver is loaded for it")
