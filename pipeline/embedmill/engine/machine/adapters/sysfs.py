"""Devices below /sys of Linux, on any bus."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from embedmill.engine.machine.adapters.adapter import Adapter, fallback_name
from embedmill.engine.machine.procfs import read_text


def numbered_entries(folder: Path, prefix: str) -> Iterator[Path]:
    """Yield `prefix0`, `prefix1`, ... of a folder, ordered by number."""
    try:
        entries = list(folder.iterdir())
    except OSError:
        return
    found = [(int(match[1]), path) for path in entries if (match := re.fullmatch(rf"{prefix}(\d+)", path.name))]
    yield from (path for _, path in sorted(found))


def read_adapter(interface: str, folder: Path, root: Path, entry: Path) -> Adapter:
    """Read ids, driver and name of a device.

    The name comes from the driver (NVIDIA's, or `product_name` of some AMD boards) or the device tree; else from the
    ids, the driver's name, or the device's `entry` below /sys.
    """
    # Documentation/ABI/testing/sysfs-bus-pci of the kernel; other buses have the same files.
    event = dict(line.split("=", 1) for line in read_text(folder / "uevent").splitlines() if "=" in line)
    vendor, device = read_number(folder / "vendor"), read_number(folder / "device")
    driver, slot = event.get("DRIVER", ""), event.get("PCI_SLOT_NAME", "")
    version = read_text(root / "sys/module" / driver / "version") if driver else ""
    name = _nvidia_name(root, slot) or read_text(folder / "product_name") or event.get("OF_COMPATIBLE_0", "")
    return Adapter(
        seen_by=interface,
        name=name or fallback_name(vendor, device) or driver or entry.name,
        kind="unknown",
        vendor_id=vendor,
        device_id=device,
        driver=f"{driver} {version}".strip(),
    )


def read_number(path: Path) -> int | None:
    """Read a number, decimal or with 0x; None without one."""
    try:
        return int(read_text(path), 0)
    except ValueError:
        return None


def access_problem(node: Path) -> str:
    """Return the reason why this user cannot open a node."""
    if not node.exists() or os.access(node, os.R_OK | os.W_OK):
        return ""
    return f"this user may not open {node}; add the user to its group (often `render`)"


def _nvidia_name(root: Path, slot: str) -> str:
    # The driver's own page of the GPU, by PCI address.
    text = read_text(root / "proc/driver/nvidia/gpus" / slot / "information") if slot else ""
    match = re.search(r"^Model:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else ""
