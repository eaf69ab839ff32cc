"""GPUs and NPUs that this machine shows, by every means there is on its system."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from embedmill.engine.machine.adapters.adapter import Adapter, Kind, Look, vendor_name

if TYPE_CHECKING:
    from embedmill.engine.machine.machine import Machine

__all__ = ["Adapter", "Kind", "Look", "driver_versions", "seen_adapters", "vendor_name"]


def seen_adapters(machine: Machine, root: Path = Path("/"), timeout_s: float = 10.0) -> tuple[list[Adapter], list[str]]:
    """What each means sees, and what could not be looked at and why.

    A device that two means see is listed twice: which of them are one, not every means can tell. Those that ask a
    driver do so in a child process, each for at most `timeout_s` seconds.
    """
    adapters: list[Adapter] = []
    reasons: list[str] = []
    for means, look in _means(machine, root, timeout_s).items():
        seen = look()
        adapters += seen.adapters
        reasons += [f"{means}: {seen.reason}"] if seen.reason else []
    return adapters, reasons


def driver_versions(machine: Machine, root: Path = Path("/"), timeout_s: float = 10.0) -> list[str]:
    """Names and versions of the drivers that the system's own means tell; Vulkan, the slowest to ask, is left out."""
    looks = (look() for means, look in _means(machine, root, timeout_s).items() if means != "vulkan")
    return sorted({adapter.driver for look in looks for adapter in look.adapters if adapter.driver})


def _means(machine: Machine, root: Path, timeout_s: float) -> dict[str, Callable[[], Look]]:
    """The means of a system, in the order in which they are shown."""
    # Imported here, so that the child that runs one of them as a program imports it once.
    from embedmill.engine.machine.adapters import accel, drm, dxg, dxgi, pci, vulkan

    by_driver: dict[str, Callable[[], Look]] = {"vulkan": partial(vulkan.adapters_in_child, timeout_s)}
    if machine.system == "Windows":
        return {"dxgi": partial(dxgi.adapters_in_child, timeout_s), **by_driver}
    if machine.system != "Linux":
        return by_driver
    from_files = {"drm": drm.look, "accel": accel.look, "pci": pci.look}
    return {
        **{means: partial(look, root) for means, look in from_files.items()},
        "dxg": partial(dxg.look, machine, root),
        **by_driver,
    }
