"""Detection of GPUs and NPUs through every system interface."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from embedmill.engine.machine.adapters import accel, drm, dxg, pci
from embedmill.engine.machine.adapters.adapter import Adapter, Detection, Kind, vendor_name
from embedmill.engine.machine.adapters.child import detect_in_child

if TYPE_CHECKING:
    from embedmill.engine.machine.machine import Machine

__all__ = ["Adapter", "Detection", "Kind", "detect_adapters", "driver_versions", "vendor_name"]

InChild = Callable[[str, float], Detection]
_ROOT = Path("/")


def detect_adapters(
    machine: Machine, root: Path = _ROOT, timeout_s: float = 10.0, in_child: InChild = detect_in_child
) -> tuple[list[Adapter], list[str]]:
    """Return all adapters, and the reasons of failed queries.

    A device that two interfaces report is listed twice: not every interface gives an identity to compare. `in_child`
    runs each query that loads a driver, for at most `timeout_s` seconds.
    """
    adapters: list[Adapter] = []
    reasons: list[str] = []
    for interface, detect in _detectors(machine, root, timeout_s, in_child).items():
        found = detect()
        adapters += found.adapters
        reasons += [f"{interface}: {found.reason}"] if found.reason else []
    return adapters, reasons


def driver_versions(machine: Machine, root: Path = _ROOT, timeout_s: float = 10.0) -> list[str]:
    """Return names and versions of drivers, sorted."""
    detectors = _detectors(machine, root, timeout_s, detect_in_child)
    # Vulkan is the slowest to query, and the system's own interfaces know the same drivers.
    del detectors["vulkan"]
    return sorted({adapter.driver for detect in detectors.values() for adapter in detect().adapters if adapter.driver})


def _detectors(machine: Machine, root: Path, timeout_s: float, in_child: InChild) -> dict[str, Callable[[], Detection]]:
    # In the order of display. DXGI and Vulkan load drivers, which may crash or hang: they are named, not imported.
    drivers = ["dxgi", "vulkan"] if machine.system == "Windows" else ["vulkan"]
    by_driver = {name: partial(in_child, f"{__name__}.{name}", timeout_s) for name in drivers}
    if machine.system != "Linux":
        return {**by_driver}
    files = {name: partial(module.detect, root) for name, module in (("drm", drm), ("accel", accel), ("pci", pci))}
    return {**files, "dxg": partial(dxg.detect, machine, root), **by_driver}
