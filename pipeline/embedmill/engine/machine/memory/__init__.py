"""Memory for batches: one probe interface over systems and drivers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from msgspec import Struct

from embedmill.engine.machine.memory.amdgpu import AmdgpuProbe
from embedmill.engine.machine.memory.host import HostProbe
from embedmill.engine.machine.memory.nvml import NvmlProbe
from embedmill.engine.machine.memory.probe import MemoryReading, Probe, UnknownProbe, ceiling, reserve

__all__ = ["DeviceFacts", "MemoryReading", "MemorySource", "Probe", "ceiling", "probe_for", "reserve"]

# Interfaces that report memory; `vendor` is for providers that drive GPUs of any vendor.
MemorySource = Literal["host", "nvml", "amdgpu", "dxgi", "vendor", "unknown"]
# PCI vendors: NVIDIA, AMD.
_VENDORS: dict[int | None, MemorySource] = {0x10DE: "nvml", 0x1002: "amdgpu"}


class DeviceFacts(Struct, frozen=True, kw_only=True):
    """Identity of a device; any field may be unknown.

    luid        Windows' number of the adapter: high part << 32 | low part
    uuid        NVIDIA's, as `GPU-...` or `MIG-...`
    bus_id      PCI address, as `0000:03:00.0`
    cuda_index  CUDA's device number
    vendor_id   PCI vendor
    integrated  whether the device shares the machine's memory
    """

    luid: int | None = None
    uuid: str = ""
    bus_id: str = ""
    cuda_index: int | None = None
    vendor_id: int | None = None
    integrated: bool | None = None


def probe_for(source: MemorySource, device: DeviceFacts | None = None, *, root: Path = Path("/")) -> Probe:
    """Return a device's probe; `root` holds /proc and /sys.

    For a device that cannot be identified, every reading of the probe is unknown and says so.
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
    return _VENDORS.get(device.vendor_id, "unknown")


def _nvidia(device: DeviceFacts) -> Probe:
    identity = device.uuid or device.bus_id or device.cuda_index
    if identity is None:
        return UnknownProbe("NVML", "the runtime does not say which GPU it uses")
    return NvmlProbe(identity)


def _windows(device: DeviceFacts) -> Probe:
    if sys.platform != "win32":
        return UnknownProbe("DXGI and PDH", "only Windows has them")
    if device.luid is None:
        return UnknownProbe("DXGI and PDH", "the runtime does not say which adapter it uses (no LUID)")
    # Only Windows has the libraries that this module loads.
    from embedmill.engine.machine.memory.windows import WindowsProbe

    return WindowsProbe(device.luid, integrated=device.integrated)
