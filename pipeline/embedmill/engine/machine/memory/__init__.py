"""How much memory there is for batches: one interface over the means that systems and drivers have."""

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

# The catalogue's words for who reports memory; `vendor` is for providers that drive any maker's GPU.
MemorySource = Literal["host", "nvml", "amdgpu", "dxgi", "vendor", "unknown"]
# PCI vendors: NVIDIA, AMD.
_VENDORS: dict[int | None, MemorySource] = {0x10DE: "nvml", 0x1002: "amdgpu"}


class DeviceFacts(Struct, frozen=True, kw_only=True):
    """What is known of a device that tells it from others; nothing of it need be.

    luid        Windows' number of the adapter: high part << 32 | low part
    uuid        NVIDIA's, as `GPU-...` or `MIG-...`
    bus_id      its PCI address, as `0000:03:00.0`
    cuda_index  its number as CUDA counts
    vendor_id   of PCI
    integrated  whether its memory is the machine's
    """

    luid: int | None = None
    uuid: str = ""
    bus_id: str = ""
    cuda_index: int | None = None
    vendor_id: int | None = None
    integrated: bool | None = None


def probe_for(word: MemorySource, device: DeviceFacts | None = None, *, root: Path = Path("/")) -> Probe:
    """The probe that the catalogue's word names, for a device. `root` is where /proc and /sys are.

    Where the device cannot be told from others, the probe says so at each reading.
    """
    device = device or DeviceFacts()
    if word == "vendor":
        word = _by_vendor(device)
    if word == "host":
        return HostProbe(root)
    if word == "nvml":
        return _nvidia(device)
    if word == "amdgpu":
        return AmdgpuProbe(device.bus_id, integrated=device.integrated, root=root)
    if word == "dxgi":
        return _windows(device)
    return UnknownProbe("unknown", "no means to look at this device's memory is known")


def _by_vendor(device: DeviceFacts) -> MemorySource:
    if sys.platform == "win32":
        return "dxgi"
    if sys.platform != "linux":
        return "unknown"
    return _VENDORS.get(device.vendor_id, "unknown")


def _nvidia(device: DeviceFacts) -> Probe:
    known = device.uuid or device.bus_id
    if known:
        return NvmlProbe(known)
    if device.cuda_index is None:
        return UnknownProbe("NVML", "the runtime does not say which GPU it uses")
    return NvmlProbe(device.cuda_index)


def _windows(device: DeviceFacts) -> Probe:
    if sys.platform != "win32":
        return UnknownProbe("DXGI and PDH", "only Windows has them")
    if device.luid is None:
        return UnknownProbe("DXGI and PDH", "the runtime does not say which adapter it uses (no LUID)")
    from embedmill.engine.machine.memory.windows import WindowsProbe

    return WindowsProbe(device.luid, integrated=device.integrated)
