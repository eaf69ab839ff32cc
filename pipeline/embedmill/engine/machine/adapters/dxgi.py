"""List Windows' GPUs in DirectML's order, through DXGI.

`python -m embedmill.engine.machine.adapters.dxgi` prints the scan as JSON.

Types, numbers and vtable indexes: dxgi.h of the Windows SDK. NPUs are not adapters of DXGI.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import Structure, byref, c_int32, c_int64, c_size_t, c_uint16, c_uint32, c_void_p
from typing import Any
from uuid import UUID

from embedmill.engine.machine.adapters.adapter import Adapter, Kind, Scan, unnamed
from embedmill.engine.machine.adapters.child import answer
from embedmill.engine.machine.adapters.com import RELEASE, call, check

_FACTORY1 = UUID("770aae78-f26f-4dba-a829-253c83d1b387").bytes_le
_DEVICE = UUID("54ec77fa-1377-44e6-8c32-88fd5f44c84c").bytes_le
_NOT_FOUND = 0x887A0002
_REMOTE, _SOFTWARE = 1, 2
# Vtable indexes: of IUnknown, IDXGIFactory1, IDXGIAdapter and IDXGIAdapter1.
_ENUM_ADAPTERS_1 = 12
_CHECK_INTERFACE_SUPPORT = 9
_GET_DESC_1 = 10


class Description(Structure):
    """DXGI_ADAPTER_DESC1, sizes in bytes."""

    _fields_ = (
        # UTF-16, which is not `c_wchar` on every system.
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
    """Print the scan as JSON."""
    answer(scan)


def scan(library: Any = None) -> Scan:
    """Return DXGI's adapters; `library` defaults to the system's dxgi.dll."""
    found: list[Adapter] = []
    try:
        for index, (description, driver) in enumerate(_descriptions(library or ctypes.CDLL("dxgi.dll"))):
            found.append(_adapter(index, description, driver))
    except OSError as error:
        return Scan(adapters=tuple(found), reason=str(error))
    return Scan(adapters=tuple(found))


def _descriptions(library: Any) -> Iterator[tuple[Description, int | None]]:
    """Yield each adapter's description and driver version; raises OSError."""
    factory = c_void_p()
    check("CreateDXGIFactory1", library.CreateDXGIFactory1(_FACTORY1, byref(factory)))
    try:
        index = 0
        while adapter := _enumerated(factory, index):
            try:
                yield _described(adapter)
            finally:
                call(adapter, RELEASE)
            index += 1
    finally:
        call(factory, RELEASE)


def _enumerated(factory: c_void_p, index: int) -> c_void_p | None:
    adapter = c_void_p()
    code = call(factory, _ENUM_ADAPTERS_1, c_uint32(index), byref(adapter))
    if code & 0xFFFFFFFF == _NOT_FOUND:
        return None
    check("EnumAdapters1", code)
    return adapter


def _described(adapter: c_void_p) -> tuple[Description, int | None]:
    description, version = Description(), c_int64()
    check("GetDesc1", call(adapter, _GET_DESC_1, byref(description)))
    code = call(adapter, _CHECK_INTERFACE_SUPPORT, _DEVICE, byref(version))
    return description, version.value if code >= 0 else None


def _adapter(index: int, description: Description, driver: int | None) -> Adapter:
    name = bytes(description.Description).decode("utf-16-le", errors="replace").partition("\0")[0]
    kind, note = _kind(description.Flags)
    return Adapter(
        seen_by="dxgi",
        name=name or unnamed(description.VendorId, description.DeviceId),
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
        return "cpu", "; a software renderer on the CPU"
    return ("unknown", "; of a remote session") if flags & _REMOTE else ("gpu", "")


if __name__ == "__main__":
    main()
