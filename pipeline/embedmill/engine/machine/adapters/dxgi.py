"""GPUs of Windows (DXGI), in DirectML's order.

`python -m embedmill.engine.machine.adapters.dxgi` prints them as JSON. NPUs are not adapters of DXGI.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import Structure, byref, c_int32, c_int64, c_size_t, c_uint16, c_uint32, c_void_p
from typing import Any
from uuid import UUID

from embedmill.engine.machine.adapters.adapter import Adapter, Detection, Kind, fallback_name
from embedmill.engine.machine.adapters.child import print_detection
from embedmill.engine.machine.adapters.com import RELEASE, call_method, check_hresult

# Types, numbers and vtable indexes: dxgi.h of the Windows SDK.
_FACTORY1 = UUID("770aae78-f26f-4dba-a829-253c83d1b387").bytes_le
_DEVICE = UUID("54ec77fa-1377-44e6-8c32-88fd5f44c84c").bytes_le
_NOT_FOUND = 0x887A0002
_REMOTE, _SOFTWARE = 1, 2
_ENUM_ADAPTERS_1, _CHECK_INTERFACE_SUPPORT, _GET_DESC_1 = 12, 9, 10


class AdapterDescription(Structure):
    """DXGI_ADAPTER_DESC1; sizes in bytes."""

    _fields_ = (
        # UTF-16, which `c_wchar` is not on every system.
        ("Description", c_uint16 * 128),
        ("VendorId", c_uint32),
        ("DeviceId", c_uint32),
        ("SubSysId", c_uint32),
        ("Revision", c_uint32),
        ("DedicatedVideoMemory", c_size_t),
        ("DedicatedSystemMemory", c_size_t),
        ("SharedSystemMemory", c_size_t),
        ("LuidLow", c_uint32),
        ("LuidHigh", c_int32),
        ("Flags", c_uint32),
    )


def main() -> None:
    """Print the adapters as JSON."""
    print_detection(detect)


def describe(adapter: c_void_p) -> AdapterDescription:
    """Return the description of an IDXGIAdapter1. Raises OSError."""
    description = AdapterDescription()
    check_hresult("GetDesc1", call_method(adapter, _GET_DESC_1, byref(description)))
    return description


def detect(library: Any = None) -> Detection:
    """Detect adapters; `library` is dxgi.dll, by default the system's."""
    found: list[Adapter] = []
    try:
        for index, (description, driver) in enumerate(_descriptions(library or ctypes.CDLL("dxgi.dll"))):
            found.append(_adapter(index, description, driver))
    except OSError as error:
        return Detection(adapters=tuple(found), reason=str(error))
    return Detection(adapters=tuple(found))


def _descriptions(library: Any) -> Iterator[tuple[AdapterDescription, int | None]]:
    """Yield each adapter and driver version. Raises OSError."""
    factory = c_void_p()
    check_hresult("CreateDXGIFactory1", library.CreateDXGIFactory1(_FACTORY1, byref(factory)))
    try:
        index = 0
        while adapter := _enumerated(factory, index):
            try:
                description, version = describe(adapter), c_int64()
                code = call_method(adapter, _CHECK_INTERFACE_SUPPORT, _DEVICE, byref(version))
                yield description, version.value if code >= 0 else None
            finally:
                call_method(adapter, RELEASE)
            index += 1
    finally:
        call_method(factory, RELEASE)


def _enumerated(factory: c_void_p, index: int) -> c_void_p | None:
    adapter = c_void_p()
    code = call_method(factory, _ENUM_ADAPTERS_1, c_uint32(index), byref(adapter))
    if code & 0xFFFFFFFF == _NOT_FOUND:
        return None
    check_hresult("EnumAdapters1", code)
    return adapter


def _adapter(index: int, description: AdapterDescription, driver: int | None) -> Adapter:
    name = bytes(description.Description).decode("utf-16-le", errors="replace").partition("\0")[0]
    kind, note = _kind(description.Flags)
    return Adapter(
        seen_by="dxgi",
        name=name or fallback_name(description.VendorId, description.DeviceId),
        kind=kind,
        vendor_id=description.VendorId,
        device_id=description.DeviceId,
        luid=(description.LuidHigh & 0xFFFFFFFF) << 32 | description.LuidLow,
        memory_bytes=description.DedicatedVideoMemory,
        shared_memory_bytes=description.SharedSystemMemory,
        driver="" if driver is None else ".".join(str(driver >> shift & 0xFFFF) for shift in (48, 32, 16, 0)),
        note=f"adapter {index}" + note,
    )


def _kind(flags: int) -> tuple[Kind, str]:
    if flags & _SOFTWARE:
        return "cpu", "; software: it runs on the processor"
    return ("unknown", "; of a remote session") if flags & _REMOTE else ("gpu", "")


if __name__ == "__main__":
    main()
