"""What a GPU or NPU is to those who look for one."""

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
    """One GPU or NPU, as one means of looking sees it; the same device may be seen by several.

    seen_by              drm, accel, fastrpc, pci, dxg, vulkan or dxgi
    kind                 cpu where software draws on the processor; unknown where the means does not say
    integrated           None where it does not say
    vendor_id, device_id see `vendor_name`
    luid                 Windows' number of the adapter, as ONNX Runtime and DXGI count it: high part << 32 | low part
    memory_bytes         of its own; for an integrated GPU what the firmware set aside
    shared_memory_bytes  of the machine's memory that it may use
    driver               its name, and version where known
    note                 what else a user should know, in words
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


class Look(Struct, frozen=True, kw_only=True):
    """What one means of looking saw, and why it saw no more: `reason` is empty where nothing hindered it."""

    adapters: tuple[Adapter, ...] = ()
    reason: str = ""


def vendor_name(vendor_id: int | None) -> str:
    """The vendor in words; empty where it is not one of the few known here."""
    return _VENDORS.get(vendor_id or 0, "")


def unnamed(vendor_id: int | None, device_id: int | None) -> str:
    """What to call a device of which only numbers are known: `AMD 0x744c`, `0x1af4:0x1050`."""
    if vendor_id is None or device_id is None:
        return vendor_name(vendor_id)
    vendor = vendor_name(vendor_id)
    return f"{vendor} {device_id:#06x}" if vendor else f"{vendor_id:#06x}:{device_id:#06x}"
