"""List the GPUs and NPUs of this machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from embedmill.engine.machine.adapters import accel, drm, dxg, pci
from embedmill.engine.machine.adapters.adapter import Adapter, Kind, Scan, vendor_name
from embedmill.engine.machine.adapters.child import scan_in_child

if TYPE_CHECKING:
    from embedmill.engine.machine.machine import Machine

__all__ = ["Adapter", "Kind", "Scan", "driver_versions", "seen_adapters", "vendor_name"]


def seen_adapters(machine: Machine, root: Path = Path("/"), timeout_s: float = 10.0) -> tuple[list[Adapter], list[str]]:
    """Return the adapters of every interface, and the failures.

    Scans that ask a driver run in a child process, each for at most `timeout_s` seconds.
    """
    # A device that two interfaces list stays listed twice: not every interface has an id to match by.
    scans = {interface: scan() for interface, scan in _scanners(machine, root, timeout_s).items()}
    adapters = [adapter for found in scans.values() for adapter in found.adapters]
    return adapters, [f"{interface}: {found.reason}" for interface, found in scans.items() if found.reason]


def driver_versions(machine: Machine, root: Path = Path("/"), timeout_s: float = 10.0) -> list[str]:
    """Return names and versions of the drivers, without Vulkan's."""
    # Vulkan is the slowest to ask.
    scanners = _scanners(machine, root, timeout_s).items()
    found = [scan() for interface, scan in scanners if interface != "vulkan"]
    return sorted({adapter.driver for scan in found for adapter in scan.adapters if adapter.driver})


def _scanners(machine: Machine, root: Path, timeout_s: float) -> dict[str, Callable[[], Scan]]:
    """Return a system's scans by interface, in display order."""
    # Both load a driver into the process: in a child, a driver that crashes or hangs leaves the parent intact.
    dxgi, vulkan = (partial(scan_in_child, f"{__name__}.{name}", timeout_s) for name in ("dxgi", "vulkan"))
    if machine.system == "Windows":
        return {"dxgi": dxgi, "vulkan": vulkan}
    if machine.system != "Linux":
        return {"vulkan": vulkan}
    return {
        "drm": partial(drm.scan, root),
        "accel": partial(accel.scan, root),
        "pci": partial(pci.scan, root),
        "dxg": partial(dxg.scan, machine, root),
        "vulkan": vulkan,
    }
