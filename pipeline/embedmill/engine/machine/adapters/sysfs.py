"""What Linux says of a device below /sys, whichever bus it is on."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from embedmill.engine.machine.adapters.adapter import unnamed
from embedmill.engine.machine.procfs import read_text


class PciDevice(Struct, frozen=True, kw_only=True):
    """A device's folder below /sys; ids are those of its bus, None where it has none; `slot` is its PCI address."""

    folder: Path
    vendor_id: int | None
    device_id: int | None
    driver: str
    slot: str
    name: str


def numbered(folder: Path, prefix: str) -> Iterator[Path]:
    """`prefix0`, `prefix1`, ... of a folder, in the order of their numbers; nothing where there is no folder."""
    found = [(match[1], path) for path in _entries(folder) if (match := re.fullmatch(rf"{prefix}(\d+)", path.name))]
    yield from (path for _, path in sorted(found, key=lambda pair: int(pair[0])))


def device_at(folder: Path, root: Path, entry: Path) -> PciDevice:
    """Read a device's ids, driver and name.

    The name is the driver's own word (NVIDIA's, or `product_name` of some AMD boards), what a device tree calls it,
    the numbers, or else the driver or its `entry` below /sys.
    """
    event = dict(line.split("=", 1) for line in read_text(folder / "uevent").splitlines() if "=" in line)
    vendor, device = number(folder / "vendor"), number(folder / "device")
    driver, slot = event.get("DRIVER", ""), event.get("PCI_SLOT_NAME", "")
    version = read_text(root / "sys/module" / driver / "version") if driver else ""
    name = _nvidia_name(root, slot) or read_text(folder / "product_name") or event.get("OF_COMPATIBLE_0", "")
    return PciDevice(
        folder=folder,
        vendor_id=vendor,
        device_id=device,
        driver=f"{driver} {version}".strip(),
        slot=slot,
        name=name or unnamed(vendor, device) or driver or entry.name,
    )


def number(path: Path) -> int | None:
    """A file's number, decimal or with 0x; None where it has none."""
    try:
        return int(read_text(path), 0)
    except ValueError:
        return None


def closed(node: Path) -> str:
    """Why this user cannot use a device's node; empty where they can, or where there is none."""
    if not node.exists() or os.access(node, os.R_OK | os.W_OK):
        return ""
    return f"this user may not open {node}; add them to its group (often `render`)"


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _nvidia_name(root: Path, slot: str) -> str:
    """The `Model:` line that NVIDIA's driver shows for a PCI address."""
    text = read_text(root / "proc/driver/nvidia/gpus" / slot / "information") if slot else ""
    match = re.search(r"^Model:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else ""
