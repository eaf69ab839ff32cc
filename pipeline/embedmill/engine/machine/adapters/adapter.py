"""GPUs and NPUs as system interfaces report devices."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Kind = Literal["gpu", "npu", "cpu", "unknown"]

# PCI vendors; Vulkan's numbers where a driver has none of PCI; ACPI's "QCOM", which Windows reports for Adreno.
_VENDORS = {
    0x1002: "AMD",
    0x1022: "AMD",
    0x106B: "Apple",
    0x10DE: "NVIDIA",
    0x13B5: "ARM",
    0x1414: "Microsoft",
    0x17CB: "Qualcomm",
    0x5143: "Qualcomm",
    0x8086: "Intel",
    0x10005: "Mesa",
    0x4D4F4351: "Qualcomm",
}


class Adapter(Struct, frozen=True, kw_only=True):
    """One GPU or NPU, reported by one interface.

    seen_by              the interface: drm, accel, fastrpc, pci, dxg, vulkan or dxgi
    kind                 cpu for a software renderer; unknown where the interface does not say
    integrated           None where unknown
    vendor_id, device_id see `vendor_name`
    luid                 Windows' number of the adapter, as ONNX Runtime and DXGI count: high part << 32 | low part
    memory_bytes         dedicated memory; of an integrated GPU what the firmware set aside
    shared_memory_bytes  system memory that the adapter may use
    driver               name, and version where known
    note                 anything else a user should know
    """

    seen_by: str
    name: str
    kind: Kind
    integrated: bool | None = None
    vendor_id: int | None = None
    device_id: int | None = None
    luid: int | None = None
    memory_bytes: int | None = None
    shared_memory_bytes: int | None = None
    driver: str = ""
    note: str = ""


class Detection(Struct, frozen=True, kw_only=True):
    """Adapters of one interface; `reason` of any that are missing."""

    adapters: tuple[Adapter, ...] = ()
    reason: str = ""


def vendor_name(vendor_id: int | None) -> str:
    """Return a vendor's name; empty for an unknown vendor."""
    return _VENDORS.get(vendor_id or 0, "")


def fallback_name(vendor_id: int | None, device_id: int | None) -> str:
    """Name a device by numbers: `AMD 0x744c`, `0x1af4:0x1050`."""
    if vendor_id is None or device_id is None:
        return vendor_name(vendor_id)
    vendor = vendor_name(vendor_id)
    return f"{vendor} {device_id:#06x}" if vendor else f"{vendor_id:#06x}:{device_id:#06x}"
