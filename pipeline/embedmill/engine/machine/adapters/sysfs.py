"""Read a device's ids, driver and name from Linux's /sys."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from embedmill.engine.machine.adapters.adapter import Adapter, unnamed
from embedmill.engine.machine.procfs import read_text


def numbered(folder: Path, prefix: str) -> Iterator[Path]:
    """Yield `prefix0`, `prefix1`, ... of a folder, in numeric order."""
    found = [(match[1], path) for path in _entries(folder) if (match := re.fullmatch(rf"{prefix}(\d+)", path.name))]
    yield from (path for _, path in sorted(found, key=lambda pair: int(pair[0])))


def device_at(folder: Path, root: Path, entry: Path, *, seen_by: str) -> Adapter:
    """Read ids, driver and name; the kind stays unknown.

    The name is the first of: the driver's (NVIDIA's, or `product_name` of some AMD boards), the device tree's, the
    ids, the driver, the `entry` below /sys.
    """
    event = dict(line.split("=", 1) for line in read_text(folder / "uevent").splitlines() if "=" in line)
    vendor, device = number(folder / "vendor"), number(folder / "device")
    driver, slot = event.get("DRIVER", ""), event.get("PCI_SLOT_NAME", "")
    version = read_text(root / "sys/module" / driver / "version") if driver else ""
    name = _nvidia_name(root, slot) or read_text(folder / "product_name") or event.get("OF_COMPATIBLE_0", "")
    return Adapter(
        seen_by=seen_by,
        name=name or unnamed(vendor, device) or driver or entry.name,
        kind="unknown",
        vendor_id=vendor,
        device_id=device,
        driver=f"{driver} {version}".strip(),
    )


def number(path: Path) -> int | None:
    """Read a number, decimal or with 0x; None without one."""
    try:
        return int(read_text(path), 0)
    except ValueError:
        return None


def access_problem(node: Path) -> str:
    """Explain why this user cannot open a node; empty otherwise."""
    if not node.exists() or os.access(node, os.R_OK | os.W_OK):
        return ""
    return f"this user may not open {node}; add the user to its group (often `render`)"


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _nvidia_name(root: Path, slot: str) -> str:
    text = read_text(root / "proc/driver/nvidia/gpus" / slot / "information") if slot else ""
    match = re.search(r"^Model:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else ""
