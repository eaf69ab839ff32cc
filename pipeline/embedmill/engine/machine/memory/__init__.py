"""Probe memory: one interface for all systems and drivers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from msgspec import Struct

from embedmill.engine.machine.memory.amdgpu import AmdgpuProbe
from embedmill.engine.machine.memory.host import HostProbe
from embedmill.engine.machine.memory.nvml import NvmlProbe
from embedmill.engine.machine.memory.reading import MemoryReading, Probe, UnknownProbe, ceiling, reserve

__all__ = [
    "DeviceFacts",
    "MemoryReading",
    "MemorySource",
    "Probe",
    "ceiling",
    "probe_for",
    "reserve",
]

# Values of the catalogue's `memory`; `vendor` is for providers that drive any vendor's GPU.
MemorySource = Literal["host", "nvml", "amdgpu", "dxgi", "vendor", "unknown"]
# By PCI vendor id: NVIDIA, AMD.
_VENDOR_SOURCES: dict[int | None, MemorySource] = {0x10DE: "nvml", 0x1002: "amdgpu"}


class DeviceFacts(Struct, frozen=True, kw_only=True):
    """Facts that identify a device, each optional.

    luid        of Windows: high part << 32 | low part
    uuid        of NVIDIA, as `GPU-...` or `MIG-...`
    bus_id      the PCI address, as `0000:03:00.0`
    cuda_index  the ordinal in CUDA's order
    vendor_id   of PCI
    integrated  whether the device uses system memory
    """

    luid: int | None = None
    uuid: str = ""
    bus_id: str = ""
    cuda_index: int | None = None
    vendor_id: int | None = None
    integrated: bool | None = None


def probe_for(source: MemorySource, device: DeviceFacts | None = None, *, root: Path = Path("/")) -> Probe:
    """Return the probe of a source for a device.

    `root` holds /proc and /sys. Where the facts do not identify the device, each reading is unknown and says why.
    """
    device = device or DeviceFacts()
    if source == "vendor":
        source = _by_vendor(device)
    if source == "host":
        return HostProbe(root)
    if source == "nvml":
        return _nvidia(device)
    if source == "amdgpu":
        return AmdgpuProbe(device.bus_id, integrated=device.integrated, root=root)
    if source == "dxgi":
        return _windows(device)
    return UnknownProbe("unknown", "no interface reports this device's memory")


def _by_vendor(device: DeviceFacts) -> MemorySource:
    if sys.platform == "win32":
        return "dxgi"
    if sys.platform != "linux":
        return "unknown"
    return _VENDOR_SOURCES.get(device.vendor_id, "unknown")


def _nvidia(device: DeviceFacts) -> Probe:
    key = device.uuid or device.bus_id or device.cuda_index
    return UnknownProbe("NVML", "the runtime does not say which GPU it uses") if key is None else NvmlProbe(key)


def _windows(device: DeviceFacts) -> Probe:
    if sys.platform != "win32":
        return UnknownProbe("DXGI and PDH", "only Windows has them")
    if device.luid is None:
        return UnknownProbe("DXGI and PDH", "the runtime does not say which adapter it uses (no LUID)")
    # Imported here: the declarations for ctypes are of use under Windows only.
    from embedmill.engine.machine.memory.windows import WindowsProbe

    return WindowsProbe(device.luid, integrated=device.integrated)
